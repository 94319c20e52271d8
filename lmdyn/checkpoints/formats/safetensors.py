"""Safetensors files."""

import functools
import pathlib
from typing import Any

import ml_dtypes  # noqa: F401  (teaches numpy, and so safetensors, bfloat16)
import numpy as np
import safetensors

from lmdyn.checkpoints.formats.tensors import StoredTensor
from lmdyn.errors import InputError
from lmdyn.file_kinds import mismatch


def read_tensors(path: pathlib.Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name; only the header is read.

    Raises:
      InputError: the file is missing or damaged.

    >>> import tempfile
    >>> from safetensors.numpy import save_file
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> save_file({"norm.weight": np.ones(3, np.float32)}, path)
    >>> read_tensors(path)["norm.weight"].shape
    (3,)
    """
    try:
        handle = safetensors.safe_open(path, framework="np")
    except Exception as err:  # SafetensorError is an Exception, and OSError may come too
        why = " ".join(str(err).split())
        raise InputError(mismatch(path, "a whole safetensors file", why)) from err
    found = {}
    for name in handle.keys():  # noqa: SIM118  (a handle is not a dict)
        view = handle.get_slice(name)
        read = functools.partial(_read, handle, name)
        found[name] = StoredTensor(view.get_dtype(), tuple(view.get_shape()), read)
    return found


def _read(handle: Any, name: str, start: int, stop: int) -> np.ndarray:
    return handle.get_slice(name)[start:stop]
