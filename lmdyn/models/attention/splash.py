"""Splash attention, the TPU kernel of JAX's Pallas library: blocks nobody sees are not computed.

It wants whole tiles of 128 queries and keys, and heads that fill half a register of 128 numbers or
whole ones: what is missing is padded with zeros, which nothing sees.

Shape letters: B batch, T queries, S keys (S >= T: the last T keys are the queries' own), H heads, G
key-value heads, K head width.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lmdyn.models import products
from lmdyn.models.attention.reach import CAUSAL, Reach, padded_segments

TILE = 128


class _Shapes(NamedTuple):
    """What a kernel is compiled for, all of it static."""

    heads: int
    queries: int
    keys: int
    past: int
    window: int | None


def splash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    reach: Reach = CAUSAL,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Softmax attention of scaled queries, for a TPU.

    Args:
      query: `[B, T, H, K]`, already multiplied by `1 / sqrt(K)`.
      key: `[B, S, G, K]`, S >= T.
      value: `[B, S, G, K]`.
      reach: what a query may see.
      interpret: whether the kernel is interpreted, which any device can do, slowly.

    Returns:
      `[B, T, H, K]`.

    >>> x = jnp.ones([1, 3, 2, 4])
    >>> splash_attention(x, x, x, interpret=True).shape
    (1, 3, 2, 4)
    """
    (_, length, heads, width), past = query.shape, key.shape[1] - query.shape[1]
    queries = -(-length // TILE) * TILE
    keys = -(-(queries + past) // TILE) * TILE  # so that padded queries see something, too
    wide = TILE // 2 if width <= TILE // 2 else -(-width // TILE) * TILE

    def whole(x, rows):  # [B, T, H, K] to [B, H, rows, wide]
        ends = ((0, 0), (0, rows - x.shape[1]), (0, 0), (0, wide - width))
        return jnp.pad(x, ends).transpose(0, 2, 1, 3)

    arrays = (whole(query, queries), whole(key, keys), whole(value, keys))
    segments = padded_segments(reach, queries, keys)
    shapes = _Shapes(heads, queries, keys, past, reach.window)
    output: Any = _attend(shapes, interpret, arrays, segments)
    return output.transpose(0, 2, 1, 3)[:, :length, :, :width]


@functools.lru_cache(maxsize=64)
def _kernel(shapes: _Shapes, interpret: bool):
    """The library's kernel of one row of a batch; which blocks it visits is found out here."""
    from jax.experimental.pallas.ops.tpu import splash_attention as library

    whole = (shapes.queries, shapes.keys)
    mask: Any = library.CausalMask(whole, offset=shapes.past)
    if shapes.window is not None:
        mask = library.LocalMask(whole, window_size=(shapes.window - 1, 0), offset=shapes.past)
    # The largest blocks that divide the sequences: fewer steps, each with more to do.
    q, k = (next(b for b in (512, 256, TILE) if n % b == 0) for n in whole)
    sizes = library.BlockSizes(
        block_q=q,
        block_kv=k,
        block_kv_compute=k,
        block_q_dkv=q,
        block_kv_dkv=k,
        block_kv_dkv_compute=k,
        block_q_dq=q,
        block_kv_dq=k,
    )
    with jax.ensure_compile_time_eval():  # kept for later programs, so no value of one of them
        return library.make_splash_mha(
            library.MultiHeadMask([mask] * shapes.heads),
            block_sizes=sizes,
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )


def _run(shapes, interpret, arrays, segments):
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    kernel = _kernel(shapes, interpret)
    if segments is None:
        return jax.vmap(kernel)(*arrays)
    one = lambda q, k, v, of_queries, of_keys: kernel(q, k, v, SegmentIds(of_queries, of_keys))
    return jax.vmap(one)(*arrays, *segments)


# The library's kernel multiplies at JAX's default precision, which is read when a pass is traced:
# the backward pass is traced here too, so that float32 is float32 in both.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(shapes, interpret, arrays, segments):
    with products.within(arrays[0].dtype):
        return _run(shapes, interpret, arrays, segments)


def _attend_forward(shapes, interpret, arrays, segments):
    with products.within(arrays[0].dtype):
        return jax.vjp(lambda a: _run(shapes, interpret, a, segments), arrays)


def _attend_backward(shapes, interpret, pull, d_output):
    with products.within(d_output.dtype):
        return *pull(d_output), None


_attend.defvjp(_attend_forward, _attend_backward)
