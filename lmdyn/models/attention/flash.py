"""Flash attention for NVIDIA GPUs, in Pallas: documents, caches, windows, and float32 as float32.

One program goes through the blocks of keys that its block of queries sees, with a running softmax
(Dao et al. 2022, arXiv 2205.14135; Dao 2023, arXiv 2307.08691). Which blocks these are is found out
before, from causal order, window and segments, so that of packed documents only the diagonal is
computed. The backward pass has one kernel for queries, and one for keys and values.

Shape letters, also as suffixes of names: B batch, T queries, q queries of a block, S keys (S >= T:
the last T keys are the queries' own), k keys of a block, H heads, G key-value heads, R = H / G
heads that share one, K head width.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lmdyn.models.attention.reach import CAUSAL, Reach, padded_segments
from lmdyn.models.products import contract

MASKED = -1e30


class _Plan(NamedTuple):
    """What the kernels are compiled for, all of it static; lengths are whole blocks."""

    heads: int
    groups: int
    past: int
    window: int | None
    forward: tuple[int, int]
    """Queries and keys of a block, in the forward pass."""
    backward: tuple[int, int]
    interpret: bool


def flash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    reach: Reach = CAUSAL,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Softmax attention of scaled queries, for an NVIDIA GPU.

    Args:
      query: `[B, T, H, K]`, already multiplied by `1 / sqrt(K)`.
      key: `[B, S, G, K]`, S >= T.
      value: `[B, S, G, K]`.
      reach: what a query may see.
      interpret: whether the kernels are interpreted, which any device can do, slowly.

    Returns:
      `[B, T, H, K]`.

    >>> x = jnp.ones([1, 3, 2, 4])
    >>> flash_attention(x, x, x, interpret=True).shape
    (1, 3, 2, 4)
    """
    (_, length, heads, width), past = query.shape, key.shape[1] - query.shape[1]
    # Blocks, and so heads and sequences, are powers of 2; zeros at their ends are seen by nothing.
    wide = max(16, 1 << (width - 1).bit_length())
    forward, backward = _block_sizes(wide * query.dtype.itemsize, length)
    plan = _Plan(heads, key.shape[2], past, reach.window, forward, backward, interpret)
    up = lambda n, *blocks: -(-n // max(blocks)) * max(blocks)
    queries = up(length, forward[0], backward[0])
    keys = up(queries + past, forward[1], backward[1])

    def whole(x, rows):
        return jnp.pad(x, ((0, 0), (0, rows - x.shape[1]), (0, 0), (0, wide - width)))

    arrays = whole(query, queries), whole(key, keys), whole(value, keys)
    output: Any = _attend(plan, *arrays, padded_segments(reach, queries, keys))
    return output[:, :length, :, :width]


def _block_sizes(row_bytes, length):
    """Queries and keys of a block, forward and backward: what a multiprocessor's memory holds."""
    forward = (128, 64) if row_bytes <= 128 else (64, 64) if row_bytes <= 256 else (32, 32)
    backward = (64, 64) if row_bytes <= 256 else (32, 32)
    shortest = max(16, 1 << (length - 1).bit_length())
    return tuple((min(q, shortest), k) for q, k in (forward, backward))


def _visible_blocks(plan, queries, keys, segments, sizes):
    """`[B or 1, T / q, S / k]` booleans: whether a block of keys may hold one that a query sees.

    Of segments it is enough that the ranges of their numbers meet.
    """
    q, k = sizes
    query_start = jnp.arange(0, queries, q)[:, None] + plan.past
    key_start = jnp.arange(0, keys, k)[None]
    visible = key_start <= query_start + q - 1
    if plan.window is not None:
        visible &= key_start + k - 1 > query_start - plan.window
    if segments is None:
        return visible[None]
    low, high = (
        [f(s.reshape(len(s), -1, size), 2) for s, size in zip(segments, sizes, strict=True)]
        for f in (jnp.min, jnp.max)
    )
    meet = (low[0][:, :, None] <= high[1][:, None]) & (low[1][:, None] <= high[0][:, :, None])
    return visible & meet


def _spans(visible):
    """The first of the blocks along the last axis, and the end after the last; `[..., n]` int32."""
    count, some = visible.shape[-1], visible.any(-1)
    first = jnp.argmax(visible, -1)
    end = count - jnp.argmax(visible[..., ::-1], -1)
    return jnp.where(some, first, 0).astype(jnp.int32), jnp.where(some, end, 0).astype(jnp.int32)


def _allowed(plan, query_start, key_start, query_segment, key_segment, sizes):
    """`[q, k]` booleans of one block of each."""
    q, k = sizes
    query = query_start + plan.past + jax.lax.broadcasted_iota(jnp.int32, (q, k), 0)
    key = key_start + jax.lax.broadcasted_iota(jnp.int32, (q, k), 1)
    allowed = key <= query
    if plan.window is not None:
        allowed &= key > query - plan.window
    if query_segment is not None:
        allowed &= query_segment[:, None] == key_segment[None, :]
    return allowed


def _forward_kernel(plan, segmented, *refs):
    """Output `[q, K]` and log-normalisers `[q]` of one block of queries of one head."""
    from jax.experimental import pallas

    first, end, query, key, value, *segments, output, normalizer = refs
    (q, k), start = plan.forward, pallas.program_id(0) * plan.forward[0]
    query_qK = query[...]
    query_segment = segments[0][...] if segmented else None

    def step(block, carry):
        total_qK, peak, mass = carry
        at = pallas.ds(block * k, k)
        key_segment = segments[1][at] if segmented else None
        allowed = _allowed(plan, start, block * k, query_segment, key_segment, (q, k))
        scores = jnp.where(allowed, contract(query_qK, key[at, :], (1, 1)), MASKED)
        # The softmax so far is brought to the new peak; a row that saw nothing yet is wiped.
        higher = jnp.maximum(peak, scores.max(1))
        shrink, weights = jnp.exp(peak - higher), jnp.exp(scores - higher[:, None])
        more = contract(weights.astype(value.dtype), value[at, :], (1, 0))
        return total_qK * shrink[:, None] + more, higher, mass * shrink + weights.sum(1)

    begin = jnp.zeros(query_qK.shape, jnp.float32), jnp.full((q,), MASKED), jnp.zeros((q,))
    total_qK, peak, mass = jax.lax.fori_loop(first[...], end[...], step, begin)
    output[...] = (total_qK / mass[:, None]).astype(output.dtype)
    normalizer[...] = peak + jnp.log(mass)


def _query_kernel(plan, segmented, *refs):
    """The gradient `[q, K]` of one block of queries of one head."""
    from jax.experimental import pallas

    first, end, query, key, value, d_output, normalizer, delta, *segments, d_query = refs
    (q, k), start = plan.backward, pallas.program_id(0) * plan.backward[0]
    query_qK, d_output_qK = query[...], d_output[...]
    normalizer_q, delta_q = normalizer[...], delta[...]
    query_segment = segments[0][...] if segmented else None

    def step(block, total_qK):
        at = pallas.ds(block * k, k)
        key_segment = segments[1][at] if segmented else None
        allowed = _allowed(plan, start, block * k, query_segment, key_segment, (q, k))
        scores = jnp.where(allowed, contract(query_qK, key[at, :], (1, 1)), MASKED)
        # P = exp(S - log-normaliser), dP = dO V^T, dS = P * (dP - delta), dQ = dS K
        weights = jnp.exp(scores - normalizer_q[:, None])
        d_weights = contract(d_output_qK, value[at, :], (1, 1))
        d_scores = (weights * (d_weights - delta_q[:, None])).astype(key.dtype)
        return total_qK + contract(d_scores, key[at, :], (1, 0))

    begin = jnp.zeros(query_qK.shape, jnp.float32)
    total_qK = jax.lax.fori_loop(first[...], end[...], step, begin)
    d_query[...] = total_qK.astype(d_query.dtype)


def _key_kernel(plan, segmented, *refs):
    """The gradients `[k, K]` of one block of keys and values of one group of R heads."""
    from jax.experimental import pallas

    first, end, query, key, value, d_output, normalizer, delta, *segments, d_key, d_value = refs
    (q, k), start = plan.backward, pallas.program_id(0) * plan.backward[1]
    key_kK, value_kK, begin = key[...], value[...], first[...]
    key_segment = segments[1][...] if segmented else None
    blocks = end[...] - begin

    def step(number, carry):
        d_key_kK, d_value_kK = carry
        # Head by head of the group, and in each block by block of queries.
        head = jax.lax.div(number, blocks)
        block = begin + jax.lax.rem(number, blocks)
        at = pallas.ds(block * q, q)
        query_segment = segments[0][at] if segmented else None
        allowed = _allowed(plan, block * q, start, query_segment, key_segment, (q, k))
        query_qK, d_output_qK = query[at, head, :], d_output[at, head, :]
        scores = jnp.where(allowed, contract(query_qK, key_kK, (1, 1)), MASKED)
        # dV = P^T dO, dK = dS^T Q
        weights = jnp.exp(scores - normalizer[head, at][:, None])
        d_weights = contract(d_output_qK, value_kK, (1, 1))
        d_scores = (weights * (d_weights - delta[head, at][:, None])).astype(query.dtype)
        d_value_kK += contract(weights.astype(d_output.dtype), d_output_qK, (0, 0))
        return d_key_kK + contract(d_scores, query_qK, (0, 0)), d_value_kK

    zeros = jnp.zeros(key_kK.shape, jnp.float32)
    share = plan.heads // plan.groups
    found = jax.lax.fori_loop(0, share * blocks, step, (zeros, zeros))
    d_key[...], d_value[...] = found[0].astype(d_key.dtype), found[1].astype(d_value.dtype)


def _call(kernel, plan, spans, arrays, segments, specs, outputs, grid) -> Any:
    """Runs a kernel; `specs` are of `arrays`, `segments` and `outputs`, in this order."""
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    whole = grid[1] // len(spans[0])  # programs of one row of spans: all of them, or one batch's
    one = pallas.BlockSpec((None, None), lambda i, n: (jax.lax.div(n, whole), i))
    inputs = (*spans, *arrays, *(segments or ()))
    taken = specs[: len(arrays)] + (specs[len(arrays) : len(arrays) + 2] if segments else [])
    wide = arrays[0].shape[-1]
    return pallas.pallas_call(
        functools.partial(kernel, plan, segments is not None),
        grid=grid,
        in_specs=[one, one, *taken],
        out_specs=specs[len(arrays) + 2 :],
        out_shape=outputs,
        interpret=plan.interpret,
        compiler_params=triton.CompilerParams(num_warps=4 if wide <= 64 else 8, num_stages=2),
    )(*inputs)


def _specs(plan, shapes, sizes, by_key):
    """Where the arrays' parts of a program `(block, batch and head)` lie.

    A program has one block of queries and all keys of a head; `by_key`: one block of keys, and all
    queries of a group of heads.
    """
    from jax.experimental.pallas import BlockSpec

    (_, queries, _, wide), (_, keys, _, _) = shapes
    (q, k), share = sizes, plan.heads // plan.groups
    div, rem = jax.lax.div, jax.lax.rem
    if by_key:
        batch, group = lambda n: div(n, plan.groups), lambda n: rem(n, plan.groups)
        return {
            "query": BlockSpec(
                (None, queries, share, wide), lambda i, n: (batch(n), 0, group(n), 0)
            ),
            "key": BlockSpec((None, k, None, wide), lambda i, n: (batch(n), i, group(n), 0)),
            "row": BlockSpec((None, share, queries), lambda i, n: (batch(n), group(n), 0)),
            "query_segment": BlockSpec((None, queries), lambda i, n: (batch(n), 0)),
            "key_segment": BlockSpec((None, k), lambda i, n: (batch(n), i)),
        }
    batch, head = lambda n: div(n, plan.heads), lambda n: rem(n, plan.heads)
    return {
        "query": BlockSpec((None, q, None, wide), lambda i, n: (batch(n), i, head(n), 0)),
        "key": BlockSpec(
            (None, keys, None, wide), lambda i, n: (batch(n), 0, div(head(n), share), 0)
        ),
        "row": BlockSpec((None, None, q), lambda i, n: (batch(n), head(n), i)),
        "query_segment": BlockSpec((None, q), lambda i, n: (batch(n), i)),
        "key_segment": BlockSpec((None, keys), lambda i, n: (batch(n), 0)),
    }


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan, query, key, value, segments):
    return _attend_forward(plan, query, key, value, segments)[0]


def _attend_forward(plan, query, key, value, segments):
    batch, queries, heads, _ = query.shape
    visible = _visible_blocks(plan, queries, key.shape[1], segments, plan.forward)
    specs = _specs(plan, (query.shape, key.shape), plan.forward, by_key=False)
    names = ("query", "key", "key", "query_segment", "key_segment", "query", "row")
    output, normalizer = _call(
        _forward_kernel,
        plan,
        _spans(visible),
        (query, key, value),
        segments,
        [specs[name] for name in names],
        [
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct((batch, heads, queries), jnp.float32),
        ],
        (queries // plan.forward[0], batch * heads),
    )
    return output, (query, key, value, segments, output, normalizer)


def _attend_backward(plan, saved, d_output):
    query, key, value, segments, output, normalizer = saved
    (batch, queries, heads, _), keys = query.shape, key.shape[1]
    # delta_t = sum_s P_ts dP_ts = dO_t . O_t (Dao et al. 2022, appendix B.4)
    delta = jnp.sum(d_output.astype(jnp.float32) * output, -1).transpose(0, 2, 1)
    arrays = (query, key, value, d_output, normalizer, delta)
    inputs = ("query", "key", "key", "query", "row", "row", "query_segment", "key_segment")
    visible = _visible_blocks(plan, queries, keys, segments, plan.backward)
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)

    def run(kernel, spans, by_key, outputs, grid):
        specs = _specs(plan, (query.shape, key.shape), plan.backward, by_key)
        results = "key" if by_key else "query"
        chosen = [specs[name] for name in inputs] + [specs[results]] * len(outputs)
        return _call(kernel, plan, spans, arrays, segments, chosen, outputs, grid)

    q, k = plan.backward
    [d_query] = run(
        _query_kernel, _spans(visible), False, [like(query)], (queries // q, batch * heads)
    )
    d_key, d_value = run(
        _key_kernel,
        _spans(visible.swapaxes(1, 2)),
        True,
        [like(key), like(value)],
        (keys // k, batch * plan.groups),
    )
    return d_query, d_key, d_value, None


_attend.defvjp(_attend_forward, _attend_backward)
