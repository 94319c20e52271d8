"""Matrices whose gradient's norm is taken in the backward pass; the gradient is never made.

For `y = x W` over the T tokens of one sequence the gradient of W is `x^T g`, g being the gradient
at y, and its squared norm is

    sum over tokens t, u of (x_t . x_u) (g_t . g_u)

which takes `T^2 (D + F)` products where the gradient takes `T D F` (Goodfellow 2015, arXiv
1510.01799; Li et al. 2021, arXiv 2110.05679, section 4). It also needs the T x T products of the
inputs only, so the forward pass keeps those instead of the inputs. Long sequences go the other way:
there the gradient is the smaller one.

A `GradNormProbe` replaces an array of the parameters. Under `jax.vmap` over
sequences with a `square` for each, every sequence gets the norm of its own gradient, although all
of them share the matrix.

Shape letters: T tokens, D inputs, F outputs.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lmdyn.models.matrices.base import Matrix, add_bias, dense, sides
from lmdyn.models.products import contract, matmul
from lmdyn.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GradNormProbe(Matrix):
    """A matrix, or a stack of them, with a place for its gradient's squared norm.

    Attributes:
      matrix: `[..., D, F]` float32, or `QuantizedMatrix` as `[..., F, D]`. No gradient flows to it.
      square: `[...]` float32, of any value: its gradient is the squared norm of the
        matrix's.

    >>> loss = lambda square: product(
    ...     jnp.array([[1.0, 2.0]]), GradNormProbe(jnp.ones([2, 4]), square)
    ... ).sum()
    >>> jax.grad(loss)(
    ...     jnp.zeros([])
    ... ).item()  # the matrix's gradient has four times 1 and four times 2
    20.0
    """

    matrix: Any
    square: jax.Array

    @property
    def sides(self) -> tuple[int, int]:
        """`(in, out)`."""
        return sides(self.matrix)

    def apply(self, x: jax.Array, bias: Array | None) -> jax.Array:
        """`x W + bias` of one sequence `[T, in]`."""
        return add_bias(product(x, self), bias)

    def dense(self) -> jax.Array:
        """W."""
        return dense(self.matrix)


def gram(x: Array) -> jax.Array:
    """Products of all pairs of tokens, `[T, T]` float32, of `[T, D]`.

    >>> gram(jnp.array([[3.0, 0.0], [1.0, 2.0]])).tolist()
    [[9.0, 3.0], [3.0, 5.0]]
    """
    return contract(x, x.T, (1, 0))


def product(x: Array, kernel: GradNormProbe) -> jax.Array:
    """`x W` of one sequence.

    Args:
      x: `[T, D]`, the tokens of one sequence.
      kernel: W, and the place for its gradient's squared norm.

    Returns:
      `[T, F]` in the dtype of `x`.

    >>> x, matrix = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), jnp.ones([2, 4])
    >>> loss = lambda square: product(
    ...     x, GradNormProbe(matrix, square)
    ... ).sum()  # the gradient of W has rows of 9 and of 12
    >>> float(jax.grad(loss)(0.0)), 4 * 9**2 + 4 * 12**2
    (900.0, 900)
    """
    return _product(x, kernel.matrix, kernel.square)


@jax.custom_vjp
def _product(x, matrix, square):
    return matmul(x, dense(matrix).astype(x.dtype))


def _by_pairs(tokens: int, matrix) -> bool:
    """Whether the pairs of tokens are the cheaper way."""
    first, second = sides(matrix)
    return tokens * (first + second) < first * second


def _forward(x, matrix, square):
    # x_TD; of its own gradient's norm, the backward pass needs x x^T (TT) or x itself.
    return _product(x, matrix, square), (gram(x) if _by_pairs(len(x), matrix) else x, matrix)


def _backward(saved, d_y):
    kept, matrix = saved
    # d x = g W^T, as for any matrix
    d_x = matmul(d_y, dense(matrix).astype(d_y.dtype).T)
    if _by_pairs(len(d_y), matrix):
        # |x^T g|^2 = sum of (x x^T) * (g g^T) over pairs of tokens
        square = jnp.sum(kept * gram(d_y))
    else:  # long sequences: the gradient x^T g, [D, F], is the smaller one
        square = jnp.sum(jnp.square(contract(kept.T, d_y, (1, 0))))
    return d_x, None, square


_product.defvjp(_forward, _backward)
