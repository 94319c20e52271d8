"""What of a training step fits a device: which rematerialisation, and what else if none does."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from lmdyn.costs.devices import GIB, device_memory
from lmdyn.costs.training_use import REMATS, StepShape, recomputed_flops, step_memory
from lmdyn.data import Batch
from lmdyn.errors import InputError
from lmdyn.models import ModelConfig
from lmdyn.params import Adapters, Partition
from lmdyn.training import sharding
from lmdyn.training.config import TrainConfig
from lmdyn.training.train_step import TrainState
from lmdyn.types import Tree, present

USABLE = 0.92
"""The share of a device's memory that a program can have."""


class Room(NamedTuple):
    """Where a step has to fit.

    Attributes:
      memory: bytes of one device.
      name: of the device, for messages.
      offload: whether its host has memory of its own.

    >>> Room(80 * GIB, "an H100").offload
    True
    """

    memory: int
    name: str
    offload: bool = True


def room_here() -> Room:
    """The device that JAX runs on.

    >>> room_here().memory > 2**20
    True
    """
    device = jax.local_devices()[0]
    here = device.platform != "cpu"
    return Room(device_memory(), f"this {device.device_kind}" if here else "this machine", here)


def step_shape(
    config: TrainConfig,
    architecture: ModelConfig,
    part: Partition | Adapters | None,
    state: TrainState,
) -> StepShape:
    """What one device does in a step of a run.

    Args:
      config: the run.
      architecture: of the model.
      part: what is trained; None for everything.
      state: its shapes, with shardings.

    >>> from lmdyn.training import Data, Source
    >>> from lmdyn.training.run_shapes import shapes_of
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)  # is not read
    >>> config = TrainConfig(out="run", data=texts, steps=2, model=tiny)
    >>> job = shapes_of(config, jax.sharding.AbstractMesh((2, 1, 1), sharding.AXES))
    >>> step_shape(config, tiny, None, job.state).tokens
    64
    """
    mesh = state.step.sharding.mesh
    shards = math.prod(mesh.shape[axis] for axis in sharding.ROW_AXES)
    rows = config.data.batch // config.accumulate // shards
    return StepShape(
        config=architecture,
        layers=architecture.depth - (part.lowest if part else 0),
        tokens=rows * config.data.length,
        length=config.data.length,
        parts=config.accumulate,
        bytes=4 if config.compute.resolved().dtype == "float32" else 2,
        mesh=(mesh.shape["data"], mesh.shape["fsdp"], mesh.shape["tensor"]),
        parameters=shard_bytes((state.params, state.frozen)),
        trained=shard_bytes(state.params),
        optimizer=shard_bytes(state.optimizer),
    )


def shard_bytes(tree: Tree) -> int:
    """Bytes on one device of shapes with shardings.

    >>> shard_bytes({"a": jax.numpy.ones([5, 3])})
    60
    """
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def remats(setting: str, shape: StepShape, room: Room) -> tuple[str, ...]:
    """The ways to rematerialise that are worth compiling, the fastest that should fit first.

    Args:
      setting: `auto`, or the one that is asked for.
      shape: of the step.
      room: where it has to fit.

    Raises:
      InputError: none fits; the message says what would.

    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> shape = StepShape(config, 2, 64, 8, 1, 4, (1, 1, 1), 100, 100, 200)
    >>> remats("auto", shape, Room(60_000, "a device"))
    ('dots', 'full', 'offload')
    """
    order = (setting,) if setting != "auto" else ways(shape, room)
    fitting = [remat for remat in order if _fits(shape, remat, room)]
    if fitting:
        return order[order.index(fitting[0]) :]
    # What is needed beside what is held and kept is known least: a compiler may need less.
    found = step_memory(shape, order[-1])
    if found.total - found.working <= room.memory:
        return order[-1:]
    raise InputError(does_not_fit(shape, order[-1], room, found.total))


def ways(shape: StepShape, room: Room) -> tuple[str, ...]:
    """The ways to rematerialise, by how much is computed again, each with less memory.

    Args:
      shape: of the step.
      room: where it has to fit.

    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> shape = StepShape(config, 2, 64, 8, 1, 4, (1, 1, 1), 100, 100, 200)
    >>> ways(shape, Room(60_000, "a device", offload=False))
    ('none', 'dots', 'full')
    """
    found: list[str] = []
    for remat in sorted(REMATS, key=lambda remat: recomputed_flops(shape, remat)):
        if remat == "offload" and not room.offload:
            continue
        size = step_memory(shape, remat).total
        if not found or size < step_memory(shape, found[-1]).total:
            found.append(remat)
    return tuple(found)


def _fits(shape: StepShape, remat: str, room: Room) -> bool:
    return step_memory(shape, remat).total <= USABLE * room.memory


def first_that_fits(
    remats: Sequence[str], shape: StepShape, room: Room, taken: Callable[[str], int]
) -> str:
    """The first way to rematerialise whose compiled step fits.

    Args:
      remats: from `remats`.
      shape: of the step.
      room: where it has to fit.
      taken: compiles a step, and returns its bytes.

    Raises:
      InputError: none fits; the message says what would.

    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> shape = StepShape(config, 2, 64, 8, 1, 4, (1, 1, 1), 100, 100, 200)
    >>> sizes = {"none": 40_000, "mlp": 20_000}
    >>> first_that_fits(("none", "mlp"), shape, Room(30_000, "a device"), sizes.__getitem__)
    'mlp'
    """
    needed = 0
    for remat in remats:
        needed = taken(remat)
        if needed <= room.memory:
            return remat
    # The formula was too low: its remedies are too, by as much.
    short = needed / step_memory(shape, remats[-1]).total
    smaller = room._replace(memory=int(room.memory / max(short, 1.0)))
    text = does_not_fit(shape, remats[-1], room, needed).partition("; use ")[0]
    raise InputError(f"{text}; use {remedy(shape, remats[-1], smaller)}")


def program_bytes(lowered: Any, held: int) -> tuple[int, Any]:
    """What a step takes of a device, by its compiler, and the compiled program.

    Args:
      lowered: the step; its state is donated.
      held: bytes of the state.

    Returns:
      Bytes; and the program, None where a TPU's compiler refused it for its size.

    >>> lowered = jax.jit(lambda x: x + 1, donate_argnums=0).lower(jax.numpy.ones(8))
    >>> program_bytes(lowered, 32)[0]
    32
    """
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as err:
        if (temporary := overflow(str(err))) is None:
            raise
        return held + temporary, None
    found = present(compiled.memory_analysis())
    # Outputs take the place of donated arguments, but for a few numbers.
    more = found.output_size_in_bytes - found.alias_size_in_bytes
    return int(held + found.temp_size_in_bytes + more), compiled


def overflow(said: str) -> int | None:
    """The temporary bytes of a program that a TPU's compiler refused for its size.

    Args:
      said: its message.

    >>> overflow(
    ...     "Ran out of memory on HBM, the total memory required for HLO temporaries (37.5G)"
    ... )
    40265318400
    """
    if not (found := re.search(r"temporaries \(([\d.]+)([KMGT])\)", said)):
        return None
    return round(float(found[1]) * 1024 ** ("KMGT".index(found[2]) + 1))


def batch_shapes(config: TrainConfig, place: jax.sharding.Sharding) -> Batch:
    """A run's batch, as shapes.

    Args:
      config: the run.
      place: where its rows lie.

    >>> from lmdyn.training import Data, Source
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)  # is not read
    >>> config = TrainConfig(out="run", data=texts, steps=2, start="dir:model")
    >>> here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    >>> batch_shapes(config, here).inputs.shape
    (8, 16)
    """
    array = lambda dtype: jax.ShapeDtypeStruct(
        (config.data.batch, config.data.length), dtype, sharding=place
    )
    documents = None if config.data.attend_across else array(np.int32)
    return Batch(*cast(Any, (array(np.int32), array(np.int32), array(bool), documents)))


def does_not_fit(shape: StepShape, remat: str, room: Room, needed: float) -> str:
    """One line: what a step needs, what there is, and what would fit.

    Args:
      shape: of the step.
      remat: what it needs the least memory with.
      room: where it has to fit.
      needed: bytes, by formula or as compiled.

    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> shape = StepShape(config, 2, 64, 8, 1, 4, (1, 1, 1), 100, 100, 200)
    >>> print(does_not_fit(shape, "none", Room(30 * 2**10, "a device"), 50 * 2**10))
    a step of 64 tokens on a device needs 4.77e-05 GiB with compute.remat=none, and a device has
    2.86e-05; use --compute.remat full
    """
    tokens = shape.tokens * shape.parts
    text = (
        f"a step of {tokens:,} tokens on a device needs {needed / GIB:.3g} GiB with"
        f" compute.remat={remat}, and {room.name} has {room.memory / GIB:.3g}"
    )
    return f"{text}; use {remedy(shape, remat, room)}"


def _less(shape: StepShape, remat: str, than: str) -> bool:
    return step_memory(shape, remat).total < step_memory(shape, than).total


def remedy(shape: StepShape, remat: str, room: Room) -> str:
    """What would fit: more rematerialisation, more parts of a batch, or more devices.

    Args:
      shape: of the step.
      remat: what does not fit.
      room: where it has to fit.

    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> shape = StepShape(config, 2, 64, 8, 1, 4, (1, 1, 1), 100, 100, 200)
    >>> [remedy(shape, "none", Room(size, "a device")) for size in (30_000, 8_000)]
    ['--compute.remat full', '--compute.remat offload --accumulate 4']
    """
    more = [name for name in ways(shape, room) if _less(shape, name, remat)]
    for name in more:
        if _fits(shape, name, room):
            return f"--compute.remat {name}"
    rows, least = shape.tokens // shape.length, (more or [remat])[-1]
    for parts in (n for n in range(2, rows + 1) if rows % n == 0):
        cut = dataclasses.replace(shape, tokens=shape.tokens // parts, parts=shape.parts * parts)
        if _fits(cut, least, room):
            return f"--compute.remat {least} --accumulate {cut.parts}"
    data, fsdp, tensor = shape.mesh
    held = step_memory(shape, least).held + shape.trained
    wide = fsdp * 2 ** math.ceil(math.log2(max(2.0, held / (USABLE * room.memory / 2))))
    return f"more devices, such as --mesh {data},{wide},{tensor}, or a smaller model"
