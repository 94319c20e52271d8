"""Products of arrays at the precision that their dtype promises: float32 means float32.

GPUs and TPUs multiply float32 matrices at a lower precision unless told otherwise (TF32 keeps 10
bits of 23). Every product of the model and of the metrics goes through here, with float32 sums
where bfloat16 is multiplied. Who wants it faster asks JAX for it: where
`JAX_DEFAULT_MATMUL_PRECISION` is set, such as to `tensorfloat32`, it decides.
"""

import contextlib
from typing import Any, cast

import jax
import jax.numpy as jnp

from lmdyn.types import Array


def precision(*dtypes: Any) -> jax.lax.Precision | None:
    """The precision of a product: the highest for float32, unless the user asked for another.

    Args:
      dtypes: of what is multiplied.

    >>> precision(jnp.float32).name, precision(jnp.bfloat16)
    ('HIGHEST', None)
    >>> with jax.default_matmul_precision("tensorfloat32"):
    ...     print(precision(jnp.float32))
    None
    """
    asked = cast(Any, jax.config).jax_default_matmul_precision
    if asked is not None or all(dtype != jnp.float32 for dtype in dtypes):
        return None
    return jax.lax.Precision.HIGHEST


def matmul(x: Array, y: Array) -> jax.Array:
    """`x @ y`.

    >>> matmul(jnp.ones([2, 3]), jnp.ones([3, 1])).tolist()
    [[3.0], [3.0]]
    """
    return jnp.matmul(x, y, precision=precision(x.dtype, y.dtype))


def einsum(subscripts: str, *operands: Array) -> jax.Array:
    """`jnp.einsum` with float32 sums.

    >>> einsum("td,td->t", jnp.ones([2, 3]), jnp.ones([2, 3])).tolist()
    [3.0, 3.0]
    """
    return jnp.einsum(
        subscripts,
        *operands,
        precision=precision(*(operand.dtype for operand in operands)),
        preferred_element_type=jnp.float32,
    )


def contract(x: Array, y: Array, axes: tuple[int, int]) -> jax.Array:
    """The product of two matrices over one axis of each, with float32 sums.

    Args:
      x: `[., .]`.
      y: `[., .]`.
      axes: which axis of `x` meets which of `y`; the results' axes are those left, in this order.

    >>> contract(jnp.ones([3, 2]), jnp.ones([3, 4]), (0, 0)).shape
    (2, 4)
    """
    return jax.lax.dot_general(
        x,
        y,
        (((axes[0],), (axes[1],)), ((), ())),
        precision=precision(x.dtype, y.dtype),
        preferred_element_type=jnp.float32,
    )


def within(dtype: Any) -> contextlib.AbstractContextManager:
    """A context in which a library's products of this dtype have its precision.

    >>> with within(jnp.float32):
    ...     print(jax.config.jax_default_matmul_precision)
    highest
    """
    return (
        contextlib.nullcontext()
        if precision(dtype) is None
        else jax.default_matmul_precision("highest")
    )
