"""The few operations that a decoder is made of, as pure functions on arrays.

They are written for what XLA does well: weight products run on `[B*T, D]` rather than `[B, T, D]`,
because a weight gradient that contracts two axes at once takes a slow path on a CPU, and the
functions with their own vector-Jacobian products keep only what the backward pass needs.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from lmdyn.models.matrices.base import apply, is_substitute
from lmdyn.types import Array

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


def linear(x: Array, kernel: Any, bias: Array | None = None) -> jax.Array:
    """`x kernel + bias`, as one two-dimensional product in the dtype of `x`.

    Args:
      x: `[..., D]`.
      kernel: `[D, F]`, or its replacement (`lmdyn.models.matrices`).
      bias: `[F]` or None.

    Returns:
      `[..., F]`.

    >>> linear(jnp.ones([2, 3, 4]), jnp.ones([4, 5])).shape
    (2, 3, 5)
    """
    y = apply(jnp.asarray(x).reshape(-1, x.shape[-1]), kernel, bias)
    return y.reshape(*x.shape[:-1], y.shape[-1])


@functools.partial(jax.checkpoint, static_argnums=(3, 4), prevent_cse=False)
def _normalize(x, scale, bias, kind, eps):
    y = x.astype(jnp.float32)
    if kind == "layer":
        y = y - y.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + eps)
    if scale is not None:
        y = y * scale
    if bias is not None:
        y = y + bias
    return y.astype(x.dtype)


@functools.partial(jax.checkpoint, static_argnums=2, prevent_cse=False)
def activate(gate: Array, up: Array | None, kind: str) -> jax.Array:
    """`act(gate) * up`, or `act(gate)` where `up` is None.

    The backward pass computes it again from its inputs.

    Args:
      gate: `[..., F]`.
      up: `[..., F]` or None.
      kind: one of `ACTIVATIONS`.

    Returns:
      `[..., F]`.

    >>> activate(jnp.array([-1.0, 2.0]), jnp.array([5.0, 3.0]), "relu").tolist()
    [0.0, 6.0]
    """
    found = ACTIVATIONS[kind](gate)
    return found if up is None else found * up


def normalize(
    x: Array, scale: Array | None = None, bias: Array | None = None, *, kind: str, eps: float
) -> jax.Array:
    """Root-mean-square norm (`rms`) or layer norm (`layer`) over the last axis, in float32.

    Args:
      x: `[..., D]`.
      scale: `[D]` or None (OLMo's norm has none).
      bias: `[D]` or None.
      kind: `rms` or `layer`.
      eps: added to the mean square.

    Returns:
      `[..., D]` in the dtype of `x`.

    >>> y = normalize(jnp.array([1.0, 7.0]), kind="rms", eps=0.0)  # root mean square 5
    >>> [round(float(v), 4) for v in y]
    [0.2, 1.4]
    """
    return _normalize(x, scale, bias, kind, eps)


def unit(x: Array) -> jax.Array:
    """Vectors over the last axis scaled to length 1, in float32; a zero vector stays zero.

    >>> [round(float(v), 4) for v in unit(jnp.array([3.0, 4.0]))]
    [0.6, 0.8]
    """
    x = jnp.asarray(x, jnp.float32)
    square = jnp.sum(x * x, -1, keepdims=True)
    return x * jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def constrain_rows(x: Array, rows: jax.sharding.NamedSharding | None) -> jax.Array:
    """`x` with its first axis divided as `rows` says, or as it is where that is None.

    >>> constrain_rows(jnp.ones([4, 2]), None).shape
    (4, 2)
    """
    return jnp.asarray(x) if rows is None else jax.lax.with_sharding_constraint(x, rows)


def all_gather_axis(matrix: Any, axis: int, rows: jax.sharding.NamedSharding | None) -> Any:
    """A matrix gathered along one axis, the other left as it is.

    It is the matrix itself if `rows` is None, or if it is not an array. Along the model width,
    which every row of the batch needs: without this, the compiler would move activations.

    >>> all_gather_axis(jnp.ones([4, 2]), 0, None).shape
    (4, 2)
    """
    if rows is None or is_substitute(matrix):
        return matrix
    spec = [PartitionSpec.UNCONSTRAINED] * matrix.ndim
    spec[axis] = None
    return jax.lax.with_sharding_constraint(matrix, NamedSharding(rows.mesh, PartitionSpec(*spec)))


def runs(rows: jax.sharding.NamedSharding | None) -> int:
    """Into how many runs `rows` divides the first axis: 1 if it is None.

    >>> runs(None)
    1
    """
    if rows is None:
        return 1
    axes = rows.spec[0] if isinstance(rows.spec[0], tuple) else (rows.spec[0],)
    return math.prod(rows.mesh.shape[axis] for axis in axes)
