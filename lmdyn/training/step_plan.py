"""What a training step will need on a mesh that is not there.

The step is lowered and compiled for as many virtual CPU devices as the mesh has, from shapes alone:
no parameter is ever allocated. What that says, and what it does not:

- parameters, optimizer state, gradients, and the layer inputs that rematerialisation keeps: exact;
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
from typing import Any, cast

from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig
from lmdyn.training.config import TrainConfig
from lmdyn.types import present


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
      remat: of the config.
      parameters: bytes.
      optimizer: bytes of its state.
      gradients: bytes, by formula: as many as the trained parameters.
      kept: bytes of the layer inputs that the backward pass starts from, by formula.
      temporary: bytes that the compiled step takes beside its arguments, at its peak; gradients and
        `kept` are among them.
      flops: of one step on all devices, by formula; rematerialisation is not counted.
      products: the same in the compiled program, rematerialisation counted.
      exchanged: bytes that one device receives in a step, by (kind, axes of the mesh).
      whole: what a rule would divide, and stays whole (`lmdyn.training.sharding.uneven`).
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

    @property
    def devices(self) -> int:
        """How many devices the mesh has."""
        return math.prod(self.mesh)

    @property
    def least(self) -> int:
        """Bytes per device that no compiler can do without."""
        return self.parameters + self.optimizer + self.gradients + self.kept

    @property
    def most(self) -> int:
        """Bytes per device as compiled for a CPU."""
        return max(self.parameters + self.optimizer + self.temporary, self.least)


def plan_step(config: TrainConfig) -> StepPlan:
    """Compiles a run's training step for its mesh, ahead of time.

    In a process of its own, with as many virtual devices.

    Args:
      config: the run; its texts are not read, nor is a model of `start` allocated on the mesh (it
        is read for its shape).

    Raises:
      InputError: the mesh is not said in numbers, the batch does not divide by it, or the config is
        wrong in other ways.

    >>> from lmdyn.training import Data, Source, TrainConfig
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)
    >>> plan_step(TrainConfig(out="x", data=texts, steps=2, start="dir:model", mesh=(-1, 1, 1)))
    Traceback (most recent call last):
    lmdyn.errors.InputError: mesh -1,1,1: a plan needs three numbers >= 1, such as --mesh 4,8,2
    """
    shape = tuple(config.mesh)
    if min(shape) < 1:
        raise InputError(
            f"mesh {','.join(map(str, shape))}: a plan needs three numbers >= 1, such as --mesh"
            " 4,8,2"
        )
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "config"), Path(folder, "plan")
        given.write_bytes(pickle.dumps(config))
        program = "from lmdyn.training import step_plan; step_plan._child()"
        ended = subprocess.run(
            [sys.executable, "-c", program, str(given), str(found)],
            env=_environment(math.prod(shape)),
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


def _environment(devices: int) -> dict[str, str]:
    """The child's environment: its virtual devices, a compiler that saves time and memory."""
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
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    flags = " ".join(flags).strip()
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": paths}


def _child() -> None:
    config = pickle.loads(Path(sys.argv[1]).read_bytes())
    try:
        result = compile_step(config)
    except InputError as err:
        result = err
    Path(sys.argv[2]).write_bytes(pickle.dumps(result))


def compile_step(config: TrainConfig) -> StepPlan:
    """The plan, from as many devices of this process as the mesh has; nothing is allocated on them.

    Raises:
      InputError: as for `plan_step`, or there are too few devices.

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
    import jax

    from lmdyn.costs import program_costs, step_flops
    from lmdyn.models import LanguageModel, shapes
    from lmdyn.training import prepare, sharding, train_step
    from lmdyn.training.optimizer import make_optimizer

    # What the run computes, as shapes.
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config.data.batch, mesh, config.accumulate)
    architecture = _architecture(config)
    form = shapes(architecture)
    part = prepare.trained_part(config, form)
    optimizer = make_optimizer(config.optimizer, config.steps)
    dtype = "bfloat16" if config.compute.dtype == "auto" else config.compute.dtype
    compute = dataclasses.replace(config.compute, dtype=dtype)
    model = sharding.spread(LanguageModel(architecture, compute), mesh)
    state = jax.eval_shape(lambda params: train_step.start(params, optimizer, part), form)
    state = prepare.with_shardings(state, mesh, architecture)

    # The step, compiled for the mesh and never run.
    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    step = train_step.make_step(model, optimizer, part=part, accumulate=config.accumulate)
    run = jax.jit(step, donate_argnums=0, out_shardings=(places, None))
    compiled = run.lower(state, _batch(config, sharding.batch_sharding(mesh))).compile()
    text = present(compiled.as_text())
    products, exchanged = program_costs(text, tuple(mesh.devices.shape), sharding.AXES)

    # Layer inputs that rematerialisation keeps, of the tokens that a device works on at a time.
    shards = math.prod(mesh.shape[axis] for axis in sharding.ROWS)
    tokens = config.data.batch * config.data.length // config.accumulate // shards
    depth = architecture.depth - (part.lowest if part else 0)
    numbers = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    return StepPlan(
        mesh=tuple(mesh.devices.shape),
        total=numbers(form),
        trained=numbers(state.params),
        rows=config.data.batch,
        length=config.data.length,
        accumulate=config.accumulate,
        steps=config.steps,
        dtype=dtype,
        remat=compute.remat,
        parameters=_bytes((state.params, state.frozen)),
        optimizer=_bytes(state.optimizer),
        gradients=_bytes(state.params),
        kept=depth * tokens * architecture.width * (2 if dtype == "bfloat16" else 4),
        temporary=int(present(compiled.memory_analysis()).temp_size_in_bytes),
        flops=step_flops(architecture, config.data.batch, config.data.length, part),
        products=products * mesh.size,
        exchanged=exchanged,
        whole=tuple(sharding.uneven(form, mesh, architecture)),
    )


def _architecture(config: TrainConfig) -> ModelConfig:
    """The model's architecture; a model of `start` is read for its shape."""
    from lmdyn import checkpoints

    if config.model is not None:
        return config.model
    return checkpoints.load(present(config.start)).model.config


def _batch(config: TrainConfig, place):
    import jax
    import numpy as np

    from lmdyn.data import Batch

    array = lambda dtype: jax.ShapeDtypeStruct(
        (config.data.batch, config.data.length), dtype, sharding=place
    )
    documents = None if config.data.attend_across else array(np.int32)
    return Batch(*cast(Any, (array(np.int32), array(np.int32), array(bool), documents)))


def _bytes(tree) -> int:
    """Bytes per device of shapes with shardings."""
    import jax

    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
