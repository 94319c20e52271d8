"""What a training step will need on devices that are not here.

The step is lowered and compiled from shapes alone: no parameter is ever allocated. For a TPU, by
its own compiler where libtpu is installed: memory is then what that chip will take. For anything
else, for as many virtual CPU devices as the mesh has. What that says, and what it does not:

- parameters, optimizer state, gradients, and what rematerialisation keeps: exact;
- operations and what devices exchange: counted in the compiled program, loops multiplied out. A CPU
  program adds gradients on every device of `fsdp` and then takes its part; accelerators scatter
  while they add, which moves half as much. It also exchanges some 16-bit values as 32-bit ones. So
  the bytes are at most those;
- the rest of the memory at the peak: an upper estimate. A CPU keeps many 16-bit values as 32-bit
  ones and fuses less, and an accelerator's own attention kernel needs less than the one for CPUs.
  `least` leaves this part out, and the truth is between.
"""

import dataclasses
import math
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lmdyn.errors import InputError
from lmdyn.training.config import TrainConfig
from lmdyn.types import present

if TYPE_CHECKING:
    from lmdyn.costs.training_use import StepTime
    from lmdyn.training.run_shapes import RunShapes


@dataclasses.dataclass(frozen=True)
class Target:
    """The devices that a step is planned for.

    Attributes:
      chip: a name of `lmdyn.costs.CHIPS`; None for no device in particular.
      topology: of a TPU, such as `4x8`; None takes the smallest slice with the mesh's devices.

    >>> Target("v5e", "4x8").topology
    '4x8'
    """

    chip: str | None = None
    topology: str | None = None


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """What a training step takes on a mesh. Made by `plan_step`.

    Bytes are those of the fullest device.

    Attributes:
      mesh: devices along data, fsdp and tensor.
      total: parameters of the model.
      trained: parameters that are trained.
      rows: B, of the config.
      length: T, of the config.
      accumulate: parts that a batch is run in.
      steps: of the run.
      dtype: of activations; `auto` is taken to be bfloat16.
      remat: of the config; for `auto`, the first that fits the chip.
      parameters: bytes.
      optimizer: bytes of its state.
      gradients: bytes, by formula: as many as the trained parameters.
      kept: bytes of what the forward pass keeps for the backward pass, by formula.
      temporary: bytes that the compiled step takes beside its arguments, at its peak; gradients and
        `kept` are among them.
      flops: of one step on all devices, by formula; rematerialisation is not counted.
      products: the same in the compiled program, rematerialisation counted; 0 where the compiler
        is a TPU's, whose programs do not tell.
      exchanged: bytes that one device receives in a step, by (kind, axes of the mesh).
      whole: what a rule would divide, and stays whole (`lmdyn.training.sharding.uneven`).
      chip: that it is planned for, a name of `lmdyn.costs.CHIPS`, or None.
      topology: of the TPU whose compiler said so; then memory is exact. None for a CPU's.
      time: of one step on the chip at least; None without a chip.
    """

    mesh: tuple[int, int, int]
    total: int
    trained: int
    rows: int
    length: int
    accumulate: int
    steps: int
    dtype: str
    remat: str
    parameters: int
    optimizer: int
    gradients: int
    kept: int
    temporary: int
    flops: float
    products: float
    exchanged: dict[tuple[str, str], float]
    whole: tuple[str, ...]
    chip: str | None = None
    topology: str | None = None
    time: "StepTime | None" = None

    @property
    def devices(self) -> int:
        """How many devices the mesh has."""
        return math.prod(self.mesh)

    @property
    def least(self) -> int:
        """Bytes per device that no compiler can do without; of a TPU's, those that it takes."""
        if self.topology is not None:
            return self.parameters + self.optimizer + self.temporary
        return self.parameters + self.optimizer + self.gradients + self.kept

    @property
    def most(self) -> int:
        """Bytes per device as compiled for a CPU."""
        return max(self.parameters + self.optimizer + self.temporary, self.least)


def plan_step(config: TrainConfig, target: Target = Target()) -> StepPlan:
    """Compiles a run's training step for its mesh, ahead of time.

    In a process of its own, with as many devices.

    Args:
      config: the run; its texts are not read, nor is a model of `start` allocated on the mesh (it
        is read for its shape). A -1 in its mesh is what a topology leaves.
      target: the devices.

    Raises:
      InputError: the mesh is not said in numbers, the batch does not divide by it, it is not what
        the topology has, or the config is wrong in other ways.

    >>> from lmdyn.training import Data, Source, TrainConfig
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)
    >>> plan_step(TrainConfig(out="x", data=texts, steps=2, start="dir:model", mesh=(-1, 1, 1)))
    Traceback (most recent call last):
    lmdyn.errors.InputError: mesh -1,1,1: a plan needs three numbers >= 1, such as --mesh 4,8,2
    """
    config, target = resolve(config, target)
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "config"), Path(folder, "plan")
        given.write_bytes(pickle.dumps((config, target)))
        program = "from lmdyn.training import step_plan; step_plan._child()"
        ended = subprocess.run(
            [sys.executable, "-c", program, str(given), str(found)],
            env=_environment(math.prod(config.mesh), target),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if ended.returncode:
            lines = ended.stderr.strip().splitlines()
            raise InputError(
                f"the step could not be compiled for this mesh (exit code {ended.returncode}):"
                f" {lines[-1] if lines else ''}"
            )
        result = pickle.loads(found.read_bytes())
    if isinstance(result, InputError):
        raise result
    return result


def resolve(config: TrainConfig, target: Target) -> tuple[TrainConfig, Target]:
    """The config with its mesh in numbers, and the target with a topology if its compiler is here.

    Args:
      config: the run.
      target: the devices.

    Raises:
      InputError: the mesh is not said in numbers, or is not what the topology has.

    >>> from lmdyn.training import Data, Source, TrainConfig
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=32)
    >>> config = TrainConfig(out="x", data=texts, steps=2, start="dir:model", mesh=(-1, 8, 1))
    >>> resolve(config, Target("v5e", "4x8"))[0].mesh
    (4, 8, 1)
    """
    from lmdyn.costs import topologies

    tpu, shape = target.chip in topologies.TPUS, tuple(config.mesh)
    if target.topology is not None and not tpu:
        raise InputError(
            f"--topology {target.topology} is of TPUs; use it with --device"
            f" {', '.join(topologies.TPUS)}, or say --mesh 4,8,2 alone"
        )
    if target.topology is not None:
        count = math.prod(topologies.parse_topology(present(target.chip), target.topology))
        known = math.prod(n for n in shape if n > 0)
        if shape.count(-1) == 1 and count % known == 0:
            shape = tuple(count // known if n == -1 else n for n in shape)
        if math.prod(shape) != count or min(shape) < 1:
            raise InputError(
                f"mesh {','.join(map(str, config.mesh))} is not the {count} chips of topology"
                f" {target.topology}; use three numbers that multiply to {count}, of which one may"
                " be -1"
            )
    if min(shape) < 1:
        raise InputError(
            f"mesh {','.join(map(str, shape))}: a plan needs three numbers >= 1, such as --mesh"
            " 4,8,2"
        )
    config = dataclasses.replace(config, mesh=shape)
    if not tpu or not topologies.has_libtpu():
        return config, dataclasses.replace(target, topology=None)
    chip = present(target.chip)
    named = target.topology or topologies.smallest_topology(chip, math.prod(shape))
    if (count := math.prod(topologies.parse_topology(chip, named))) != math.prod(shape):
        raise InputError(
            f"mesh {','.join(map(str, shape))} has {math.prod(shape)} devices, and no slice of"
            f" {chip} has as many; the next has {count} ({named})"
        )
    return config, dataclasses.replace(target, topology=named)


def _environment(devices: int, target: Target) -> dict[str, str]:
    """The child's environment: its devices, a compiler that saves time and memory."""
    from lmdyn.costs import topologies

    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    if target.topology is not None:
        return {**os.environ, **topologies.ENVIRONMENT, "PYTHONPATH": paths, "XLA_FLAGS": ""}
    flags = [
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_force_host_platform_device_count={devices}",
        # The program is never run: no time is spent on machine code.
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        # Memory counts, so operations are put in the order that saves it, and what a CPU would
        # compute once before a loop, and keep, stays in the loop.
        "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        "--xla_disable_hlo_passes=while-loop-expensive-invariant-code-motion"
        ",while-loop-invariant-code-motion",
    ]
    flags = " ".join(flags).strip()
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": paths}


def _child() -> None:
    config, target = pickle.loads(Path(sys.argv[1]).read_bytes())
    try:
        result = compile_step(config, target)
    except InputError as err:
        result = err
    Path(sys.argv[2]).write_bytes(pickle.dumps(result))


def compile_step(config: TrainConfig, target: Target = Target()) -> StepPlan:
    """The plan, from devices of this process, or of the target's topology; nothing is allocated.

    Raises:
      InputError: as for `plan_step`, or there are too few devices, or nothing fits the chip.

    >>> import jax
    >>> from lmdyn.models import ModelConfig
    >>> from lmdyn.training import Data, Source, TrainConfig
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)  # is not read
    >>> config = TrainConfig(out="run", data=texts, steps=2, model=tiny, mesh=(1, 1, 1))
    >>> plan = compile_step(config)
    >>> plan.devices, plan.parameters == 4 * plan.total  # float32
    (1, True)
    """
    from lmdyn.costs import CHIPS, roofline, step_flops, step_memory, topology_devices
    from lmdyn.training import fit, sharding
    from lmdyn.training.run_shapes import shapes_of

    devices = topology_devices(present(target.chip), target.topology) if target.topology else None
    mesh = sharding.make_mesh(config.mesh, devices)
    sharding.check_batch(config.data.batch, mesh, config.accumulate)
    job = shapes_of(config, mesh)
    shape = fit.step_shape(job.config, job.architecture, job.part, job.state)
    remat, temporary, text = _fitted(job, shape, target)

    chip = None if target.chip is None else CHIPS[target.chip]
    flops = step_flops(job.architecture, config.data.batch, config.data.length, job.part)
    time = None if chip is None else roofline(shape, remat, flops / mesh.size, chip)
    products, exchanged = (0.0, {}) if target.topology else _counted(text, mesh)
    return StepPlan(
        mesh=tuple(mesh.devices.shape),
        total=_numbers(job.form),
        trained=_numbers(job.state.params),
        rows=config.data.batch,
        length=config.data.length,
        accumulate=config.accumulate,
        steps=config.steps,
        dtype=job.config.compute.dtype,
        remat=remat,
        parameters=shape.parameters,
        optimizer=shape.optimizer,
        gradients=shape.trained,
        kept=step_memory(shape, remat).kept,
        temporary=temporary,
        flops=flops,
        products=products * mesh.size,
        exchanged=exchanged,
        whole=tuple(sharding.uneven(job.form, mesh, job.architecture)),
        chip=target.chip,
        topology=target.topology,
        time=time,
    )


def _fitted(job: "RunShapes", shape, target: Target) -> tuple[str, int, str]:
    """The rematerialisation, temporary bytes and text of the program that fits the target."""
    from lmdyn.costs import CHIPS
    from lmdyn.models.tiles import assume_memory
    from lmdyn.training import fit

    setting = job.config.compute.remat
    if target.chip is None:
        remat = "none" if setting == "auto" else setting
        return remat, *_compiled(job, remat)
    room = fit.Room(CHIPS[target.chip].gib * fit.GIB, f"a {target.chip}")
    order = fit.remats("auto", shape, room) if setting == "auto" else (setting,)
    with assume_memory(room.memory):
        for remat in order:
            temporary, text = _compiled(job, remat)
            if not target.topology or shape.parameters + shape.optimizer + temporary <= room.memory:
                break
    return remat, temporary, text


def _compiled(job: "RunShapes", remat: str) -> tuple[int, str]:
    """Temporary bytes and text of the step, compiled and never run."""
    import jax

    from lmdyn.models import LanguageModel
    from lmdyn.training import fit, sharding, train_step

    config, mesh = job.config, job.mesh
    compute = dataclasses.replace(config.compute, remat=cast(Any, remat))
    model = sharding.spread(LanguageModel(job.architecture, compute), mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, job.state)
    step = train_step.make_step(model, job.optimizer, part=job.part, accumulate=config.accumulate)
    run = jax.jit(step, donate_argnums=0, out_shardings=(places, None))
    held = fit.shard_bytes(job.state)
    lowered = run.lower(job.state, fit.batch_shapes(config, sharding.batch_sharding(mesh)))
    taken, compiled = fit.program_bytes(lowered, held)
    return taken - held, "" if compiled is None else present(compiled.as_text())


def _counted(text: str, mesh) -> tuple[float, dict[tuple[str, str], float]]:
    """FLOPs of products, and bytes received by (kind, axes), of a program compiled for a CPU."""
    from lmdyn.costs import program_costs
    from lmdyn.training import sharding

    return program_costs(text, tuple(mesh.devices.shape), sharding.AXES)


def _numbers(tree) -> int:
    import jax

    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
