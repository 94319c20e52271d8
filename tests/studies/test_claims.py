"""Verdicts, and the rows that claims are made of."""

import numpy as np

from lmdyn.analysis.statistics import Interval
from lmdyn.studies.claims import claim, differs, judge, over_seeds


def test_verdicts():
    assert judge(Interval(1.0, 0.1, 2.0, 3)) == "supported"
    assert judge(Interval(-1.0, -2.0, -0.1, 3)) == "not supported"
    assert (
        judge(Interval(1.0, -0.1, 2.0, 3))
        == judge(Interval(1.0, None, None, 1))
        == judge(None)
        == "undecided"
    )
    assert claim("i", "It is so.", None, "how", "nats", "f").measured is None


def test_a_direction_that_is_not_said_is_never_refuted():
    assert differs(Interval(-1.0, -2.0, -0.1, 3)) == differs(Interval(1.0, 0.1, 2.0, 3))
    assert differs(Interval(-1.0, -2.0, -0.1, 3)) == "supported"
    assert differs(Interval(-1.0, -2.0, 0.1, 3)) == differs(None) == "undecided"


def test_numbers_that_are_missing_or_not_finite_have_no_interval():
    assert over_seeds(None) is over_seeds([]) is over_seeds([1.0, np.nan]) is None
    assert over_seeds([1.0, 3.0]).mean == 2.0
