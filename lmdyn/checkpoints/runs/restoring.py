"""The reading side of a run."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn import models
from lmdyn.checkpoints.runs import arrays, manifest, run_folder
from lmdyn.checkpoints.runs.processes import quiet, shared
from lmdyn.errors import InputError
from lmdyn.types import Params, PathLike


def restore(path: PathLike, step: int, like: Mapping[str, Any]) -> tuple[dict, Any]:
    """A checkpoint, bit for bit, placed as `like` is, whatever devices wrote it.

    Args:
      path: the folder of a run.
      step: of a checkpoint that is there.
      like: items, such as `{"params": tree, "optimizer": state}`, with leaves that have `shape`,
        `dtype` and, if they belong anywhere but on the default device, `sharding`: arrays or
        `jax.ShapeDtypeStruct`. NumPy arrays come back as NumPy arrays.

    Returns:
      `(items, position)`.

    Raises:
      DamagedError: names the checkpoint and the file.
      InputError: there is no such checkpoint, or it holds other arrays than `like`.

    >>> import tempfile
    >>> from lmdyn import models
    >>> from lmdyn.checkpoints import runs
    >>> from lmdyn.data import tokenizers
    >>> folder = tempfile.mkdtemp()
    >>> tiny = models.ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> runs.create(
    ...     folder, model=tiny, tokenizer=tokenizers.byte_tokenizer(), config={}, data={}
    ... )
    >>> with runs.Checkpoints(folder, runs.Retention(every=1)) as writer:
    ...     _ = writer.save(
    ...         2, {"params": {"w": jnp.arange(3.0)}}, {"step": 2, "data": {"offset": 7}}
    ...     )
    >>> items, position = restore(folder, 2, {"params": {"w": jnp.zeros(3)}})
    >>> items["params"]["w"].tolist(), position["data"]
    ([0.0, 1.0, 2.0], {'offset': 7})
    """
    target = Path(shared(lambda: str(run_folder.require(path, step))))

    def look() -> dict[str, Any]:
        try:
            return {"content": manifest.check(target)}
        except manifest.DamagedError as err:
            return {"damage": str(err)}

    found = shared(look)
    if "damage" in found:
        raise _damaged(path, step, found["damage"])
    content = found["content"]
    items = {}
    for item, tree in like.items():
        wanted = arrays.named(tree)
        _compare(
            f"{path}: checkpoint {step}", item, content["arrays"].get(item), arrays.describe(wanted)
        )
        leaves = _read(path, step, target / item, arrays.stored(wanted))
        full = [
            leaves[p] if p in leaves else jnp.zeros(v.shape, v.dtype) for p, v in wanted.items()
        ]
        items[item] = jax.tree.unflatten(jax.tree.structure(tree), full)
    return items, content["position"]


def restore_latest(
    path: PathLike, like: Mapping[str, Any], warn: Callable[[str], None]
) -> tuple[int, dict, Any] | None:
    """The last checkpoint that is whole, as `(step, items, position)`; None if there is none yet.

    Args:
      path: as for `restore`.
      like: as for `restore`.
      warn: is given one line for each damaged checkpoint that is passed over.

    Raises:
      InputError: all are damaged, or they hold other arrays than `like`.

    >>> import tempfile
    >>> from lmdyn import models
    >>> from lmdyn.checkpoints import runs
    >>> from lmdyn.data import tokenizers
    >>> folder = tempfile.mkdtemp()
    >>> tiny = models.ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> runs.create(
    ...     folder, model=tiny, tokenizer=tokenizers.byte_tokenizer(), config={}, data={}
    ... )
    >>> restore_latest(folder, {"params": {"w": jnp.zeros(3)}}, warn=print) is None
    True
    """
    there = shared(lambda: run_folder.steps(path))
    for step in reversed(there):
        try:
            return step, *restore(path, step, like)
        except manifest.DamagedError as err:
            warn(f"{err}; going back to the one before it")
    if there:
        raise InputError(
            f"{path}: all {len(there)} checkpoints are damaged; put a copy back, or start a new run"
        )
    return None


def read_params(path: PathLike, step: int | None = None) -> Params:
    """The parameters of a checkpoint alone, in float32, on the default device.

    Args:
      path: the folder of a run.
      step: None is the last one that is whole.

    Raises:
      DamagedError: names the checkpoint and the file.
      InputError: no run, no such checkpoint, or parameters that are not of the run's model.

    >>> import tempfile
    >>> from lmdyn import models
    >>> from lmdyn.checkpoints import runs
    >>> from lmdyn.data import tokenizers
    >>> folder = tempfile.mkdtemp()
    >>> tiny = models.ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> runs.create(
    ...     folder, model=tiny, tokenizer=tokenizers.byte_tokenizer(), config={}, data={}
    ... )
    >>> params = models.init(models.LanguageModel(tiny))
    >>> with runs.Checkpoints(folder, runs.Retention(every=1)) as writer:
    ...     _ = writer.save(2, {"params": params}, {"step": 2, "data": None})
    >>> read_params(folder)["embed"]["embedding"].shape  # the last checkpoint
    (257, 6)
    """
    step = run_folder.latest(path) if step is None else step
    target = run_folder.require(path, step)
    try:
        content = manifest.check(target, ("params",))
    except manifest.DamagedError as err:
        raise _damaged(path, step, str(err)) from err
    wanted = arrays.named(models.shapes(run_folder.describe(path).model))
    found = content["arrays"]["params"]
    _compare(
        f"{path}: checkpoint {step}",
        "params",
        {name: [shape, "float32"] for name, (shape, _) in found.items()},
        {name: [shape, "float32"] for name, (shape, _) in arrays.describe(wanted).items()},
    )
    hosted = {
        p: np.broadcast_to(np.zeros([], jnp.dtype(found["/".join(p)][1])), v.shape)
        for p, v in wanted.items()
    }
    leaves = _read(path, step, target / "params", hosted)
    return arrays.nested(
        {p: jax.device_put(v.astype(np.float32, copy=False)) for p, v in leaves.items()}
    )


def _compare(where: str, item: str, found: dict | None, wanted: dict):
    """Refuses arrays of other names, shapes or dtypes than are wanted."""
    if found is None:
        raise InputError(f"{where} has no {item}; it was written by another configuration")
    for name in sorted(found.keys() | wanted.keys()):
        there, here = (
            (f"{e[1]}{e[0]}" if e else "nothing") for e in (found.get(name), wanted.get(name))
        )
        if there != here:
            raise InputError(
                f"{where} holds {there} as {item}/{name}, where {here} is wanted; it is of another"
                " configuration"
            )


def _read(path, step: int, target: Path, like: dict) -> dict:
    """Arrays of one item through Orbax, by their paths."""
    if not like:
        return {}
    import orbax.checkpoint as ocp

    def one(leaf):
        if isinstance(leaf, (np.ndarray, np.generic)):
            return ocp.RestoreArgs(restore_type=np.ndarray)
        sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(
            _default_device()
        )
        return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype)

    placed = {p: one(leaf) for p, leaf in like.items()}
    try:
        with quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            tree = reader.restore(
                target.absolute(),
                args=ocp.args.PyTreeRestore(
                    item=arrays.nested(like), restore_args=arrays.nested(placed)
                ),
            )
    except Exception as err:
        if jax.process_count() > 1:  # the others may not see it, and would go on
            raise InputError(
                f"{path}: checkpoint {step} cannot be read on process {jax.process_index()}:"
                f" {_line(err)}"
            ) from err
        raise _damaged(path, step, _line(err)) from err
    return arrays.named(tree)


def _default_device():
    return jnp.zeros([]).device if jax.process_count() == 1 else jax.local_devices()[0]


def _damaged(path, step: int, reason: str) -> manifest.DamagedError:
    return manifest.DamagedError(f"{path}: checkpoint {step} is damaged: {reason}")


def _line(err: Exception) -> str:
    return re.sub(r"\s+", " ", str(err))[:300]
