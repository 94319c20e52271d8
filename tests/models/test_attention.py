"""Attention kernels against the textbook formula and the library's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmdyn.models.attention import blocked_attention
from tests.helpers import assert_close


def naive_attention(query, key, value, allowed):
    """The textbook formula: `softmax(q k) v` with all scores at once."""
    share = query.shape[2] // key.shape[2]
    key, value = np.repeat(key, share, 2), np.repeat(value, share, 2)
    scores = np.where(allowed, np.einsum("bthk,bshk->bhts", query, key), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhts,bshk->bthk", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("length, past", [(1, 0), (7, 0), (131, 0), (300, 0), (5, 9), (200, 131)])
def test_blocked_attention_is_the_textbook_formula(length, past):
    rng = np.random.default_rng(length)
    query = rng.normal(size=(2, length, 6, 5)).astype(np.float32)
    key, value = rng.normal(size=(2, 2, length + past, 2, 5)).astype(np.float32)
    allowed = np.arange(length + past)[None] <= np.arange(length)[:, None] + past
    assert_close(
        blocked_attention(query, key, value)[0], naive_attention(query, key, value, allowed), 1e-5
    )


def test_attention_gradient_is_that_of_the_library():
    rng = np.random.default_rng(0)
    query = rng.normal(size=(2, 300, 6, 5)).astype(np.float32)
    key, value = rng.normal(size=(2, 2, 300, 2, 5)).astype(np.float32)
    out = rng.normal(size=query.shape).astype(np.float32)
    ours = jax.jit(jax.grad(lambda *a: jnp.sum(blocked_attention(*a)[0] * out), (0, 1, 2)))(
        query, key, value
    )
    library = lambda *a: jnp.sum(jax.nn.dot_product_attention(*a, is_causal=True, scale=1.0) * out)
    for found, wanted in zip(
        ours, jax.jit(jax.grad(library, (0, 1, 2)))(query, key, value), strict=True
    ):
        assert_close(found, wanted, 1e-5)


@pytest.mark.parametrize("past", [0, 300])
def test_attention_rounds_alike_with_and_without_a_gradient(past):
    """Bit for bit, at a size where the compiler has something to fuse: else a rate of zero would
    not equal static.
    """
    rng = np.random.default_rng(0)
    query = rng.normal(size=(1, 512, 9, 64)).astype(np.float32)
    key, value = rng.normal(size=(2, 1, 512 + past, 3, 64)).astype(np.float32)

    def objective(*arrays):
        out = blocked_attention(*arrays)[0]
        return jnp.sum(out * out), out

    plain = jax.jit(lambda *arrays: objective(*arrays)[1])(query, key, value)
    _, beside_gradient = jax.jit(jax.grad(objective, (0, 1, 2), has_aux=True))(query, key, value)
    np.testing.assert_array_equal(beside_gradient, plain)
