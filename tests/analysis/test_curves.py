"""Saturation points: false alarms on curves that only fall, planted points, planted rises that are
too small, bad curves.
"""

import numpy as np
import pytest
from scipy.signal import lfilter

from lmdyn.analysis.curves import saturation_point
from lmdyn.errors import InputError

FALLING = {
    "power": lambda t: 3 * t**-0.3,
    "slow": lambda t: 2 + 0.3 * t**-0.05,
    "steep then flat": lambda t: 4 * np.exp(-40 * t),
    "late fall": lambda t: (
        3 - 0.1 * t - np.where(t > 0.7, t - 0.7, 0)
    ),  # as when the learning rate decays
}
TURN = 0.6
RISING = {
    "kink": lambda t: np.where(t < TURN, t**-0.3 - TURN**-0.3, (t - TURN) / 2),
    "parabola": lambda t: (t - TURN) ** 2 + np.exp(-30 * t),
    "jump": lambda t: np.where(
        t < TURN, t**-0.3 - TURN**-0.3, 0.2 * np.minimum(1, (t - TURN) / 0.1)
    ),
    "saturating": lambda t: np.where(
        t < TURN, 4 * (t**-0.07 - TURN**-0.07), 0.2 * (1 - np.exp(-(t - TURN) / 0.2))
    ),
}


def noise(rng, points, correlation, size, heavy=False):
    """An autoregression with standard deviation `size`; `heavy` has outliers."""
    fresh = rng.standard_t(4, points + 200) / np.sqrt(2) if heavy else rng.normal(size=points + 200)
    return size * np.sqrt(1 - correlation**2) * lfilter([1], [1, -correlation], fresh)[200:]


def found(shape, points, correlation, size, curves, heavy=False, seed=0):
    """The points found on `curves` noisy copies of a mean curve; None where there was none."""
    rng, t = np.random.default_rng(seed), np.arange(1, points + 1) / points
    return [
        saturation_point(
            1000 * t, shape(t) + noise(rng, points, correlation, size, heavy), draws=200
        )
        for _ in range(curves)
    ]


@pytest.mark.parametrize("shape", FALLING)
@pytest.mark.parametrize(
    "points, correlation, heavy", [(24, 0.3, False), (60, 0.6, True), (500, 0.9, False)]
)
def test_at_most_5_percent_false_alarms_on_falling_curves(shape, points, correlation, heavy):
    seed = list(FALLING).index(shape)
    alarms = [
        point
        for size in (0.01, 0.2)
        for point in found(FALLING[shape], points, correlation, size, 40, heavy, [seed, points])
        if point
    ]
    assert len(alarms) <= 4


@pytest.mark.parametrize("points, correlation", [(12, 0.0), (200, 0.0), (200, 0.6), (3000, 0.8)])
def test_the_worst_case_is_a_curve_that_is_flat(points, correlation):
    """120 curves at a level of 5%: 13 alarms or more would be a chance of 1 in 100."""
    alarms = [point for point in found(np.zeros_like, points, correlation, 1.0, 120) if point]
    assert len(alarms) < 13


@pytest.mark.parametrize("shape", RISING)
@pytest.mark.parametrize(
    "points, correlation, power", [(60, 0.0, 0.5), (300, 0.5, 0.9), (3000, 0.8, 1.0)]
)
def test_planted_points_are_found_within_their_interval(shape, points, correlation, power):
    """A parabola's rise is 0.16, the others' 0.2; the noise of a point is 0.03."""
    several = [point for point in found(RISING[shape], points, correlation, 0.03, 20) if point]
    assert len(several) >= power * 20
    held = [point.low <= 1000 * TURN <= point.high for point in several]
    assert np.mean(held) >= 0.9
    assert np.median([point.high - point.low for point in several]) < 350
    assert all(point.low <= point.step <= point.high and point.rise > 0 for point in several)


def test_a_spike_that_passes_is_no_saturation():
    t = np.arange(1, 201) / 200
    loss = (
        t**-0.3
        + np.where(np.abs(t - 0.5) < 0.03, 2.0, 0)
        + noise(np.random.default_rng(1), 200, 0, 0.01)
    )
    assert saturation_point(t, loss) is None


def test_a_curve_without_noise_is_judged_too():
    t = np.arange(1, 41) / 40
    assert saturation_point(t, t**-0.5) is None
    assert saturation_point(t, np.ones(40)) is None
    point = saturation_point(t, (t - 0.5) ** 2)
    assert point.low <= 0.5 <= point.high


def test_neither_the_unit_of_the_loss_nor_that_of_the_step_matters():
    t = np.arange(1, 101.0)
    loss = ((t - 60) / 60) ** 2 + noise(np.random.default_rng(2), 100, 0.3, 0.03)
    one, other = saturation_point(t, loss), saturation_point(10 * t, 7 - 3 + 4 * loss)
    assert (10 * one.step, 10 * one.low, 10 * one.high) == pytest.approx(
        (other.step, other.low, other.high)
    )
    assert (4 * one.rise, one.p_value) == pytest.approx((other.rise, other.p_value))
    assert saturation_point(t, loss) == one


@pytest.mark.parametrize(
    "steps, losses, message",
    [
        (range(11), range(11), "11 points are too few"),
        (range(20), range(19), "one loss a step"),
        ([*range(19), 18], range(20), "step 18 comes after step 18"),
        (range(20), [*range(19), np.nan], "the loss at step 19 is nan"),
    ],
)
def test_bad_curves_say_what_is_wrong(steps, losses, message):
    with pytest.raises(InputError, match=message):
        saturation_point(list(steps), list(losses))


def test_a_window_is_a_share_of_the_curve():
    with pytest.raises(InputError, match="smooth=10"):
        saturation_point(range(20), range(20), smooth=10)
