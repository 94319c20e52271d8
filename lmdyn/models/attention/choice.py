"""Which attention kernel runs.

Shape letters: B batch, T queries, S keys, H heads, G key-value heads, K head width.
"""

from collections.abc import Callable
from typing import Any

import jax

from lmdyn.models.attention.blocked import blocked_attention
from lmdyn.models.attention.dot_product import dot_product_attention
from lmdyn.models.attention.reach import Reach
from lmdyn.types import Array


def choose_kernel(attention: str) -> str:
    """The kernel that `Compute.attention` means on the device that JAX runs on.

    Args:
      attention: `auto`, or a kernel by name.

    >>> choose_kernel("blocked")
    'blocked'
    """
    if attention != "auto":
        return attention
    return "xla" if jax.default_backend() == "gpu" else "blocked"


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    reach: Reach | None = None,
    *,
    kernel: str = "blocked",
    tap: Callable | None = None,
    mask: Array | None = None,
) -> tuple[jax.Array, Any]:
    """Softmax attention of scaled queries, by the kernel of that name.

    Args:
      query: `[B, T, H, K]`, already multiplied by `1 / sqrt(K)`.
      key: `[B, S, G, K]`, S >= T.
      value: `[B, S, G, K]`.
      reach: a `Reach`, or None for plain causal order.
      kernel: `blocked`, `xla` or `cudnn`; only `blocked` has probabilities that `tap` can see.
      tap: None, or a reducer of probabilities, see `blocked_attention`.
      mask: `[B, T]` booleans for `tap`: which queries count.

    Returns:
      `[B, T, H, K]`, and what `tap` gathered (None without it).

    >>> import jax.numpy as jnp
    >>> x = jnp.ones([1, 3, 2, 4])
    >>> attend(x, x, x, kernel="xla")[0].shape
    (1, 3, 2, 4)
    """
    if kernel == "blocked" or tap is not None:
        return blocked_attention(query, key, value, reach, tap, mask)
    return dot_product_attention(query, key, value, reach, implementation=kernel), None
