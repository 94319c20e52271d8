"""Attention by `jax.nn.dot_product_attention`: XLA's, or cuDNN's flash attention.

Shape letters: B batch, T queries, S keys (S >= T: the last T keys are the queries' own), H heads, G
key-value heads, K head width.
"""

import functools
from typing import Any, cast

import jax

from lmdyn.models import products
from lmdyn.models.attention.reach import Reach, allowed_keys


@functools.partial(jax.jit, static_argnames="implementation")
def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    reach: Reach | None = None,
    *,
    implementation: str,
) -> jax.Array:
    """Softmax attention of scaled queries by `jax.nn.dot_product_attention`.

    Args:
      query: `[B, T, H, K]`, already multiplied by `1 / sqrt(K)`.
      key: `[B, S, G, K]`, S >= T.
      value: `[B, S, G, K]`.
      reach: a `Reach`, or None for plain causal order.
      implementation: `xla`, or `cudnn` for bfloat16 on an NVIDIA GPU.

    Returns:
      `[B, T, H, K]`.

    >>> x = jax.numpy.ones([1, 3, 2, 4])
    >>> dot_product_attention(x, x, x, implementation="xla").shape
    (1, 3, 2, 4)
    """
    length, keys = query.shape[1], key.shape[1]
    allowed = allowed_keys(reach, 0, length, keys, keys - length)
    plain = reach is None and keys == length
    with products.within(query.dtype):
        return jax.nn.dot_product_attention(
            query,
            key,
            value,
            mask=None if plain else allowed,
            is_causal=plain,
            scale=1.0,
            implementation=cast(Any, implementation),
        )
