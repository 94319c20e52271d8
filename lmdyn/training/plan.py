"""What a training step will need on a mesh that is not there.

The step is lowered and compiled for as many virtual CPU devices as the mesh has, from shapes alone:
no parameter is ever allocated. What that tells, and what it does not:

- parameters, optimizer state, gradients, and the layer inputs that rematerialisation keeps: exact;
- operations and what devices exchange: counted in the compiled program, loops multiplied out. A CPU
  program adds gradients on every device of `fsdp` and then takes its part; accelerators scatter
  while they add, which moves half as much. It also exchanges some 16-bit values as 32-bit ones. So
  the bytes are at most those;
- the rest of the memory at the peak: an upper estimate. A CPU keeps many 16-bit values as 32-bit
  ones and fuses less, and an accelerator's own attention kernel needs less than the one for CPUs.
  `least` leaves this part out, and the truth lies between.
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
from lmdyn.training.config import TrainConfig
from lmdyn.types import present

GIB = 2**30
DEVICES = (
    (16, "TPU v5e"),
    (24, "L4"),
    (32, "TPU v6e"),
    (40, "A100"),
    (80, "H100"),
    (95, "TPU v5p"),
    (141, "H200"),
)
"""GiB, and a device that has them."""
USABLE = 0.92
"""The share of a device's memory that a program can have."""
UTILISATION = 0.4
"""Of the peak: what a well-tuned run reaches."""


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """What `plan` found. Bytes are those of the fullest device.

    Attributes:
      mesh: devices along data, fsdp and tensor.
      total, trained: how many parameters there are, and are trained.
      rows, length, accumulate, steps, dtype, remat: of the config; a dtype of `auto` is taken to be
        bfloat16.
      parameters, optimizer: bytes of both.
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
        return math.prod(self.mesh)

    @property
    def least(self) -> int:
        """Bytes per device that no compiler can do without."""
        return self.parameters + self.optimizer + self.gradients + self.kept

    @property
    def most(self) -> int:
        """Bytes per device as compiled for a CPU."""
        return max(self.parameters + self.optimizer + self.temporary, self.least)


def plan(config: TrainConfig) -> StepPlan:
    """Compiles a run's training step for its mesh, in a process of its own with that many virtual
    devices.

    Args:
      config: the run; its texts are not read, nor is a model of `start` allocated on the mesh (it
        is read for its shape).

    Raises:
      InputError: the mesh is not said in numbers, the batch does not divide by it, or the config is
        wrong in other ways.
    """
    shape = tuple(config.mesh)
    if min(shape) < 1:
        raise InputError(
            f"mesh {','.join(map(str, shape))}: a plan needs three numbers >= 1, such as --mesh"
            " 4,8,2"
        )
    flags = " ".join([
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_force_host_platform_device_count={math.prod(shape)}",
        # The program is never run: no time is spent on machine code. Memory counts, so operations
        # are put in the order that saves it, and what a CPU would compute once before a loop, and
        # keep, stays in the loop.
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        "--xla_disable_hlo_passes=while-loop-expensive-invariant-code-motion,while-loop-invariant-code-motion",
    ])  # fmt: skip
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip(), "PYTHONPATH": paths}
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "config"), Path(folder, "plan")
        given.write_bytes(pickle.dumps(config))
        child = [
            sys.executable,
            "-c",
            "from lmdyn.training import plan; plan._child()",
            str(given),
            str(found),
        ]
        ended = subprocess.run(
            child,
            env=env,
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
      InputError: as for `plan`, or there are too few devices.
    """
    import jax

    from lmdyn import checkpoints
    from lmdyn.costs import program_costs, step_flops
    from lmdyn.models import LanguageModel, shapes
    from lmdyn.training import sharding as meshes
    from lmdyn.training import train_step as step
    from lmdyn.training.optimizer import make_optimizer
    from lmdyn.training.prepare import trained_part

    mesh = meshes.make_mesh(config.mesh)
    meshes.check_batch(config.data.batch, mesh, config.accumulate)
    architecture = (
        checkpoints.load(present(config.start)).model.config
        if config.model is None
        else config.model
    )
    form = shapes(architecture)
    part = trained_part(config, form)
    optimizer = make_optimizer(config.optimizer, config.steps)
    dtype = "bfloat16" if config.compute.dtype == "auto" else config.compute.dtype
    compute = dataclasses.replace(config.compute, dtype=dtype)
    model = meshes.spread(LanguageModel(architecture, compute), mesh)

    state = jax.eval_shape(lambda params: step.start(params, optimizer, part), form)
    places = meshes.state_shardings(state, state.params, mesh, architecture)
    if part is not None:
        places = places._replace(frozen=meshes.param_shardings(state.frozen, mesh, architecture))
    state = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state,
        places,
    )
    run = jax.jit(
        step.make_step(model, optimizer, part=part, accumulate=config.accumulate),
        donate_argnums=0,
        out_shardings=(places, None),
    )
    compiled = run.lower(state, _batch(config, meshes.batch_sharding(mesh))).compile()

    text = present(compiled.as_text())
    products, exchanged = program_costs(text, tuple(mesh.devices.shape), meshes.AXES)
    shards = math.prod(mesh.shape[axis] for axis in meshes.ROWS)
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
        whole=tuple(meshes.uneven(form, mesh, architecture)),
    )


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


def describe(found: StepPlan) -> str:
    """A plan as text, for a person."""
    gib = lambda n: f"{n / GIB:10.2f}"
    at_once = found.rows // found.accumulate // (found.mesh[0] * found.mesh[1])
    trained = "" if found.trained == found.total else f", {found.trained:,} of them trained"
    lines = [
        f"model    {found.total:,} parameters{trained}",
        (
            f"mesh     data {found.mesh[0]} x fsdp {found.mesh[1]} x tensor {found.mesh[2]} ="
            f" {found.devices} devices"
        ),
        (
            f"batch    {found.rows} windows of {found.length} = {found.rows * found.length:,}"
            f" tokens a step; {at_once} windows at a time on a device"
        ),
        f"compute  {found.dtype}, remat {found.remat}",
        "",
        "memory of one device              GiB",
        f"  parameters              {gib(found.parameters)}",
        f"  optimizer state         {gib(found.optimizer)}",
        f"  gradients               {gib(found.gradients)}",
        f"  inputs of layers        {gib(found.kept)}   kept for the backward pass",
        f"  at least                {gib(found.least)}",
        (
            f"  at most                 {gib(found.most)}   as compiled for a CPU, which needs more"
            " than an accelerator"
        ),
        "",
        (
            f"operations of one step    {found.flops:.3e}   by formula;"
            f" {found.flops / found.devices:.3e} on a device"
        ),
        (
            f"                          {found.products:.3e}   as compiled, with what is computed"
            " twice"
        ),
    ]
    if found.exchanged:
        lines += ["", "received by one device in a step, at most"]
        for (kind, axes), size in sorted(found.exchanged.items(), key=lambda item: -item[1]):
            lines.append(f"  {kind:<18} {axes:<14} {_size(size)}")
    lines += ["", f"device             memory   fits      a step*   {found.steps:,} steps*"]
    lines += [_device(found, gibs, name) for gibs, name in DEVICES]
    lines.append(f"* at {UTILISATION:.0%} of the device's peak in bfloat16")
    if found.whole:
        lines += ["", "not divided"] + [f"  {note}" for note in found.whole]
    return "\n".join(lines)


def _device(found: StepPlan, gibs: int, name: str) -> str:
    from lmdyn.costs.devices import PEAKS

    room = USABLE * gibs * GIB
    fits = "yes" if found.most <= room else "no" if found.least > room else "perhaps"
    seconds = found.flops / found.devices / (UTILISATION * PEAKS[name])
    return (
        f"  {name:<12} {gibs:>6} GiB   {fits:<7} {_time(seconds):>9}  "
        f" {_time(seconds * found.steps):>9}"
    )


def _size(count: float) -> str:
    unit = next((u for u in ((GIB, "GiB"), (2**20, "MiB")) if count >= u[0]), (2**10, "KiB"))
    return f"{count / unit[0]:8.1f} {unit[1]}"


def _time(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds * 1000:.0f} ms"
