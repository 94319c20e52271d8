"""Weights that stay quantised in memory, and become float32 one layer at a time, inside the scan.

A `QuantizedMatrix` replaces a float32 array of the parameters. It takes 4.5 to 9
bits a number rather than 32, so that a model can be *measured* on a machine that could not hold it;
the numbers are those of the dequantised file. It cannot be trained: load without packing for that.

Kinds are llama.cpp's (blocks of 32 numbers along a row, float16 scales): `Q4_0` is `d (q - 8)`,
`Q4_1` is `d q + m`, `Q8_0` is `d q`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn.models.matrices.base import Matrix, apply
from lmdyn.types import Array

BLOCK_FORMATS = ("Q4_0", "Q4_1", "Q8_0")
BLOCK = 32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizedMatrix(Matrix):
    """A quantised matrix, or a stack of them. Made by `from_bytes`.

    It is stored as `[..., out, in]`, or as an embedding's table `[V, D]`.

    Attributes:
      codes: `[..., out, in / 32, 16]` uint8 (two numbers a byte: the block's first half in the low
        bits), or `[..., out, in / 32, 32]` int8 for `Q8_0`.
      scale: `[..., out, in / 32]` float16.
      offset: the same, for `Q4_1`; else None.
      kind: one of `BLOCK_FORMATS`.
    """

    codes: Array
    scale: Array
    offset: Array | None
    kind: str = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """`[..., out, in]`."""
        return (*self.codes.shape[:-2], self.codes.shape[-2] * BLOCK)

    @property
    def sides(self) -> tuple[int, int]:
        """`(in, out)`."""
        return self.shape[-1], self.shape[-2]

    @property
    def described(self) -> str:
        """For the message that it cannot be trained or changed."""
        return f"quantised ({self.kind})"

    def __getitem__(self, index: Any) -> "QuantizedMatrix":
        """Some of the first axis: layers of a stack, or rows of a matrix."""
        return jax.tree.map(lambda part: part[index], self)

    def apply(self, x: jax.Array, bias: Array | None) -> jax.Array:
        """`x W + bias`, W decoded."""
        return apply(x, self.dense(), bias)

    def dense(self) -> jax.Array:
        """`[..., in, out]` float32."""
        return unpack(self).swapaxes(-1, -2)

    def stored(self) -> tuple[jax.Array, bool]:
        """`[..., out, in]` float32."""
        return unpack(self), True


def from_bytes(rows: np.ndarray, kind: str) -> QuantizedMatrix:
    """From the bytes of a GGUF tensor.

    Args:
      rows: `[..., out, bytes of a row]` uint8.
      kind: one of `BLOCK_FORMATS`.

    >>> one = np.zeros([1, 34], np.uint8)
    >>> one[0, :2] = np.array([0.5], np.float16).view(np.uint8)
    >>> one[0, 2:] = 3
    >>> unpack(from_bytes(one, "Q8_0")).shape, float(unpack(from_bytes(one, "Q8_0"))[0, 7])
    ((1, 32), 1.5)
    """
    size = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}[kind]
    blocks = rows.reshape(*rows.shape[:-1], -1, size)
    half = lambda at: np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16)[..., 0]
    first = 4 if kind == "Q4_1" else 2
    codes = np.ascontiguousarray(blocks[..., first:])
    return QuantizedMatrix(
        codes.view(np.int8) if kind == "Q8_0" else codes,
        half(0),
        half(2) if kind == "Q4_1" else None,
        kind,
    )


def unpack(matrix: QuantizedMatrix) -> Any:
    """Dequantizes a matrix.

    Returns:
      `[..., out, in]` float32.

    >>> block = np.zeros(
    ...     [1, 18], np.uint8
    ... )  # a Q4_0 block of 32 numbers: a float16 scale, 16 bytes
    >>> block[:, :2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    >>> unpack(from_bytes(block, "Q4_0"))[0, :2].tolist()  # (code - 8) * scale
    [-4.0, -4.0]
    """
    codes = matrix.codes
    if matrix.kind == "Q8_0":
        numbers = codes.astype(jnp.float32)
    else:
        # Two numbers a byte: the block's first half in the low bits.
        numbers = jnp.concatenate([codes & 15, codes >> 4], -1).astype(jnp.float32)
    if matrix.kind == "Q4_0":
        numbers = numbers - 8.0
    numbers = numbers * matrix.scale[..., None].astype(jnp.float32)
    if matrix.offset is not None:
        numbers = numbers + matrix.offset[..., None].astype(jnp.float32)
    return numbers.reshape(matrix.shape)
