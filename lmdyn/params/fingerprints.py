"""A short name for the content of parameters: equal parameters have equal fingerprints."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from lmdyn.models import matrices
from lmdyn.types import Params


def fingerprint(params: Params) -> str:
    """The fingerprint of parameters: 16 hexadecimal digits, the beginning of a SHA-256.

    It depends on the float32 value of every number, on its place, and on nothing else: not on the
    file's format, on a dtype that holds the values exactly, or on the device.

    Args:
      params: a model's tree; quantised matrices count as what they stand for.

    >>> ones = {"a": np.ones([2, 3], np.float32), "b": np.zeros(3, np.float32)}
    >>> fingerprint(ones) == fingerprint({**ones, "a": ones["a"].astype(np.float16)})
    True
    >>> fingerprint(ones) == fingerprint({**ones, "b": np.full(3, 1e-30, np.float32)})
    False
    """
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=matrices.is_substitute)
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        digests = pool.map(lambda one: _digest(*one), leaves)
        return hashlib.sha256(b"".join(digests)).hexdigest()[:16]


def _digest(path: Any, leaf: Any) -> bytes:
    values = np.ascontiguousarray(np.asarray(matrices.dense(leaf), np.float32))
    found = hashlib.sha256(f"{jax.tree_util.keystr(path)} {values.shape} ".encode())
    found.update(values.data)
    return found.digest()
