"""cuDNN's flash attention, through `jax.nn.dot_product_attention`.

For 16-bit numbers on an NVIDIA GPU, where a reach is causal order or a window. Documents would need
a dense mask here: the library's own way to pack them is not public, and with grouped heads some
versions of it read the keys of other tokens.

Shape letters: B batch, T tokens, H heads, G key-value heads, K head width.
"""

import jax
import jax.numpy as jnp

from lmdyn.models.attention.reach import CAUSAL, Reach


def cudnn_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, reach: Reach = CAUSAL
) -> jax.Array:
    """Softmax attention of scaled queries, forward and backward by cuDNN.

    Args:
      query: `[B, T, H, K]` bfloat16 or float16, already multiplied by `1 / sqrt(K)`.
      key: `[B, T, G, K]`; as many as queries, since cuDNN counts causal order from the first key.
      value: `[B, T, G, K]`.
      reach: without segments.

    Returns:
      `[B, T, H, K]`.

    >>> x = jax.ShapeDtypeStruct((1, 4, 2, 8), jnp.bfloat16)
    >>> cudnn_attention(x, x, x, Reach(query_segment=x))  # on any device
    Traceback (most recent call last):
    ValueError: cuDNN's attention knows no segments, and needs as many keys as queries
    """
    if reach.query_segment is not None or key.shape[1] != query.shape[1]:
        raise ValueError("cuDNN's attention knows no segments, and needs as many keys as queries")
    width = query.shape[-1]
    # Heads are 8 numbers wide, or a multiple: zeros beside them change no score.
    wide = ((0, 0), (0, 0), (0, 0), (0, -width % 8))
    query, key, value = (jnp.pad(x, wide) for x in (query, key, value))
    output = jax.nn.dot_product_attention(
        query,
        key,
        value,
        is_causal=True,
        # Keys before a query's own; the library's pair is (before, after).
        local_window_size=None if reach.window is None else (reach.window - 1, 0),
        scale=1.0,
        implementation="cudnn",
    )
    return output[..., :width]
