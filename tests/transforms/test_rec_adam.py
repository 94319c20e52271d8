"""RecAdam is its algorithm, written out in float64; far after the middle it is Adam, far before it
nothing moves away.
"""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmdyn import transforms
from lmdyn.errors import InputError

RATE, STRENGTH, STEEPNESS, MIDDLE = 0.01, 20.0, 0.7, 5.0


def gradients(steps: int = 9):
    return np.random.default_rng(0).normal(size=(steps, 5)).astype(np.float32)


def trained(optimizer, start, steps: int = 9):
    params = jnp.asarray(start)
    state = optimizer.init(params)
    for gradient in gradients(steps):
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params)


def by_the_paper(start, old):
    """Chen et al. 2020, algorithm 1, right column."""
    theta, m, v = start.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(gradients(), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.astype(np.float64) ** 2
        adam = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        share = 1 / (1 + np.exp(-STEEPNESS * (t - MIDDLE)))
        theta = theta - RATE * (share * adam + (1 - share) * STRENGTH * (theta - old))
    return theta


@pytest.mark.parametrize("given", [False, True])
def test_it_is_the_algorithm_of_the_paper(given):
    start = np.linspace(-1, 1, 5, dtype=np.float32)
    old = start[::-1].copy() if given else start
    optimizer = transforms.rec_adam(RATE, STRENGTH, STEEPNESS, MIDDLE)
    if given:
        optimizer = optax.chain(
            optax.scale_by_adam(),
            transforms.recall(STRENGTH, STEEPNESS, MIDDLE, jnp.asarray(old)),
            optax.scale_by_learning_rate(RATE),
        )
    np.testing.assert_allclose(trained(optimizer, start), by_the_paper(start, old), rtol=1e-5)


def test_long_after_the_middle_it_is_adam_and_long_before_it_nothing_leaves():
    start = np.linspace(-1, 1, 5, dtype=np.float32)
    late = transforms.rec_adam(RATE, STRENGTH, STEEPNESS, middle=-1000.0, weight_decay=0.1)
    np.testing.assert_allclose(
        trained(late, start), trained(optax.adamw(RATE, weight_decay=0.1), start), rtol=1e-6
    )
    early = transforms.rec_adam(RATE, STRENGTH, STEEPNESS, middle=1000.0)
    np.testing.assert_array_equal(trained(early, start), start)


@pytest.mark.parametrize(
    "options, message", [((-1.0, 1.0), "strength=-1.0"), ((1.0, float("nan")), "steepness=nan")]
)
def test_bad_settings_are_errors(options, message):
    with pytest.raises(InputError, match=message):
        transforms.recall(*options, middle=0.0)
