"""The header of a GGUF file: its metadata, and where its tensors lie. No tensor is read.

`gguf.GGUFReader` makes several numpy views of every token of the vocabulary (3 s and 160 MB for
49,152 tokens) and can loop for ever over a damaged length, so the header is parsed here, with every
length checked against the file. Kinds of values and of quantisation, and the decoding of tensors,
are the `gguf` package's. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import mmap
import pathlib
import struct
from typing import Any, NamedTuple

import gguf
import numpy as np

from lmdyn.errors import InputError
from lmdyn.types import PathLike

_SCALARS = {
    gguf.GGUFValueType.UINT8: "B",
    gguf.GGUFValueType.INT8: "b",
    gguf.GGUFValueType.UINT16: "H",
    gguf.GGUFValueType.INT16: "h",
    gguf.GGUFValueType.UINT32: "I",
    gguf.GGUFValueType.INT32: "i",
    gguf.GGUFValueType.FLOAT32: "f",
    gguf.GGUFValueType.BOOL: "?",
    gguf.GGUFValueType.UINT64: "Q",
    gguf.GGUFValueType.INT64: "q",
    gguf.GGUFValueType.FLOAT64: "d",
}

_PLAIN = {"F32": np.float32, "F16": np.float16, "F64": np.float64}


class Tensor(NamedTuple):
    """Where one tensor lies.

    >>> tensor = Tensor((2, 3), gguf.GGMLQuantizationType.F32, start=96, size=24)
    >>> tensor.kind.name, tensor.size
    ('F32', 24)
    """

    shape: tuple[int, ...]
    """as numpy has it, slowest axis first"""
    kind: gguf.GGMLQuantizationType
    """of quantisation"""
    start: int
    """in the file, in bytes"""
    size: int
    """in bytes"""


class Header(NamedTuple):
    """The metadata of a GGUF file, and where its tensors are. Made by `read_header`."""

    fields: dict[str, Any]
    """plain Python values by key"""
    tensors: dict[str, Tensor]
    """by name"""
    data: np.ndarray
    """the whole file, mapped into memory"""


class _Cursor:
    """Reads little-endian values one after another; never beyond the end."""

    def __init__(self, data):
        self.data, self.at, self.end = data, 0, len(data)

    def values(self, code: str, count: int) -> tuple:
        size = struct.calcsize("<" + code) * count
        if count > self.end or self.at + size > self.end:
            raise ValueError("it ends within its header")
        found = struct.unpack_from(f"<{count}{code}", self.data, self.at)
        self.at += size
        return found

    def one(self, code: str):
        return self.values(code, 1)[0]

    def text(self) -> str:
        length = self.one("Q")
        if self.at + length > self.end:
            raise ValueError("it ends within its header")
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", errors="replace")

    def value(self, kind: int):
        kind = gguf.GGUFValueType(kind)
        if kind in _SCALARS:
            return self.one(_SCALARS[kind])
        if kind == gguf.GGUFValueType.STRING:
            return self.text()
        inner, count = gguf.GGUFValueType(self.one("I")), self.one("Q")
        if inner in _SCALARS:
            return list(self.values(_SCALARS[inner], count))
        if count > self.end - self.at:
            raise ValueError(f"an array claims {count} items")
        return [self.value(inner) for _ in range(count)]


def read_header(path: PathLike) -> Header:
    """The header of the GGUF file at `path` (versions 2 and 3, little-endian).

    Raises:
      InputError: no such file, not a GGUF file, or one that is cut short or damaged.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/m.gguf"
    >>> writer = gguf.GGUFWriter(path, "llama")
    >>> writer.add_tensor("token_embd.weight", np.ones([2, 3], np.float32))
    >>> (
    ...     writer.write_header_to_file(),
    ...     writer.write_kv_data_to_file(),
    ...     writer.write_tensors_to_file(),
    ... )
    (None, None, None)
    >>> writer.close()
    >>> header = read_header(path)
    >>> header.tensors["token_embd.weight"].shape
    (2, 3)
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise InputError(f"{path} is no GGUF file; it does not begin with GGUF")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as err:
        if isinstance(err, InputError):
            raise
        raise InputError(f"{path}: {getattr(err, 'strerror', None) or err}") from err
    try:
        fields, tensors = _parse(_Cursor(data))
    except (ValueError, struct.error, RecursionError, MemoryError, OverflowError) as err:
        raise InputError(f"{path} is a damaged GGUF file: {err}; fetch it again") from err
    for name, tensor in tensors.items():
        if tensor.start + tensor.size > len(data):
            missing = tensor.start + tensor.size - len(data)
            raise InputError(
                f"{path} is cut short: tensor {name} lacks {missing} bytes at the end; fetch it"
                " again"
            )
    return Header(fields, tensors, np.frombuffer(data, np.uint8))


def _parse(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, Tensor]]:
    cursor.at = 4
    version = cursor.one("I")
    if version not in (2, 3):
        raise ValueError(f"its version is {version}; versions 2 and 3, little-endian, are read")
    count, pairs = cursor.values("Q", 2)
    fields = {}
    for _ in range(pairs):
        key = cursor.text()
        fields[key] = cursor.value(cursor.one("I"))
    found = {}
    for _ in range(count):
        name, axes = cursor.text(), cursor.one("I")
        shape = cursor.values("Q", axes)[::-1]
        kind, offset = gguf.GGMLQuantizationType(cursor.one("I")), cursor.one("Q")
        found[name] = (shape, kind, offset)
    alignment = fields.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"general.alignment is {alignment}")
    base = -(-cursor.at // alignment) * alignment
    tensors = {}
    for name, (shape, kind, offset) in found.items():
        per_block, size = gguf.GGML_QUANT_SIZES[kind]
        if not shape or shape[-1] % per_block:
            raise ValueError(
                f"tensor {name} of kind {kind.name} has rows of {shape[-1] if shape else 0} numbers"
            )
        tensors[name] = Tensor(shape, kind, base + offset, math.prod(shape) // per_block * size)
    return fields, tensors


def decode(header: Header, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows `start` to `stop` (of the first axis; default all) of one tensor as floats, dequantised.

    Raises:
      InputError: the `gguf` package cannot decode its kind.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/m.gguf"
    >>> writer = gguf.GGUFWriter(path, "llama")
    >>> writer.add_tensor("token_embd.weight", np.ones([2, 3], np.float32))
    >>> (
    ...     writer.write_header_to_file(),
    ...     writer.write_kv_data_to_file(),
    ...     writer.write_tensors_to_file(),
    ... )
    (None, None, None)
    >>> writer.close()
    >>> header = read_header(path)
    >>> decode(header, "token_embd.weight", 1).tolist()
    [[1.0, 1.0, 1.0]]
    """
    tensor = header.tensors[name]
    raw = header.data[tensor.start : tensor.start + tensor.size]
    if len(tensor.shape) > 1:
        raw = raw.reshape(tensor.shape[0], -1)[start:stop]
        start, stop = 0, None
    try:
        if tensor.kind.name in _PLAIN:
            values = raw.view(_PLAIN[tensor.kind.name])
        else:
            values = gguf.dequantize(raw.reshape(*raw.shape[:-1], -1), tensor.kind)
    except (NotImplementedError, ValueError, KeyError) as err:
        raise InputError(
            f"tensor {name}: the gguf package cannot decode kind {tensor.kind.name}; requantise the"
            " file"
        ) from err
    return values.reshape(-1, *tensor.shape[1:])[start:stop]
