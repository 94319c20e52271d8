"""Intervals, correlations and effects, against other ways to the same number."""

import numpy as np
import pytest
from scipy import stats

from lmdyn.analysis import factorials as factorial
from lmdyn.analysis.statistics import Interval, best_elsewhere, bootstrap, correlation, interval
from lmdyn.errors import InputError
from lmdyn.studies.claims import claim, judge
from lmdyn.studies.knowledge_entropy.series import Series, at_equal_loss, combined

RANDOM = np.random.default_rng(0)


def test_an_interval_is_that_of_a_t_test():
    values = RANDOM.normal(1.0, 2.0, 7)
    wanted = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert interval(values)[1:] == pytest.approx((*wanted, 7))


def test_intervals_cover_what_they_say():
    covered = sum(
        found.low < 0 < found.high
        for found in (interval(RANDOM.normal(size=3)) for _ in range(2000))
    )
    assert 0.93 < covered / 2000 < 0.97


def test_a_correlation_of_one_seed_is_pearsons():
    x, y = RANDOM.normal(size=[2, 1, 9])
    found = correlation(x, y)
    assert found.mean == pytest.approx(stats.pearsonr(x[0], y[0]).statistic)
    assert found.low is None


def test_correlations_of_seeds_have_an_interval_within_one():
    x = RANDOM.normal(size=[4, 6])
    found = correlation(x, x + 0.3 * RANDOM.normal(size=[4, 6]))
    assert 0 < found.low < found.mean < found.high < 1


def test_a_bootstrap_of_many_is_the_normal_interval():
    values = RANDOM.normal(size=400)
    found, wanted = bootstrap(values), stats.norm.interval(0.95, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize(
    "make",
    [
        lambda: interval([]),
        lambda: interval([1.0, np.nan]),
        lambda: bootstrap([]),
        lambda: correlation([[1, 2]], [[1, 2]]),
        lambda: correlation([[1, 1, 1]], [[1, 2, 3]]),
    ],
)
def test_what_has_no_interval_is_refused(make):
    with pytest.raises(InputError):
        make()


def test_verdicts():
    assert judge(Interval(1.0, 0.1, 2.0, 3)) == "supported"
    assert judge(Interval(-1.0, -2.0, -0.1, 3)) == "not supported"
    assert (
        judge(Interval(1.0, -0.1, 2.0, 3))
        == judge(Interval(1.0, None, None, 1))
        == judge(None)
        == "undecided"
    )
    assert claim("i", "It is so.", None, "nats", "f", "how").measured is None


def test_effects_are_those_of_least_squares():
    design = factorial.fraction(("a", "b", "c", "d"), {"d": ("a", "b", "c")})
    assert design.shape == (8, 4) and (design.sum(0) == 0).all()
    response = 3 + design @ np.array([0.5, 0.0, -1.0, 2.0]) + 0.1 * RANDOM.normal(size=8)
    found = factorial.effects(design, response)
    for column, one in enumerate(
        found.effects
    ):  # a two-sided t-test of a regression's slope, with all columns in it
        full = np.column_stack([np.ones(8), design])
        weights, rest, *_ = np.linalg.lstsq(full, response, rcond=None)
        half = stats.t.ppf(0.975, 3) * np.sqrt(
            rest[0] / 3 * np.linalg.inv(full.T @ full)[column + 1, column + 1]
        )
        assert (one.mean, one.low, one.high) == pytest.approx(
            (2 * weights[column + 1], *(2 * (weights[column + 1] + s * half) for s in (-1, 1)))
        )


def test_a_quarter_of_six_factors_mixes_no_two():
    names = tuple("abcdef")
    design = factorial.fraction(names, {"e": ("a", "b", "c"), "f": ("b", "c", "d")})
    assert design.shape == (16, 6)
    pairs = np.stack([design[:, i] * design[:, j] for i in range(6) for j in range(i)])
    assert not (pairs @ design).any()  # no main effect is that of an interaction of two


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: factorial.fraction(("a", "b"), {"b": ("c",)}), "'c' is no free factor"),
        (lambda: factorial.effects([[-1], [1]], [1.0, 2.0]), "make at least 3"),
        (lambda: factorial.effects([[-1], [1], [1]], [1.0, 2.0, 3.0]), "not orthogonal"),
    ],
)
def test_designs_that_say_nothing_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_choosing_elsewhere_is_not_fooled_by_noise():
    """Of ten columns of noise the best one looks good; the one that is best elsewhere does not."""
    tries = RANDOM.normal(size=[500, 3, 10])
    assert np.mean([values.max(1).mean() for values in tries]) > 1.4
    assert abs(np.mean([best_elsewhere(values).mean() for values in tries])) < 0.1
    assert best_elsewhere(tries[0, :1]) is None


def test_equal_loss_lies_between_checkpoints():
    table = Series(
        [1, 2, 3],
        *(
            np.array([x])
            for x in ([1.0, 2.0, 3.0], [5.0, 4.0, 2.0], [0.0, 1.0, 5.0], [0.1, 0.2, 0.3])
        ),
    )
    assert at_equal_loss(table, "acquisition", [3.0]).tolist() == [3.0]
    assert at_equal_loss(table, "acquisition", [9.0]).tolist() == [0.0]
    assert np.allclose(combined(table), [[1 / 3, (1 / 3 + 0.2 + 0.5) / 3, 2 / 3]])
