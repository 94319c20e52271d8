"""`lmdyn plan`: what a training step needs on devices that one does not have."""

from typing import Any

from lmdyn.cli.common import say
from lmdyn.cli.train_options import PlanOptions
from lmdyn.training.config import TrainConfig
from lmdyn.types import present

OPTIONS = PlanOptions
EXAMPLE = "configs/tiny.py"
SEARCHED = 4
"""How many of what a search found are compiled, until one fits."""


def from_config(made: Any) -> PlanOptions | None:
    """The options for a config file's `lmdyn.training.TrainConfig`; None for anything else."""
    return PlanOptions(run=made) if isinstance(made, TrainConfig) else None


def run(options: PlanOptions, command: list[str]) -> None:
    """Compiles a run's training step ahead of time, and prints bytes per device and FLOPs.

    Args:
      options: of the verb.
      command: the words of the command line.
    """
    from lmdyn.costs import topologies
    from lmdyn.training import plan_search, plan_text, step_plan

    target = step_plan.Target(options.device, options.topology)
    config, target = step_plan.resolve(options.run, target)
    if target.chip in topologies.TPUS and target.topology is None:
        say("libtpu is not installed (pip install 'lmdyn[tpu]'): compiling for a CPU instead")
    tried = [config]
    if options.search:
        found = plan_search.search(config, present(target.chip))
        print(plan_text.describe_options(found), end="\n\n", flush=True)
        tried = [option.applied(config) for option in found[:SEARCHED]]
    for config in tried:
        say("compiling the training step ahead of time, for devices that need not be here")
        plan = step_plan.plan_step(config, target)
        if not options.search or plan_text.fits(plan, present(plan.chip)) != "no":
            break
        say(
            f"mesh {','.join(map(str, plan.mesh))}, remat {plan.remat}, accumulate"
            f" {plan.accumulate} does not fit as compiled; trying the next"
        )
    print(plan_text.describe(plan))
