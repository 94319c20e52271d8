"""Effects of factors, against least squares."""

import numpy as np
import pytest
from scipy import stats

from lmdyn.analysis import factorials
from lmdyn.errors import InputError

RANDOM = np.random.default_rng(0)


def test_effects_are_those_of_least_squares():
    design = factorials.fraction(("a", "b", "c", "d"), {"d": ("a", "b", "c")})
    assert design.shape == (8, 4) and (design.sum(0) == 0).all()
    response = 3 + design @ np.array([0.5, 0.0, -1.0, 2.0]) + 0.1 * RANDOM.normal(size=8)
    found = factorials.effects(design, response)
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
    design = factorials.fraction(names, {"e": ("a", "b", "c"), "f": ("b", "c", "d")})
    assert design.shape == (16, 6)
    pairs = np.stack([design[:, i] * design[:, j] for i in range(6) for j in range(i)])
    assert not (pairs @ design).any()  # no main effect is that of an interaction of two


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: factorials.fraction(("a", "b"), {"b": ("c",)}), "'c' is not a free factor"),
        (lambda: factorials.effects([[-1], [1]], [1.0, 2.0]), "make at least 3"),
        (lambda: factorials.effects([[-1], [1], [1]], [1.0, 2.0, 3.0]), "not orthogonal"),
    ],
)
def test_designs_that_say_nothing_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
