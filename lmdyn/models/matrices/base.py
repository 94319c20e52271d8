"""What may replace a matrix in a model's parameters, and the functions that take either.

A `Matrix` (quantised, with low-rank adapters beside it, with a place for its gradient's norm)
stands where a float32 array `[..., in, out]` would; a leading axis is for layers. The functions
here take arrays and those alike, so that nothing else asks which it is.
"""

import abc
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lmdyn.errors import InputError
from lmdyn.models.products import matmul
from lmdyn.types import Array


class Matrix(abc.ABC):
    """A replacement for a matrix W `[..., in, out]`.

    It is a pytree, so that layers of a stack can be cut and scanned.

    >>> from lmdyn.models import QuantizedMatrix
    >>> from lmdyn.models.matrices.lora import LoRAMatrix
    >>> issubclass(QuantizedMatrix, Matrix) and issubclass(LoRAMatrix, Matrix)
    True
    """

    described = "no array"
    """For the message that it cannot be trained or changed."""

    @property
    @abc.abstractmethod
    def sides(self) -> tuple[int, int]:
        """`(in, out)`."""

    @abc.abstractmethod
    def apply(self, x: jax.Array, bias: Array | None) -> jax.Array:
        """`x W + bias` of `[N, in]`, in the dtype of `x`."""

    @abc.abstractmethod
    def dense(self) -> jax.Array:
        """W as one float32 array `[..., in, out]`."""

    def stored(self) -> tuple[jax.Array, bool]:
        """W in float32 as stored in memory, and whether that is `[..., out, in]`."""
        return self.dense(), False


def is_substitute(leaf: Any) -> bool:
    """Whether a leaf replaces an array.

    >>> is_substitute(jnp.ones([2, 3]))
    False
    """
    return isinstance(leaf, Matrix)


def apply(x: jax.Array, matrix: Any, bias: Array | None = None) -> jax.Array:
    """`x W + bias`, in the dtype of `x`.

    Args:
      x: `[N, in]`.
      matrix: W, an array `[in, out]` or a `Matrix`.
      bias: `[out]` or None.

    Returns:
      `[N, out]`.

    >>> apply(jnp.ones([2, 4]), jnp.ones([4, 3]), jnp.ones([3])).tolist()
    [[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]]
    """
    if isinstance(matrix, Matrix):
        return matrix.apply(x, bias)
    return add_bias(matmul(x, matrix.astype(x.dtype)), bias)


def add_bias(y: jax.Array, bias: Array | None) -> jax.Array:
    """`y + bias` in float32, so that the gradient of the bias is summed over tokens in float32.

    Args:
      y: `[N, out]`.
      bias: `[out]` or None.

    Returns:
      `[N, out]` in the dtype of `y`.

    >>> add_bias(jnp.ones([1, 2], jnp.bfloat16), jnp.ones([2])).dtype.name
    'bfloat16'
    """
    return y if bias is None else (y + bias).astype(y.dtype)


def dense(matrix: Any) -> Any:
    """W as one float32 array `[..., in, out]`; an array passes unchanged.

    >>> dense(jnp.ones([2, 3])).shape
    (2, 3)
    """
    return matrix.dense() if isinstance(matrix, Matrix) else matrix


def stored(matrix: Any) -> tuple[Any, bool]:
    """W in float32 as stored in memory, and whether that is `[..., out, in]`.

    The first alone is the table of an embedding, which is looked up by rows.

    >>> stored(jnp.ones([2, 3]))[1]
    False
    """
    return matrix.stored() if isinstance(matrix, Matrix) else (matrix, False)


def sides(matrix: Any) -> tuple[int, int]:
    """`(in, out)` of W.

    >>> sides(jnp.ones([5, 2, 3]))
    (2, 3)
    """
    return matrix.sides if isinstance(matrix, Matrix) else tuple(matrix.shape[-2:])


def concatenate(stacks: Sequence[Any]) -> Any:
    """One stack of layers from several.

    If only some of them are replaced, all are made dense.

    Args:
      stacks: arrays `[l, ...]` or a `Matrix` each.

    >>> concatenate([jnp.ones([1, 2, 3]), jnp.ones([2, 2, 3])]).shape
    (3, 2, 3)
    """
    if len(stacks) == 1:
        return stacks[0]
    if len({isinstance(stack, Matrix) for stack in stacks}) > 1:
        stacks = [dense(stack) for stack in stacks]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *stacks)


def check_array(name: str, leaf: Any, done: str) -> None:
    """Refuses a parameter that is not an array.

    Args:
      name: of the parameter.
      leaf: an array or a `Matrix`.
      done: what is asked of it, such as `trained`.

    Raises:
      InputError: the array is replaced by a `Matrix`.

    >>> check_array("head.kernel", jnp.ones([2, 3]), "trained")
    """
    if isinstance(leaf, Matrix):
        raise InputError(
            f"{name} is {leaf.described} and cannot be {done}; load the model without packed"
        )
