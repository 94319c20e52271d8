"""`lmdyn report`: the page of what was measured."""

import dataclasses
from typing import Annotated

import tyro

from lmdyn.errors import InputError


@dataclasses.dataclass(frozen=True)
class Report:
    """Build the HTML page of a folder of rows, or of several folders side by side.

    The page is one file that needs no network. It can be built again from the rows at any time.
    """

    folders: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="DIR...", help_behavior_hint="(required)"),
    ]
    """Folders with the rows of lmdyn measure, gradients, online or scaling, of a run or of a study;
    or folders of such folders."""
    out: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="FILE", help_behavior_hint="(default: DIR/report.html; needed for several)"
        ),
    ] = None
    """The page to write."""


OPTIONS = Report


def run(options: Report, command: list[str]) -> None:
    """Builds the page, and prints where it is.

    Args:
      options: of the verb.
      command: the words of the command line.
    """
    if not options.folders:
        raise InputError("report needs a folder of rows; see lmdyn report --help")
    from lmdyn import report

    print(report.build(options.folders, options.out))
