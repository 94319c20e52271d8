"""`lmdyn plan`: what a training step needs on devices that one does not have."""

from typing import Any

from lmdyn.cli.common import say
from lmdyn.cli.train_options import PlanOptions
from lmdyn.training.config import TrainConfig

OPTIONS = PlanOptions
EXAMPLE = "configs/tiny.py"


def from_config(made: Any) -> PlanOptions | None:
    """The options for a config file's `lmdyn.training.TrainConfig`; None for anything else."""
    return PlanOptions(run=made) if isinstance(made, TrainConfig) else None


def run(options: PlanOptions, command: list[str]) -> None:
    """Compiles a run's training step ahead of time, and prints bytes per device and FLOPs.

    Args:
      options: of the verb.
      command: the words of the command line.
    """
    from lmdyn.training import plan_text, step_plan

    say("compiling the training step ahead of time, for devices that need not be here")
    print(plan_text.describe(step_plan.plan_step(options.run)))
