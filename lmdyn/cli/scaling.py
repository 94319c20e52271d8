"""`lmdyn scaling`: a scaling law, from a table of runs."""

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lmdyn import records
from lmdyn.cli.common import RowsFile, say, write
from lmdyn.errors import InputError, check_least
from lmdyn.files import check_writable
from lmdyn.types import Row

if TYPE_CHECKING:
    from lmdyn.analysis.scaling_laws import ScalingLaw
    from lmdyn.analysis.scaling_runs import Runs
    from lmdyn.types import Array


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Fit a scaling law L(N, T) = E + A / N^a + B / T^b to a table of runs.

    Also reports how far from the law each model ends.

    The table is a CSV file whose first line names the columns N (parameters), T (training tokens)
    and loss (nats per token), with one checkpoint per line. lmdyn report draws the result.
    """

    table: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE.csv")]
    """The runs."""
    out: RowsFile
    above: Annotated[float, tyro.conf.arg(metavar="N")] = 0.0
    """Fit models with more parameters than this; smaller ones are only compared with the law."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of the bootstrap that gives the intervals."""


OPTIONS = Scaling


def run(options: Scaling, command: list[str]) -> None:
    """Fits the law, and writes it and the distance of each run from it.

    Args:
      options: of the verb.
      command: the words of the command line, for the provenance.
    """
    started = time.time()
    check_least(options, "--", seed=0)
    check_writable(options.out)
    from lmdyn.analysis.scaling_laws import fit_scaling_law
    from lmdyn.analysis.scaling_runs import read_runs

    runs = read_runs(options.table)
    fitted = runs.parameters > options.above
    if not fitted.any():
        raise InputError(
            f"--above {options.above:g}: no run of {options.table} has more parameters; the largest"
            f" has {runs.parameters.max():g}"
        )
    law = fit_scaling_law(*(column[fitted] for column in runs), seed=options.seed)
    rows = [
        _law_row(options.table, law, int(fitted.sum())),
        *_point_rows(law, runs, fitted),
        *_residual_rows(law, runs, fitted, options.seed),
    ]
    page = {"study": "scaling law", "package": "lmdyn.report.scaling_figures"}
    write(options, command, started, rows, 0, options.seed, notes=page)
    _show(rows)
    say("intervals are of 90%, from a bootstrap")


def _law_row(table: str, law: "ScalingLaw", runs: int) -> Row:
    """The irreducible loss E, and beside it the other parameters and their finite intervals."""
    intervals = {
        name: [low, high] for name, (low, high) in law.intervals().items() if math.isfinite(low)
    }
    others = {name: getattr(law, name) for name in "AabB"}
    return records.row(
        "scaling_law", law.E, "nats", model=table, **others, intervals=intervals, runs=runs
    )


def _point_rows(law: "ScalingLaw", runs: "Runs", fitted: "Array") -> list[Row]:
    """The loss of each run, and what the law says of it."""
    rows = []
    for size, tokens, loss, inside in zip(*runs, fitted, strict=True):
        name = _size_name(size)
        about = {"name": name, "parameters": size, "trained": tokens}
        said = {"predicted": float(law.predict(size, tokens)), "fitted": bool(inside)}
        rows.append(records.row("scaling_point", loss, "nats", model=name, **about, **said))
    return rows


def _residual_rows(law: "ScalingLaw", runs: "Runs", fitted: "Array", seed: int) -> list[Row]:
    """How far from the law the last checkpoint of each size is, as a share of the loss."""
    import numpy as np

    rows = []
    for size in np.unique(runs.parameters):
        last = max(np.flatnonzero(runs.parameters == size), key=lambda i: runs.tokens[i])
        found = law.residual(size, runs.tokens[last], runs.losses[last], seed=seed)
        name, inside = _size_name(size), bool(fitted[last])
        about: dict[str, Any] = {"name": name, "parameters": size, "trained": runs.tokens[last]}
        ends = {"low": found.low, "high": found.high} if math.isfinite(found.low) else {}
        about |= {"fitted": inside, **ends}
        rows.append(records.row("scaling_residual", found.value, "share", model=name, **about))
    return rows


def _size_name(size: float) -> str:
    """Such as "1.3B parameters"."""
    unit, letter = next(
        (unit, letter)
        for unit, letter in ((1e9, "B"), (1e6, "M"), (1, ""))
        if size >= unit or unit == 1
    )
    return f"{size / unit:.3g}{letter} parameters"


def _show(rows: Sequence[Row]) -> None:
    """Prints the law's parameters with their intervals, and how far from it each size ends."""
    law = rows[0]
    for key, value in zip("EABab", (law["value"], *(law[key] for key in "ABab")), strict=True):
        low_high = law["intervals"].get(key)
        about = f" ({low_high[0]:.4g} to {low_high[1]:.4g})" if low_high else ""
        print(f"{key} {value:12.5g}{about}")
    for r in rows:
        if r["metric"] == "scaling_residual":
            about = f" ({r['low']:+.1%} to {r['high']:+.1%})" if "low" in r else ""
            outside = "" if r["fitted"] else ", to which it was not fitted"
            print(f"{r['name']:24} ends {r['value']:+.1%}{about} from the law{outside}")
