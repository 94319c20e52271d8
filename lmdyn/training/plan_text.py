"""A step's plan as text: memory, operations, exchange, and on which devices it fits."""

from collections.abc import Sequence

from lmdyn.costs.devices import CHIPS
from lmdyn.training.fit import GIB, USABLE
from lmdyn.training.plan_search import Option
from lmdyn.training.step_plan import StepPlan

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
    at_once = found.rows // found.accumulate // (found.mesh[0] * found.mesh[1])
    trained = "" if found.trained == found.total else f", {found.trained:,} of them trained"
    on = f" ({found.chip}, {found.topology})" if found.topology else ""
    lines = [
        f"model    {found.total:,} parameters{trained}",
        (
            f"mesh     data {found.mesh[0]} x fsdp {found.mesh[1]} x tensor {found.mesh[2]} ="
            f" {found.devices} devices{on}"
        ),
        (
            f"batch    {found.rows} windows of {found.length} = {found.rows * found.length:,}"
            f" tokens a step; {at_once} windows at a time on a device"
        ),
        f"compute  {found.dtype}, remat {found.remat}",
        "",
        *_memory(found),
        "",
        (
            f"operations of one step    {found.flops:.3e}   by formula;"
            f" {found.flops / found.devices:.3e} on a device"
        ),
    ]
    if found.products:
        lines += [f"{'':26}{found.products:.3e}   as compiled, with what is computed twice"]
    if found.exchanged:
        lines += ["", "received by one device in a step, at most"]
        for (kind, axes), size in sorted(found.exchanged.items(), key=lambda item: -item[1]):
            lines.append(f"  {kind:<18} {axes:<14} {_size(size)}")
    lines += ["", f"device             memory   fits      a step*   {found.steps:,} steps*"]
    chips = CHIPS if found.chip is None else (found.chip,)
    lines += [_device(found, name) for name in sorted(chips, key=lambda name: CHIPS[name].gib)]
    lines.append(f"* at {UTILISATION:.0%} of the device's peak in bfloat16")
    if found.time is not None:
        lines.append(f"  {_time(found.time.seconds)} at least, by {found.time.bound} (roofline)")
    if found.whole:
        lines += ["", "not divided"] + [f"  {note}" for note in found.whole]
    return "\n".join(lines)


def _memory(found: StepPlan) -> list[str]:
    gib = lambda n: f"{n / GIB:10.2f}"
    lines = [
        "memory of one device              GiB",
        f"  parameters              {gib(found.parameters)}",
        f"  optimizer state         {gib(found.optimizer)}",
        f"  gradients               {gib(found.gradients)}",
        f"  kept for backward       {gib(found.kept)}   by formula",
    ]
    if found.topology:
        return [*lines, f"  in all                  {gib(found.most)}   as compiled for it"]
    return [
        *lines,
        f"  at least                {gib(found.least)}",
        f"  at most                 {gib(found.most)}   as compiled for a CPU, which needs more"
        " than an accelerator",
    ]


def describe_options(options: Sequence[Option], shown: int = 10) -> str:
    """What a search found to fit, fastest first, as text.

    Args:
      options: from `plan_search.search`.
      shown: how many of them are shown.

    >>> from lmdyn.costs.training_use import StepTime
    >>> option = Option((4, 1, 1), "dots", 2, GIB, StepTime(0.5, "memory", 0.9))
    >>> print(describe_options([option]).splitlines()[-1].strip())
    4,1,1        dots                2     1.00      500 ms   memory
    """
    lines = [
        f"{len(options)} settings fit by formula; the fastest, by roofline:",
        "  mesh         remat      accumulate      GiB      a step   bound by",
    ]
    for one in options[:shown]:
        mesh = ",".join(map(str, one.mesh))
        lines.append(
            f"  {mesh:<12} {one.remat:<10} {one.accumulate:>10} {one.memory / GIB:>8.2f}"
            f" {_time(one.time.seconds):>11}   {one.time.bound}"
        )
    return "\n".join(lines)


def fits(found: StepPlan, name: str) -> str:
    """Whether a step fits a chip: yes, no or perhaps; of its own compiler there is no perhaps.

    Args:
      found: the plan.
      name: of the chip.

    >>> from lmdyn.models import ModelConfig
    >>> from lmdyn.training import Data, Source, TrainConfig
    >>> from lmdyn.training.step_plan import compile_step
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)  # is not read
    >>> plan = compile_step(
    ...     TrainConfig(out="run", data=texts, steps=2, model=tiny, mesh=(1, 1, 1))
    ... )
    >>> fits(plan, "l4")
    'yes'
    """
    room = CHIPS[name].gib * GIB * (1 if found.topology else USABLE)
    return "yes" if found.most <= room else "no" if found.least > room else "perhaps"


def _device(found: StepPlan, name: str) -> str:
    chip = CHIPS[name]
    seconds = found.flops / found.devices / (UTILISATION * chip.flops)
    shown = f"TPU {name}" if chip.kind.startswith("TPU") else chip.kind
    return (
        f"  {shown:<12} {chip.gib:>6} GiB   {fits(found, name):<7} {_time(seconds):>9}  "
        f" {_time(seconds * found.steps):>9}"
    )


def _size(count: float) -> str:
    unit = next((u for u in ((GIB, "GiB"), (2**20, "MiB")) if count >= u[0]), (2**10, "KiB"))
    return f"{count / unit[0]:8.1f} {unit[1]}"


def _time(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds * 1000:.3g} ms"
