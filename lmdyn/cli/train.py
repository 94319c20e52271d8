"""`lmdyn train`: a run, or the rest of one that was stopped."""

from typing import Any

from lmdyn.cli.common import say, set_up_jax
from lmdyn.cli.train_options import TrainOptions
from lmdyn.training.config import TrainConfig

OPTIONS = TrainOptions
EXAMPLE = "configs/tiny.py"


def from_config(made: Any) -> TrainOptions | None:
    """The options for a config file's `lmdyn.training.TrainConfig`; None for anything else."""
    return TrainOptions(run=made) if isinstance(made, TrainConfig) else None


def run(options: TrainOptions, command: list[str]) -> int:
    """Trains until the run is done or a signal stops it.

    Args:
      options: of the verb.
      command: the words of the command line, for the provenance.

    Returns:
      The exit code: 0 when done or preempted (SIGTERM), 130 after Ctrl-C.
    """
    set_up_jax()
    from lmdyn.training import distributed, loop

    if options.hosts == "auto" or options.coordinator is not None:
        distributed.initialize(options.coordinator, options.processes, options.process)
    config = options.run
    ended = loop.train(config, command, progress=True, say=say)
    if distributed.is_primary():
        if ended.signal is None:
            say(
                f"{config.out}: done, {ended.step} steps; next: lmdyn measure 'run:{config.out}@*'"
                f" or lmdyn report {config.out}"
            )
        else:
            say(
                f"{config.out}: stopped by {ended.signal} at step {ended.step} of {ended.steps},"
                " saved; the same command resumes it"
            )
    return 130 if ended.signal == "SIGINT" else 0
