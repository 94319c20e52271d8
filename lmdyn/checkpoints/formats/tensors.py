"""What every file of tensors gives: each tensor by name, unread."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class StoredTensor(NamedTuple):
    """A tensor stored in a file.

    >>> StoredTensor("F32", (3, 2), lambda start, stop: np.ones([3, 2])[start:stop]).read(
    ...     1, 3
    ... ).shape
    (2, 2)
    """

    type: str
    """of its numbers, in the words of safetensors: F64, F32, F16, BF16, I64, ..."""
    shape: tuple[int, ...]
    read: Callable[[int, int], np.ndarray]
    """`(start, stop)`: those rows, of the first axis"""
