"""`lmdyn train`, `plan`, `study` and `report`: what a config file says, and the page of what came
out.
"""

import json
from typing import TYPE_CHECKING, Any

from lmdyn.cli.common import say, set_up_jax
from lmdyn.cli.options import Report
from lmdyn.errors import InputError

if TYPE_CHECKING:
    from lmdyn.cli.train_options import PlanOptions, TrainOptions


def train(options: "TrainOptions", command: list[str]) -> int:
    """`lmdyn train`. Args: options: `lmdyn.cli.train_options.TrainOptions`. command: the words of
    the command line, for the record.

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
                f"{config.out}: done, {ended.step} steps; lmdyn measure 'run:{config.out}@*' and"
                f" lmdyn report {config.out} go on from here"
            )
        else:
            say(
                f"{config.out}: stopped by {ended.signal} at step {ended.step} of {ended.steps},"
                " saved; the same command goes on"
            )
    return 130 if ended.signal == "SIGINT" else 0


def plan(options: "PlanOptions", command: list[str]) -> None:
    """`lmdyn plan`. Args: options: `lmdyn.cli.train_options.PlanOptions`. command: the words of the
    command line.
    """
    from lmdyn.training import plan as plans

    say("compiling the step for a mesh that is not there")
    print(plans.describe(plans.plan(options.run)))


def study(options: Any, command: list[str]) -> int:
    """`lmdyn study`. Args: options: a config of `lmdyn.studies`. command: the words of the command
    line, for the record.

    Returns:
      The exit code: 0, or 130 after Ctrl-C.
    """
    from lmdyn.studies.registry import package_of

    package = package_of(options)
    set_up_jax()
    try:
        path = package.run(options, command, say)
    except KeyboardInterrupt:
        say(
            f"lmdyn: interrupted; what is finished is kept in {options.out}, and the same command"
            " goes on"
        )
        return 130
    for claim in json.loads((path.parent / "claims.json").read_text(encoding="utf-8")):
        between = (
            f" ({claim['low']:.3g} to {claim['high']:.3g})" if claim["low"] is not None else ""
        )
        measured = (
            "nothing"
            if claim["measured"] is None
            else f"{claim['measured']:.3g}{between} {claim['unit']}"
        )
        print(f"{claim['verdict']:10} {claim['sentence']} [{measured}]")
    print(path)
    return 0


def report(options: Report, command: list[str]) -> None:
    """`lmdyn report`. Args: options: `lmdyn.cli.options.Report`. command: the words of the command
    line, for the record.
    """
    from lmdyn import report as pages

    if not options.folders:
        raise InputError("report needs a folder of rows; see lmdyn report --help")
    print(pages.build(options.folders, options.out))
