"""What a study ends in: sentences that can be checked, what was measured, and a verdict on each."""

import dataclasses
from typing import Literal

import numpy as np

from lmdyn.analysis.statistics import Interval, interval
from lmdyn.types import ArrayLike, Row, Rows

Verdict = Literal["supported", "not supported", "undecided"]
OURS = "lmdyn"
"""The source of sentences that are in no paper."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A checked sentence. Made by `claim`.

    Attributes:
      id: short name.
      sentence: what is claimed.
      measured: the number that decides; None where there is none.
      low: lower end of its 95% interval; None where there is no interval.
      high: upper end.
      unit: of these numbers.
      figure: name of the figure that shows it.
      how: what the number is, in one sentence.
      source: whose sentence it is.
      verdict: see `judge`.
    """

    id: str
    sentence: str
    measured: float | None
    low: float | None
    high: float | None
    unit: str
    figure: str
    how: str
    source: str
    verdict: Verdict


def judge(found: Interval | None, above: float = 0.0) -> Verdict:
    """The verdict on the sentence that a number is above a limit.

    `supported` where the whole interval lies above it, `not supported` where all of it lies
    below, else `undecided`.

    One replicate has no interval and decides nothing.

    >>> (
    ...     [judge(Interval(1.0, low, high, 3)) for low, high in ((0.5, 1.5), (-0.5, 2.5))],
    ...     judge(Interval(-1.0, -1.5, -0.5, 3)),
    ... )
    (['supported', 'undecided'], 'not supported')
    """
    if found is None or found.low is None or found.high is None:
        return "undecided"
    return (
        "supported" if found.low > above else "not supported" if found.high < above else "undecided"
    )


def differs(found: Interval | None) -> Verdict:
    """The verdict on a sentence that says no direction.

    `supported` where the interval leaves out 0 on either side, else `undecided`.

    >>> differs(Interval(-1.0, -1.5, -0.5, 3)), differs(Interval(1.0, -0.5, 2.5, 3))
    ('supported', 'undecided')
    """
    return "supported" if judge(found) != "undecided" else "undecided"


def claim(
    id: str,
    sentence: str,
    found: Interval | None,
    how: str,
    unit: str,
    figure: str,
    source: str = OURS,
    above: float = 0.0,
) -> Claim:
    """The claim that a number is above a limit, judged by its interval.

    Args:
      id: short name.
      sentence: what is claimed.
      found: the number and its interval; None where nothing was measured.
      how: what the number is, in one sentence.
      unit: of the number.
      figure: name of the figure that shows it.
      source: whose sentence it is.
      above: the limit.

    >>> claim(
    ...     "decay", "It falls.", Interval(2.0, 1.0, 3.0, 3), "Peak less end.", "nats", "series"
    ... ).verdict
    'supported'
    """
    measured, low, high = (None, None, None) if found is None else found[:3]
    return Claim(id, sentence, measured, low, high, unit, figure, how, source, judge(found, above))


def over_seeds(values: ArrayLike | None) -> Interval | None:
    """The interval of independent replicates, `[S]`.

    None where there are none, or where one is not finite.

    >>> over_seeds(None), over_seeds([2.0]).mean
    (None, 2.0)
    """
    if values is None or not np.size(values) or not np.isfinite(np.asarray(values)).all():
        return None
    return interval(values)


def where(rows: Rows, metric: str, **fields: object) -> list[Row]:
    """The rows of a metric that have these fields; a field that a row lacks counts as None.

    >>> rows = [{"metric": "nll", "seed": 0}, {"metric": "nll", "seed": 1}]
    >>> where(rows, "nll", seed=1)
    [{'metric': 'nll', 'seed': 1}]
    """
    return [
        r for r in rows if r["metric"] == metric and all(r.get(k) == v for k, v in fields.items())
    ]


def seeds_of(rows: Rows) -> list[int]:
    """The seeds of some rows, ascending.

    >>> seeds_of([{"seed": 3}, {"seed": 1}, {"metric": "nll"}])
    [1, 3]
    """
    return sorted({r["seed"] for r in rows if "seed" in r})
