"""Where a run begins: at its first step, or at the newest checkpoint that is whole."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn.checkpoints import runs
from lmdyn.checkpoints.runs.processes import shared
from lmdyn.errors import InputError
from lmdyn.params import Adapters
from lmdyn.training import sharding, train_step
from lmdyn.training.config import TrainConfig, differences, to_json
from lmdyn.training.prepare import Prepared
from lmdyn.types import Params, Say


def known_run(folder: Path, config: TrainConfig) -> runs.RunInfo | None:
    """The run in a folder; None if there is none yet.

    Args:
      folder: of the run.
      config: of the command; it must be the run's own, except for `MAY_CHANGE`.

    Raises:
      InputError: the folder holds a run with another config.

    >>> from lmdyn.training import Data, Source
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)
    >>> config = TrainConfig(out="no/such/run", data=texts, steps=2, start="dir:model")
    >>> known_run(Path("no/such/run"), config) is None
    True
    """
    # One answer for all hosts, whichever is late.
    if not shared(lambda: (folder / "run.json").exists()):
        return None
    known = runs.describe(folder)
    if changed := differences(known.config, to_json(config)):
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise InputError(
            f"{folder} holds a run with another config: {changed[0]}{more}; choose another --out,"
            " or the config it was made with"
        )
    return known


def begin(
    prepared: Prepared, checkpoints: runs.Checkpoints, say: Say
) -> tuple[train_step.TrainState, dict]:
    """The state and position that a run begins with: of its newest whole checkpoint, or the first.

    Args:
      prepared: the run.
      checkpoints: of its folder.
      say: called with a line for each checkpoint that is damaged.

    Returns:
      The state on the devices; `step`, `tokens` so far, the position in the `data` (None at the
      start of it), and whether this is `saved`.

    >>> import tempfile
    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> from lmdyn.models import ModelConfig
    >>> from lmdyn.training import Data, Source
    >>> from lmdyn.training.prepare import prepare
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "text.txt").write_text("a text of a few words, over and over; " * 20)
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> source = Source(f"text:{folder}/text.txt")
    >>> cache = str(folder / "tokens")
    >>> texts = Data((source,), length=16, batch=8, tokenizer="bytes", cache=cache)
    >>> config = TrainConfig(out=str(folder / "run"), data=texts, steps=2, model=tiny)
    >>> runs.create(config.out, model=tiny, tokenizer=byte_tokenizer(), config={}, data={})
    >>> with runs.Checkpoints(config.out, runs.Retention()) as checkpoints:
    ...     begin(prepare(config), checkpoints, say=print)[1]
    {'step': 0, 'tokens': 0, 'data': None, 'saved': False}
    """
    part, state = prepared.part, prepared.state
    items = {"params": _whole(prepared), "optimizer": state.optimizer}
    if isinstance(part, Adapters):
        items["adapters"] = state.params
    found = checkpoints.resume(items, lambda message: say(f"warning: {message}"))
    if found is None:
        return prepared.first(), {"step": 0, "tokens": 0, "data": None, "saved": False}
    step, items, position = found
    where = jax.tree.map(lambda leaf: leaf.sharding, state)

    # A jitted copy, also because what a checkpoint library returns need not be memory that the step
    # may take over.
    if isinstance(part, Adapters):
        copy = lambda tree: jax.tree.map(jnp.copy, tree)
        adapters = jax.jit(copy, out_shardings=where.params)(items["adapters"])
        optimizer = jax.jit(copy, out_shardings=where.optimizer)(items["optimizer"])
        count = jax.device_put(np.int32(step), where.step)
        # The frozen matrices are those of the model that the run started from, which is read again.
        frozen = prepared.first().frozen
        return train_step.TrainState(count, adapters, frozen, optimizer), position

    def assemble(params, optimizer):
        chosen, rest = (params, None) if part is None else part.split(params)
        return train_step.TrainState(np.int32(step), chosen, rest, optimizer)

    return jax.jit(assemble, out_shardings=where)(items["params"], items["optimizer"]), position


def _whole(prepared: Prepared) -> Params:
    """Shapes and shardings of all parameters, as a checkpoint holds them."""
    if prepared.part is None:
        return prepared.state.params
    whole = functools.partial(train_step.whole, part=prepared.part)
    form = jax.eval_shape(whole, prepared.state)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        form,
        sharding.param_shardings(form, prepared.mesh, prepared.model.config),
    )
