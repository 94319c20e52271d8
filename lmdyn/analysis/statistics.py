"""Intervals for what a study reports.

The replicate is a seed: a model trained anew on data drawn anew.

Shape letters: S seeds, K checkpoints.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from lmdyn.errors import InputError
from lmdyn.types import ArrayLike

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate, and the interval that covers the truth in 95 of 100 studies.

    Its ends are None where one replicate gives no interval.

    >>> Interval(2.0, 1.5, 2.5, n=8).high
    2.5
    """

    mean: float
    low: float | None
    high: float | None
    n: int


def interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Mean of independent replicates, with Student's t interval.

    Args:
      values: `[S]`, one per seed.
      level: coverage of the interval.

    Raises:
      InputError: no value, or one that is not finite.

    >>> [round(x, 3) for x in interval([1.0, 2.0, 3.0])[:3]]  # 2 -+ 4.303 / sqrt(3)
    [2.0, -0.484, 4.484]
    >>> interval([1.0])
    Interval(mean=1.0, low=None, high=None, n=1)
    """
    values = np.asarray(values, np.float64).reshape(-1)
    if not len(values) or not np.isfinite(values).all():
        raise InputError(f"an interval needs finite values, at least one; got {values.tolist()}")
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Interval(mean, None, None, 1)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / n**0.5)
    return Interval(mean, mean - half, mean + half, n)


def correlation(x: ArrayLike, y: ArrayLike, level: float = LEVEL) -> Interval:
    """Pearson's correlation over the checkpoints of each seed.

    Averaged over seeds on Fisher's scale.

    Args:
      x: `[S, K]`, K >= 3.
      y: `[S, K]`.
      level: coverage of the interval.

    Returns:
      Mean correlation and its interval, between -1 and 1. The replicates are the seeds'
      correlations, not the checkpoints, which are not independent of one another.

    Raises:
      InputError: fewer than 3 checkpoints, or a seed in which one of the two does not vary.

    >>> round(correlation([[1, 2, 3], [1, 2, 4]], [[3, 5, 7], [1, 2, 3]]).mean, 3)
    0.999
    """
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] < 3:
        raise InputError(
            f"a correlation over checkpoints needs at least 3 of them; got shapes {first.shape} and"
            f" {second.shape}"
        )
    first, second = (a - a.mean(1, keepdims=True) for a in (first, second))
    scale = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    if not (scale > 0).all():
        raise InputError(
            "a correlation needs values that vary over the checkpoints; in one seed they are all"
            " equal"
        )
    r = np.clip(
        (first * second).sum(1) / scale, -0.9999, 0.9999
    )  # a perfect correlation has no finite Fisher z
    found = interval(np.arctanh(r), level)
    back = lambda z: None if z is None else float(np.tanh(z))
    return Interval(float(np.tanh(found.mean)), back(found.low), back(found.high), found.n)


def best_elsewhere(values: ArrayLike) -> np.ndarray | None:
    """For each seed, its value in the column that is best in the *other* seeds.

    Choosing the best column on the same numbers would make any column look good; a choice made
    elsewhere does not.

    Args:
      values: `[S, K]`, one row per seed, one column per candidate; higher is better.

    Returns:
      `[S]`; None for one seed, which has no others.

    >>> best_elsewhere([[1.0, 5.0], [4.0, 2.0], [3.0, 2.0]]).tolist()
    [1.0, 2.0, 2.0]
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return None
    others = (values.sum(0) - values) / (len(values) - 1)
    return values[np.arange(len(values)), others.argmax(1)]


def bootstrap(
    values: ArrayLike,
    statistic: Callable = np.mean,
    *,
    seed: int = 0,
    draws: int = 2000,
    level: float = LEVEL,
) -> Interval:
    """A statistic of items, with its percentile interval over resampled items.

    Items are facts, probes or sequences.

    Args:
      values: `[n, ...]`; items along the first axis.
      statistic: `(values, axis) -> value`, along that axis.
      seed: of the draws.
      draws: how many resamples.
      level: coverage of the interval.

    >>> found = bootstrap(np.arange(100.0))
    >>> found.mean, found.low < 49.5 < found.high
    (49.5, True)
    """
    values = np.asarray(values, np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise InputError(f"a bootstrap needs finite values, at least one; got {len(values)}")
    picks = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    drawn = statistic(values[picks], axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(values, axis=0)), float(low), float(high), len(values))
