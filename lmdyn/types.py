"""Names of types that signatures share. Shapes are said in docstrings: a type tells what kind of thing a value is.

Importing this imports neither JAX nor NumPy, so that the command line may use it; there the array types are `Any`.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import jax
    import numpy as np
    from numpy.typing import ArrayLike

    Array: TypeAlias = jax.Array | np.ndarray
else:
    Array = ArrayLike = Any

__all__ = ["Array", "ArrayLike", "Params", "PathLike", "Row", "Say", "Tree"]

Params: TypeAlias = dict[str, Any]
"""Parameters of a model: a nested dict whose leaves are arrays, or what stands in place of one (`lmdyn.models.Packed`, `Adapted`, `Watched`)."""

Tree: TypeAlias = Any
"""Any pytree: parameters, a part of them, an optimizer's or a metric's state."""

Row: TypeAlias = Mapping[str, Any]
"""One measurement (`lmdyn.report.row`)."""

PathLike: TypeAlias = str | os.PathLike[str]
"""Where a file or a folder lies."""

Say: TypeAlias = Callable[[str], None]
"""What is called with lines for the user."""
