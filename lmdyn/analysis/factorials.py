"""Two-level factorial experiments: which runs to make, and what each factor did.

See Box, Hunter and Hunter 2005, chapters 5 and 6.

Shape letters: R runs, F factors.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from lmdyn.analysis.statistics import LEVEL, Interval
from lmdyn.errors import InputError
from lmdyn.types import ArrayLike


def fraction(
    factors: tuple[str, ...], generators: dict[str, tuple[str, ...]] | None = None
) -> np.ndarray:
    """The runs of a two-level design.

    All combinations of the free factors; a generated factor's level is the product of others'.

    Args:
      factors: their names.
      generators: `{factor: factors whose product it is}`.

    Returns:
      `[R, F]` of -1 and 1, `R = 2 ** (F - len(generators))`.

    Raises:
      InputError: a generator that names no factor, or a generated one.

    >>> fraction(("a", "b", "c"), {"c": ("a", "b")}).tolist()
    [[-1, -1, 1], [-1, 1, -1], [1, -1, -1], [1, 1, 1]]
    """
    generators = generators or {}
    free = [name for name in factors if name not in generators]
    for name, words in generators.items():
        for word in (name, *words):
            if word not in factors or (word in generators and word != name):
                raise InputError(
                    f"generator {name}={'*'.join(words)}: '{word}' is not a free factor; those are:"
                    f" {', '.join(free)}"
                )
    runs = []
    for levels in itertools.product((-1, 1), repeat=len(free)):
        known = dict(zip(free, levels, strict=True))
        runs.append(
            [
                known.get(name) or math.prod(known[word] for word in generators[name])
                for name in factors
            ]
        )
    return np.array(runs)


class Effects(NamedTuple):
    """The effects of a factorial design. Made by `effects`.

    Attributes:
      mean: the mean response.
      effects: one per factor: the response at its high level minus that at its low level.
    """

    mean: Interval
    effects: list[Interval]


def check_design(design: ArrayLike) -> None:
    """Checks that a design can tell its effects apart.

    Args:
      design: as for `effects`.

    Raises:
      InputError: no more runs than factors and the mean need, or columns that are not orthogonal.

    >>> check_design([[-1.0], [1.0]])
    Traceback (most recent call last):
    lmdyn.errors.InputError: 2 runs cannot tell 1 effects, their mean and the noise apart; make at
    least 3
    """
    design = np.asarray(design, np.float64)
    runs, factors = design.shape
    if runs - factors < 2:
        raise InputError(
            f"{runs} runs cannot tell {factors} effects, their mean and the noise apart; make at"
            f" least {factors + 2}"
        )
    full = np.column_stack([np.ones(runs), design])
    if not np.allclose(full.T @ full, runs * np.eye(factors + 1)):
        raise InputError(
            "the design is not orthogonal; use all runs of a fraction, each as often as the others"
        )


def effects(design: ArrayLike, response: ArrayLike, level: float = LEVEL) -> Effects:
    """Main effects by least squares, with Student's t intervals.

    The noise is what the main effects leave. Interactions are part of it, so the intervals are wide
    where factors interact.

    Args:
      design: `[R, F]` of -1 and 1, orthogonal.
      response: `[R]`, one per run.
      level: coverage of the intervals.

    Raises:
      InputError: no more runs than factors and the mean need.

    >>> design = fraction(("a", "b"))
    >>> found = effects(np.tile(design, (2, 1)), [1.0, 2.0, 5.0, 6.0, 1.1, 2.1, 5.1, 6.1])
    >>> [round(one.mean, 3) for one in found.effects], round(found.mean.mean, 3)
    ([4.0, 1.0], 3.55)
    """
    check_design(design)
    design, response = np.asarray(design, np.float64), np.asarray(response, np.float64)
    runs, factors = design.shape
    free = runs - factors - 1
    full = np.column_stack([np.ones(runs), design])
    found = full.T @ response / runs
    left = response - full @ found
    error = math.sqrt(float(left @ left) / free / runs)
    half = float(stats.t.ppf((1 + level) / 2, free)) * error
    about = lambda value, by: Interval(
        float(by * value), float(by * (value - half)), float(by * (value + half)), runs
    )
    return Effects(about(found[0], 1), [about(value, 2) for value in found[1:]])
