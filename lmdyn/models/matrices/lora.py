"""Low-rank adapters beside a matrix (Hu et al. 2022, arXiv 2106.09685, section 4.1).

A layer computes `x W + s (x A) B`. The sum `W + s A B` is never made: a layer's output is the sum
of two products, so a body can be shared by many adapters, and may be quantised.
`lmdyn.params.low_rank` puts adapters into a model.
"""

import dataclasses
from typing import Any

import jax

from lmdyn.models.matrices.base import Matrix, apply, dense, sides
from lmdyn.models.products import matmul
from lmdyn.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LoRAMatrix(Matrix):
    """A matrix with an adapter beside it, or a stack of them.

    Attributes:
      kernel: W, `[..., in, out]` float32, or `QuantizedMatrix`.
      a: `[..., in, R]` float32.
      b: `[..., R, out]` float32.
      scale: s.

    >>> import jax.numpy as jnp
    >>> adapted = LoRAMatrix(
    ...     jnp.ones([4, 3]), a=jnp.ones([4, 2]), b=jnp.ones([2, 3]), scale=0.5
    ... )
    >>> adapted.apply(jnp.ones([1, 4]), bias=None).tolist()  # 4 + 0.5 * 4 * 2
    [[8.0, 8.0, 8.0]]
    >>> adapted.dense()[0].tolist()  # 1 + 0.5 (1 + 1)
    [2.0, 2.0, 2.0]
    """

    kernel: Any
    a: jax.Array
    b: jax.Array
    scale: float = dataclasses.field(metadata={"static": True})

    @property
    def sides(self) -> tuple[int, int]:
        """`(in, out)`."""
        return sides(self.kernel)

    def apply(self, x: jax.Array, bias: Array | None) -> jax.Array:
        """`x W + bias + s (x A) B`."""
        y = apply(x, self.kernel, bias)
        beside = matmul(x, self.a.astype(x.dtype)) * self.scale
        return y + matmul(beside, self.b.astype(x.dtype))

    def dense(self) -> jax.Array:
        """`W + s A B`; a quantised W is decoded."""
        return dense(self.kernel) + self.scale * matmul(self.a, self.b)
