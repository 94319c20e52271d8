"""Names of types that signatures share, and `present`.

Shapes are in docstrings: a type says what kind of thing a value is.

Importing this imports neither JAX nor NumPy, so that the command line may use it; there the array
types are `Any`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    import jax
    import numpy as np
    from numpy.typing import ArrayLike

    Array: TypeAlias = jax.Array | np.ndarray
    Device: TypeAlias = Any  # jax.Device, which is not a type to checkers
else:
    Array = ArrayLike = Device = Any

__all__ = [
    "Array",
    "ArrayLike",
    "Bos",
    "Device",
    "Params",
    "PathLike",
    "Row",
    "Rows",
    "Say",
    "Tree",
    "present",
]

T = TypeVar("T")

Bos: TypeAlias = Literal["auto", "document", "window", "none"]
"""Where beginning-of-text tokens go; see `lmdyn.data.tokenizers.Tokenizer.with_bos`."""
Params: TypeAlias = dict[str, Any]
"""Parameters of a model: a nested dict whose leaves are arrays, or a replacement of one
(`lmdyn.models.QuantizedMatrix`, `LoRAMatrix`, `GradNormProbe`)."""

Tree: TypeAlias = Any
"""Any pytree: parameters, a part of them, an optimizer's or a metric's state."""

Row: TypeAlias = Mapping[str, Any]
"""One measurement (`lmdyn.records.row`)."""

Rows: TypeAlias = Sequence[Row]
"""Several measurements, such as all of a study."""

PathLike: TypeAlias = str | os.PathLike[str]
"""The path of a file or a folder."""

Say: TypeAlias = Callable[[str], None]
"""What is called with lines for the user."""


def present(value: T | None) -> T:
    """`value`, which cannot be None here.

    What was checked elsewhere (a config's `__post_init__`) is said to the type checker.

    >>> present(3)
    3
    """
    assert value is not None, "a value is missing that was checked to be there"
    return value
