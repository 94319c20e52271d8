"""What a study ends in: sentences that can be checked, with what was measured, and whether each
is supported here.
"""

import dataclasses
from typing import Literal

from lmdyn.analysis.statistics import Interval

Verdict = Literal["supported", "not supported", "undecided"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """One sentence, checked.

    Attributes:
      id: short name. study: which study. source: whose sentence it is.
      sentence: what is claimed.
      measured, low, high: the number that decides, with its 95% interval; None where there is none.
      unit: of the number. verdict: see `judge`.
      figure: the figure that shows it.
      how: what the number is, in one sentence.
    """

    id: str
    study: str
    source: str
    sentence: str
    measured: float | None
    low: float | None
    high: float | None
    unit: str
    verdict: Verdict
    figure: str
    how: str


def judge(found: Interval | None, above: float = 0.0) -> Verdict:
    """`supported` where the whole interval lies above a limit, `not supported` where all of it lies below,
    else `undecided`.

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
    """`supported` where the interval leaves out 0 on either side, else `undecided`: for sentences that
    say no direction.

    >>> differs(Interval(-1.0, -1.5, -0.5, 3)), differs(Interval(1.0, -0.5, 2.5, 3))
    ('supported', 'undecided')
    """
    return "supported" if judge(found) != "undecided" else "undecided"


def claim(
    study: str,
    source: str,
    id: str,
    sentence: str,
    found: Interval | None,
    unit: str,
    figure: str,
    how: str,
    above: float = 0.0,
) -> Claim:
    """The claim that a number is above a limit, judged by its interval.

    >>> claim(
    ...     "s",
    ...     "Kim et al. 2024",
    ...     "decay",
    ...     "It falls.",
    ...     Interval(2.0, 1.0, 3.0, 3),
    ...     "nats",
    ...     "series",
    ...     "Peak less end.",
    ... ).verdict
    'supported'
    """
    measured, low, high = (None, None, None) if found is None else found[:3]
    return Claim(
        id, study, source, sentence, measured, low, high, unit, judge(found, above), figure, how
    )
