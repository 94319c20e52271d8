"""`lmdyn study`: a paper's whole experiment."""

import dataclasses
import json
from typing import Any

from lmdyn.cli.common import say, set_up_jax


@dataclasses.dataclass(frozen=True)
class Study:
    """Run a paper's whole experiment: rows, figures, claims and a report, in one folder.

    lmdyn study --config FILE reads a Python file whose config() returns the settings of a study,
    such as configs/knowledge_entropy.py. lmdyn study NAME starts from the defaults of a study:
    entropy_decay, fact_learning, gradient_localization, knowledge_entropy, online_adaptation,
    saturation, or the dotted name of a package of yours. All settings are options, too, and --help
    after FILE or NAME lists them. The same command resumes a study that was stopped.
    """


OPTIONS = Study
EXAMPLE = "configs/knowledge_entropy.py"


def from_config(made: Any) -> Any:
    """A config file's study; None for anything else."""
    from lmdyn.studies.registry import package_of

    return made if package_of(made) else None


def from_name(name: str) -> type:
    """The options of a study by its name, such as `my_package.my_study`."""
    from lmdyn.studies.registry import find

    return find(name).CONFIG


def run(options: Any, command: list[str]) -> int:
    """Runs the study, and prints its claims.

    Args:
      options: the study's config.
      command: the words of the command line, for the provenance.

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
            " resumes it"
        )
        return 130
    for claim in json.loads((path.parent / "claims.json").read_text(encoding="utf-8")):
        print(_claim_line(claim))
    print(path)
    return 0


def _claim_line(claim: dict[str, Any]) -> str:
    """Verdict, sentence, and what was measured with its interval."""
    measured = "nothing"
    if claim["measured"] is not None:
        interval = "" if claim["low"] is None else f" ({claim['low']:.3g} to {claim['high']:.3g})"
        measured = f"{claim['measured']:.3g}{interval} {claim['unit']}"
    return f"{claim['verdict']:10} {claim['sentence']} [{measured}]"
