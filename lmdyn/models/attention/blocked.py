"""Causal attention in blocks of queries.

A block of queries meets the keys up to its own end only, and with a window none before it, so what
nobody may see is never computed; its probabilities live no longer than the block. The backward pass
recomputes them from queries, keys and the log-normaliser (Rabe and Staats 2021, arXiv 2112.05682;
Dao et al. 2022, arXiv 2205.14135).

This is the plain implementation, for every device, dtype and reach; the kernels are tested against
it, and it against the textbook formula.

Shape letters, also as suffixes of names: B batch, T queries, q queries of a block, S keys (S >= T:
the last T keys are the queries' own), H heads, G key-value heads, R = H / G heads that share one, K
head width.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lmdyn.models.attention.reach import CAUSAL, Reach, allowed_keys
from lmdyn.models.products import einsum, matmul
from lmdyn.types import Array, present

MASKED = -1e30


def query_blocks(
    queries: int, keys: int, window: int | None = None
) -> list[tuple[int, int, int, int]]:
    """Blocks of queries `start:stop`, each with the keys `first:end` that it meets.

    Args:
      queries: T.
      keys: S.
      window: how many keys a query sees at most.

    Returns:
      `[(start, stop, first, end), ...]`: at most 16 blocks, of 128 queries or more.

    >>> query_blocks(300, 310)
    [(0, 128, 0, 138), (128, 256, 0, 266), (256, 300, 0, 310)]
    >>> query_blocks(300, 310, window=100)
    [(0, 128, 0, 138), (128, 256, 39, 266), (256, 300, 167, 310)]
    """
    size, past = max(128, -(-queries // 16)), keys - queries
    first = lambda start: 0 if window is None else max(0, past + start - window + 1)
    return [
        (a, min(a + size, queries), first(a), past + min(a + size, queries))
        for a in range(0, queries, size)
    ]


def _grouped(x, groups):
    """`[B, T, H, K]` to `[B, G, R, T, K]`."""
    batch, length, heads, width = x.shape
    return x.reshape(batch, length, groups, heads // groups, width).transpose(0, 2, 3, 1, 4)


def _ungrouped(x):
    batch, groups, share, length, width = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(batch, length, groups * share, width)


def _rows(x, start, stop):
    """Queries `start:stop` of `[B, G, R, T, K]`, as `[B, G, R * q, K]`.

    Everything between two products keeps these flat rows: a reshape in between keeps XLA from
    fusing (2.7 times the time of the backward pass on a CPU).
    """
    batch, groups, share, _, width = x.shape
    return x[:, :, :, start:stop].reshape(batch, groups, share * (stop - start), width)


def _heads(x, share):
    """`[B, G, R * q, K]` to `[B, G, R, q, K]`."""
    batch, groups, rows, width = x.shape
    return x.reshape(batch, groups, share, rows // share, width)


def _scores(query, key, allowed):
    """Masked scores `[B, G, R * q, S]` of one block, in float32."""
    scores = einsum("bgqk,bgsk->bgqs", query, key)
    return jnp.where(allowed, scores, MASKED)


def blocked_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    reach: Reach = CAUSAL,
    tap: Callable | None = None,
    mask: Array | None = None,
) -> tuple[jax.Array, Any]:
    """Softmax attention of scaled queries.

    Args:
      query: `[B, T, H, K]`, already multiplied by `1 / sqrt(K)`.
      key: `[B, S, G, K]`, S >= T.
      value: `[B, S, G, K]`.
      reach: what a query may see.
      tap: None, or a reducer `(probabilities [B, G, R, q, S'], mask [B, q]) -> sums over queries`,
        called once a block of queries; the blocks' sums are added.
      mask: `[B, T]` booleans for `tap`: which queries count.

    Returns:
      `[B, T, H, K]`, and what `tap` gathered (None without it).

    >>> x = jnp.ones([1, 3, 2, 4])
    >>> blocked_attention(x, x, x)[0].shape
    (1, 3, 2, 4)
    """
    if tap is None:
        return _attend(query, key, value, reach), None
    query_BGRTK, key_BGSK, value_BGSK = _by_group(query, key, value)
    past, share = key.shape[1] - query.shape[1], query_BGRTK.shape[2]
    # Each block of queries sees the keys up to its end, and gives its probabilities to the tap.
    outputs, gathered = [], None
    for start, stop, first, end in query_blocks(query.shape[1], key.shape[1], reach.window):
        allowed = allowed_keys(reach, start, stop, first, end, past, share)
        scores = _scores(_rows(query_BGRTK, start, stop), key_BGSK[:, :, first:end], allowed)
        probabilities = jax.nn.softmax(scores, axis=-1)
        outputs.append(
            _heads(matmul(probabilities.astype(value.dtype), value_BGSK[:, :, first:end]), share)
        )
        sums = tap(_heads(probabilities, share), present(mask)[:, start:stop])
        gathered = sums if gathered is None else jax.tree.map(jnp.add, gathered, sums)
    return _ungrouped(jnp.concatenate(outputs, 3)), gathered


def _by_group(query, key, value):
    """Queries `[B, G, R, T, K]`, keys and values `[B, G, S, K]`."""
    return (_grouped(query, key.shape[2]), key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3))


@jax.custom_vjp
def _attend(query, key, value, reach):
    return _attend_forward(query, key, value, reach)[0]


def _attend_forward(query, key, value, reach):
    query_BGRTK, key_BGSK, value_BGSK = _by_group(query, key, value)
    past, share = key.shape[1] - query.shape[1], query_BGRTK.shape[2]
    outputs, normalizers = [], []
    for start, stop, first, end in query_blocks(query.shape[1], key.shape[1], reach.window):
        # Scores of one block, [B, G, R * q, S'], and the log of their softmax's denominator.
        allowed = allowed_keys(reach, start, stop, first, end, past, share)
        scores = _scores(_rows(query_BGRTK, start, stop), key_BGSK[:, :, first:end], allowed)
        peak = scores.max(-1, keepdims=True)
        # Probabilities come from the log-normaliser, as in the backward pass, and not from a
        # division by the sum: a second use of the sum would let the compiler round differently with
        # and without a gradient.
        normalizer = peak + jnp.log(jnp.exp(scores - peak).sum(-1, keepdims=True))
        probabilities = jnp.exp(scores - normalizer).astype(value.dtype)
        outputs.append(_heads(matmul(probabilities, value_BGSK[:, :, first:end]), share))
        normalizers.append(_heads(normalizer, share))
    output = jnp.concatenate(outputs, 3)
    saved = (query_BGRTK, key_BGSK, value_BGSK, output, jnp.concatenate(normalizers, 3), reach)
    return _ungrouped(output), saved


def _attend_backward(saved, d_output):
    query, key, value, output, normalizer, reach = saved
    batch, groups, share, length, width = query.shape
    past = key.shape[2] - length
    d_output = _grouped(d_output, groups)
    # delta_t = sum_s P_ts dP_ts = dO_t . O_t (Dao et al. 2022, appendix B.4)
    delta = jnp.sum(d_output.astype(jnp.float32) * output, -1, keepdims=True)
    # Gradients of keys and values are built as [B, G, K, S]: a product whose left side is
    # contracted over its row axis is half as fast on a CPU when that side is the large one.
    wide = (batch, groups, width, key.shape[2])
    d_query, d_key, d_value = [], jnp.zeros(wide, jnp.float32), jnp.zeros(wide, jnp.float32)
    for start, stop, first, end in query_blocks(length, key.shape[2], reach.window):
        # P = exp(S - log-normaliser), made again from the block's queries and keys.
        q, d_o, norm, d = (_rows(x, start, stop) for x in (query, d_output, normalizer, delta))
        allowed = allowed_keys(reach, start, stop, first, end, past, share)
        probabilities = jnp.exp(_scores(q, key[:, :, first:end], allowed) - norm)
        # dP = dO V^T, dS = P * (dP - delta), dQ = dS K
        d_probabilities = einsum("bgqk,bgsk->bgqs", d_o, value[:, :, first:end])
        d_scores = (probabilities * (d_probabilities - d)).astype(key.dtype)
        d_query.append(_heads(matmul(d_scores, key[:, :, first:end]), share))
        # dK = dS^T Q and dV = P^T dO, summed over blocks of queries
        others = ((0, 0), (0, 0), (0, 0), (first, key.shape[2] - end))
        d_key += jnp.pad(_transposed_product(q, d_scores), others)
        d_value += jnp.pad(_transposed_product(d_o, probabilities.astype(value.dtype)), others)
    back = lambda x, like: x.transpose(0, 3, 1, 2).astype(like.dtype)
    return _ungrouped(jnp.concatenate(d_query, 3)), back(d_key, key), back(d_value, value), None


def _transposed_product(x, weights):
    """`[B, G, K, S]` float32, the sum over a block's rows of x `[B, G, q, K]` by `[B, G, q, S]`."""
    return einsum("bgqk,bgqs->bgks", x, weights)


_attend.defvjp(_attend_forward, _attend_backward)
