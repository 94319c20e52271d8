"""The gradient through online updates, against differences of the nll itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmdyn import online
from lmdyn.errors import InputError
from lmdyn.online.meta_gradients import meta_gradient
from tests.helpers import assert_close, small, tokens
from tests.online.helpers import chunked, evaluate

RATE, CHUNKS = (
    0.2,
    chunked(tokens(18), chunk=5, context=online.none()),
)  # the last chunk is ragged


@functools.cache
def slope(order):
    model, params = small(scale=3.0)
    return jax.jit(functools.partial(meta_gradient, model, learning_rate=RATE, order=order))(
        params, CHUNKS
    )


def test_the_full_gradient_is_that_of_the_online_nll():
    """Central differences of what `online.evaluate` reports, along a few directions."""
    model, params = small(scale=3.0)
    nll = lambda p: evaluate(model, p, CHUNKS, chunk=5, optimizer=optax.sgd(RATE)).nll.mean(
        dtype=np.float64
    )
    found = slope("full")
    assert_close(found.nll, nll(params), 1e-5)
    rng, step = np.random.default_rng(0), 3e-3
    for _ in range(3):
        along = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params
        )
        norm = optax.tree.norm(along)
        along = jax.tree.map(
            lambda a, g, n=norm: a / n + g / optax.tree.norm(found.gradient), along, found.gradient
        )
        moved = [
            nll(jax.tree.map(lambda p, a, s=sign: p + s * step * a, params, along))
            for sign in (1, -1)
        ]
        wanted = (moved[0] - moved[1]) / (2 * step)
        assert optax.tree_utils.tree_vdot(found.gradient, along) == pytest.approx(wanted, rel=0.01)


def test_the_first_order_is_the_sum_of_the_updates():
    """By hand: gradients of the chunks, each at the parameters that it met; they are what moved the
    model.
    """
    model, params = small(scale=3.0)
    found = slope("first")
    after = evaluate(model, params, CHUNKS, chunk=5, optimizer=optax.sgd(RATE)).params
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), found.after, after)
    firsts = online.ChunkStream(
        *(None if part is None else part[:2] for part in CHUNKS)
    )  # two full chunks: equal weights
    only = jax.jit(functools.partial(meta_gradient, model, learning_rate=RATE))(params, firsts)
    moved = jax.tree.map(lambda old, new: (old - new) / RATE / 2, params, only.after)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-3), only.gradient, moved)
    assert_close(found.nll, slope("full").nll, 1e-6)
    apart = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), found.gradient, slope("full").gradient
    )
    assert max(jax.tree.leaves(apart)) > 1e-3


def test_an_unknown_order_is_refused():
    with pytest.raises(InputError, match="unknown order 'second'"):
        meta_gradient(*small(), CHUNKS, learning_rate=0.1, order="second")
