"""A step's plan as text: memory, operations, exchange, and on which devices it fits."""

from lmdyn.costs.devices import PEAKS
from lmdyn.training.step_plan import StepPlan

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


def describe(found: StepPlan) -> str:
    """A plan as text, for people.

    >>> from lmdyn.models import ModelConfig
    >>> from lmdyn.training import Data, Source, TrainConfig
    >>> from lmdyn.training.step_plan import compile_step
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)  # is not read
    >>> config = TrainConfig(out="run", data=texts, steps=2, model=tiny, mesh=(1, 1, 1))
    >>> plan = compile_step(config)
    >>> print(describe(plan).splitlines()[1])
    mesh     data 1 x fsdp 1 x tensor 1 = 1 devices
    """
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
