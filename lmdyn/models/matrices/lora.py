"""Low-rank adapters beside a matrix: `x W + s (x A) B` (Hu et al. 2022, arXiv 2106.09685, section
4.1).

An `LoRAMatrix` matrix stands in the parameters where a float32 array or a `QuantizedMatrix` matrix
would. The sum `W + s A B` is never made: a layer's output is the sum of two products, so a body can
be shared by many adapters, and may be quantised. `lmdyn.params.low_rank` puts adapters into a
model.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lmdyn.models.matrices.quantized import decoded
from lmdyn.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LoRAMatrix:
    """A matrix with an adapter beside it, or a stack of them.

    Attributes:
      kernel: `[..., in, out]` float32, or `QuantizedMatrix`.
      a: `[..., in, R]` float32.
      b: `[..., R, out]` float32.
      scale: s.

    >>> import jax.numpy as jnp
    >>> adapted = LoRAMatrix(
    ...     jnp.ones([4, 3]), a=jnp.ones([4, 2]), b=jnp.ones([2, 3]), scale=0.5
    ... )
    >>> merged(adapted)[0].tolist()  # 1 + 0.5 (1 + 1)
    [2.0, 2.0, 2.0]
    """

    kernel: Any
    a: jax.Array
    b: jax.Array
    scale: float = dataclasses.field(metadata={"static": True})


def beside(x: Array, adapted: LoRAMatrix) -> jax.Array:
    """What the adapter adds to `x W`: `s (x A) B`, in the dtype of `x`.

    Args:
      x: `[N, in]`.

    Returns:
      `[N, out]`.

    >>> import jax.numpy as jnp
    >>> adapted = LoRAMatrix(jnp.ones([4, 3]), jnp.ones([4, 2]), jnp.ones([2, 3]), scale=0.5)
    >>> beside(jnp.ones([1, 4]), adapted).tolist()
    [[4.0, 4.0, 4.0]]
    """
    return jnp.asarray(x) @ adapted.a.astype(x.dtype) * adapted.scale @ adapted.b.astype(x.dtype)


def merged(adapted: LoRAMatrix) -> jax.Array:
    """`W + s A B`, `[..., in, out]` float32; a quantised W is decoded.

    >>> import jax.numpy as jnp
    >>> merged(LoRAMatrix(jnp.ones([4, 3]), jnp.ones([4, 2]), jnp.ones([2, 3]), scale=0.5))[
    ...     0
    ... ].tolist()
    [2.0, 2.0, 2.0]
    """
    return decoded(adapted.kernel) + adapted.scale * (adapted.a @ adapted.b)
