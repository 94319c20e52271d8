"""Intervals and correlations, against other ways to the same number."""

import numpy as np
import pytest
from scipy import stats

from lmdyn.analysis.statistics import best_elsewhere, bootstrap, correlation, interval
from lmdyn.errors import InputError

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


def test_choosing_elsewhere_is_not_fooled_by_noise():
    """Of ten columns of noise the best one looks good; the one that is best elsewhere does not."""
    tries = RANDOM.normal(size=[500, 3, 10])
    assert np.mean([values.max(1).mean() for values in tries]) > 1.4
    assert abs(np.mean([best_elsewhere(values).mean() for values in tries])) < 0.1
    assert best_elsewhere(tries[0, :1]) is None
