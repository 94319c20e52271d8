"""Where a loss curve stops falling and rises: saturation.

Godey et al. 2024 (arXiv 2404.07647), section 3.

A curve is a falling or first falling, then rising mean plus autocorrelated noise. The smoothed loss
is a moving average, its *rise* is its last value minus its lowest one. If the mean only falls, the
rise of the curve is at most the rise of its noise alone, whatever the mean's shape. So a rise that
noise alone seldom reaches is a finding, and no shape of falling curves has to be assumed.

Noise is modelled as a Gaussian autoregression of order one, and its curves are drawn anew
(parametric bootstrap): with the 20 to 200 points of a curve, blocks long enough to hold the
correlation would be too few to resample. The rise is divided by a scale that is measured in the
same way on the curve and on the noise, so that errors of the noise model mostly cancel.
"""

import dataclasses
import functools

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.signal import lfilter

from lmdyn.errors import InputError
from lmdyn.types import ArrayLike

MOST_POINTS = 200
"""Longer curves are averaged in this many bins: nothing is lost for a window that spans a tenth."""
LEAST_POINTS = 12
BURN_IN = 100
CORRELATIONS = np.r_[0:0.9:0.05, 0.9:0.99:0.02]


@dataclasses.dataclass(frozen=True)
class SaturationPoint:
    """Where a loss curve turns up. Made by `saturation_point`.

    Attributes:
      step: where the smoothed loss is lowest.
      low, high: an interval for the step where the mean curve is lowest; never shorter than the
        smoothing window.
      rise: of the smoothed loss from there to the end of the curve, in the loss's unit.
      p_value: how often the noise of a curve that does not rise reaches such a rise.

    >>> SaturationPoint(step=700, low=600, high=800, rise=0.02, p_value=0.001).low
    600
    """

    step: float
    low: float
    high: float
    rise: float
    p_value: float


def saturation_point(
    steps: ArrayLike,
    losses: ArrayLike,
    *,
    smooth: float = 0.1,
    level: float = 0.05,
    coverage: float = 0.9,
    draws: int = 1000,
    seed: int = 0,
) -> SaturationPoint | None:
    """The point after which a loss stops falling and rises, or None.

    Points count alike, however far apart their steps are: with steps on a logarithmic grid,
    smoothing is logarithmic.

    In simulations (12 to 3,000 points; flat, steep and power-law curves; Gaussian noise and noise
    with outliers, its autocorrelation 0 to 0.9) 0 to 4.5% of the curves that fall or stay flat gave
    a point at the default `level`. Of 200 points with white noise, a rise of one standard deviation
    of the noise over the last 40% is found in six curves of ten, one of two nearly always; with an
    autocorrelation of 0.6, one of two in half, one of four nearly always. The interval held the
    planted lowest point in 96 to 100% of the curves with a point (kinks, parabolas, jumps,
    saturating rises), so it errs on the wide side.

    Args:
      steps: `[n]`, rising. n of 12 or more.
      losses: `[n]`, in any unit.
      smooth: the moving average's window, as a share of the points.
      level: how many false alarms are allowed on curves that do not rise.
      coverage: of the interval.
      draws: how many noise curves are drawn.
      seed: of the draws; the same seed gives the same answer.

    Raises:
      InputError: too few points, steps that do not rise, or a loss that is not finite.

    >>> steps = np.arange(1, 101)
    >>> noise = np.random.default_rng(0).normal(0, 0.02, 100)
    >>> saturation_point(steps, 5 * steps**-0.2 + noise) is None
    True
    >>> found = saturation_point(steps, 3 + ((steps - 60) / 60) ** 2 + noise)
    >>> found.low <= 60 <= found.high, found.p_value < 0.01
    (True, True)
    """
    steps, losses = _checked(steps, losses)
    if not 0 < smooth <= 0.5:
        raise InputError(
            f"smooth={smooth} is not a share of the curve for a moving average; use a number up to"
            " 0.5, such as 0.1"
        )
    steps, losses = _binned(steps, losses)
    points, rng = len(losses), np.random.default_rng(seed)
    window = max(2, round(smooth * points))
    averages = _moving_average(losses, window)
    rise, scale = averages[-1] - averages.min(), _scale(losses, window)
    if rise <= 0:
        return None
    cautious = _noise(losses, window, draws, rng, margin=1.0)
    p_value = (1 + np.sum(_rise(cautious, window) * scale >= rise * _scale(cautious, window))) / (
        draws + 1
    )
    if p_value > level:
        return None
    lowest = averages.argmin() + (window - 1) / 2
    curves = _smooth_and_unimodal(losses) + _noise(losses, window, draws, rng, margin=0.0)
    redrawn = _moving_average(curves, window).argmin(-1) + (window - 1) / 2
    low, high = np.quantile(redrawn, [(1 - coverage) / 2, (1 + coverage) / 2])
    ends = [min(low, lowest - window / 2), lowest, max(high, lowest + window / 2)]
    low, step, high = np.interp(ends, np.arange(points), steps).tolist()
    return SaturationPoint(step, low, high, float(rise), float(p_value))


def _checked(steps, losses):
    steps, losses = np.asarray(steps, np.float64), np.asarray(losses, np.float64)
    if steps.ndim != 1 or steps.shape != losses.shape:
        raise InputError(
            f"{list(steps.shape)} steps and {list(losses.shape)} losses; give one loss a step"
        )
    if len(steps) < LEAST_POINTS:
        raise InputError(
            f"{len(steps)} points are too few to tell a rise from noise; give {LEAST_POINTS} or"
            " more"
        )
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise InputError(
            f"the loss at step {steps[bad[0]]:g} is {losses[bad[0]]}; leave out what is not a"
            " finite number"
        )
    falls = np.flatnonzero(~(np.diff(steps) > 0))
    if len(falls):
        raise InputError(
            f"step {steps[falls[0] + 1]:g} comes after step {steps[falls[0]]:g}; sort the curve,"
            " one loss a step"
        )
    return steps, losses


def _binned(steps, losses):
    if len(steps) <= MOST_POINTS:
        return steps, losses
    edges = np.linspace(0, len(steps), MOST_POINTS + 1).astype(int)
    mean = lambda x: np.add.reduceat(x, edges[:-1]) / np.diff(edges)
    return mean(steps), mean(losses)


def _moving_average(losses, window):
    """Over every full window: `[..., n - window + 1]`."""
    sums = np.cumsum(losses, -1)
    sums = np.concatenate([np.zeros_like(sums[..., :1]), sums], -1)
    return (sums[..., window:] - sums[..., :-window]) / window


def _rise(losses, window):
    averages = _moving_average(losses, window)
    return averages[..., -1] - averages.min(-1)


def _scale(losses, window):
    """The size of the noise, blind to trends: median second difference of short averages.

    Short against the window, so that the curvature of a falling mean does not pass for noise.
    """
    short = max(1, window // 5)
    averages = _moving_average(losses, short)
    return np.median(
        np.abs(
            averages[..., 2 * short :]
            - 2 * averages[..., short:-short]
            + averages[..., : -2 * short]
        ),
        -1,
    )


def _noise(losses, window, draws, rng, margin):
    """`[draws, n]` noise like the curve's own.

    Its autocorrelation is raised by `margin` standard errors.
    """
    start = int(
        np.argmax(_moving_average(losses, window) <= np.median(losses))
    )  # the first, steep fall is not a sample of the noise
    eighth = min(
        4, -(-8 * start // len(losses))
    )  # few lengths, so that what depends on the length alone is kept
    settled = losses[len(losses) * eighth // 8 :]
    half = max(2, len(settled) // 8)
    residuals = settled - _local_linear(len(settled), half) @ settled
    energy = residuals @ residuals
    # Smoothing takes part of the noise away, so the correlation is the one whose *residuals* look
    # like these.
    kept, seen = _residuals_of_noise(len(settled), half)
    found = (residuals[1:] @ residuals[:-1]) / energy if energy else 0.0
    correlation = np.interp(found + margin / np.sqrt(len(settled)), seen, CORRELATIONS)
    variance = energy / np.interp(correlation, CORRELATIONS, kept)
    fresh = rng.normal(
        scale=np.sqrt(variance * (1 - correlation**2)), size=(draws, len(losses) + BURN_IN)
    )
    return np.asarray(lfilter([1.0], [1.0, -correlation], fresh, axis=-1))[:, BURN_IN:]


@functools.lru_cache(maxsize=64)
def _local_linear(points: int, half: int):
    """`[n, n]`: the smoother that fits a line to the points within `half` of each."""
    smoother = np.zeros((points, points))
    for i in range(points):
        near = np.arange(max(0, i - half), min(points, i + half + 1))
        smoother[i, near] = np.linalg.pinv(np.stack([np.ones(len(near)), near - i], 1))[0]
    return smoother


@functools.lru_cache(maxsize=64)
def _residuals_of_noise(points: int, half: int):
    """What residuals of noise of variance 1 come to, for each of `CORRELATIONS`.

    Their expected sum of squares, and their lag-one correlation.
    """
    left = np.eye(points) - _local_linear(points, half)
    lags = np.abs(np.subtract.outer(np.arange(points), np.arange(points)))
    products = [left @ correlation**lags for correlation in CORRELATIONS]
    kept = np.array([np.sum(p * left) for p in products])
    return kept, np.array([np.sum(p[1:] * left[:-1]) for p in products]) / kept


def _smooth_and_unimodal(losses):
    """The curve that the interval redraws: smoothed, then made to fall and rise once."""
    smooth = _local_linear(len(losses), max(2, len(losses) // 16)) @ losses
    lowest = int(smooth.argmin())
    down = isotonic_regression(smooth[: lowest + 1], increasing=False).x
    up = isotonic_regression(smooth[lowest:], increasing=True).x
    return np.concatenate([down[:-1], up])
