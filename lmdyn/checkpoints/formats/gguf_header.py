"""The header of a GGUF file: its metadata, and where its tensors are. No tensor is read.

`gguf.GGUFReader` makes several numpy views of every token of the vocabulary (3 s and 160 MB for
49,152 tokens) and can loop for ever over a damaged length, so the header is parsed here, with every
length checked against the file. Kinds of values and of quantisation, and the decoding of tensors,
are the `gguf` package's. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import mmap
import pathlib
import re
import struct
from typing import Any, NamedTuple

import gguf
import numpy as np

from lmdyn.errors import InputError
from lmdyn.file_kinds import mismatch
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
    """Where one tensor is stored.

    >>> tensor = Tensor((2, 3), gguf.GGMLQuantizationType.F32, np.zeros(24, np.uint8))
    >>> tensor.kind.name, tensor.raw.size
    ('F32', 24)
    """

    shape: tuple[int, ...]
    """as numpy has it, slowest axis first"""
    kind: gguf.GGMLQuantizationType
    """of quantisation"""
    raw: np.ndarray
    """its bytes, mapped into memory"""


class Header(NamedTuple):
    """The metadata of a GGUF file, and where its tensors are. Made by `read_header`."""

    fields: dict[str, Any]
    """plain Python values by key"""
    tensors: dict[str, Tensor]
    """by name"""


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

    Of a model in several files (`NAME-00001-of-00003.gguf`) the metadata are those of the first
    file, and the tensors those of all.

    Args:
      path: of the file, or of any one of several.

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
    header = _read_file(path)
    count = header.fields.get("split.count", 1)
    if count == 1:
        return header
    end = re.search(r"-\d{5}-of-(\d{5})\.gguf$", path.name)
    if end is None or int(end[1]) != count:
        number = header.fields.get("split.no", 0) + 1
        raise InputError(
            f"{path} is shard {number} of {count} of a model; its name must end in"
            f" -{number:05d}-of-{count:05d}.gguf, for the others to be found beside it"
        )
    tensors: dict[str, Tensor] = {}
    for number in range(count, 0, -1):  # the first last: its metadata are the model's
        shard = path.with_name(f"{path.name[: end.start()]}-{number:05d}-of-{count:05d}.gguf")
        if not shard.is_file():
            raise InputError(f"{path} is one of {count} shards of a model; {shard} is missing")
        header = _read_file(shard)
        if header.fields.get("split.no", 0) != number - 1:
            raise InputError(
                f"{shard} says that it is shard {header.fields.get('split.no', 0) + 1}; shards have"
                " been renamed"
            )
        tensors |= header.tensors
    if len(tensors) != (wanted := header.fields.get("split.tensors.count", len(tensors))):
        raise InputError(
            f"the {count} shards of {path} hold {len(tensors)} tensors, not {wanted}; they are of"
            " different models"
        )
    return Header(header.fields, tensors)


def _read_file(path: pathlib.Path) -> Header:
    """The header of one file."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise InputError(mismatch(path, "a GGUF file", "it does not begin with GGUF"))
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as err:
        if isinstance(err, InputError):
            raise
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a GGUF file, or write dir:{path}") from err
        why = getattr(err, "strerror", None) or err
        raise InputError(f"{path} cannot be read: {why}; check the path") from err
    try:
        return _parse(_Cursor(data), np.frombuffer(data, np.uint8))
    except InputError as err:
        raise InputError(f"{path} {err}") from err
    except (ValueError, struct.error, RecursionError, MemoryError, OverflowError) as err:
        raise InputError(f"{path} is a damaged GGUF file: {err}; fetch it again") from err


def _parse(cursor: _Cursor, data: np.ndarray) -> Header:
    cursor.at = 4
    version = cursor.one("I")
    if version not in (2, 3):
        if int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3):
            raise InputError("is big-endian; turn it with llama.cpp's gguf_convert_endian.py")
        raise InputError(
            f"is of GGUF version {version}, and 2 and 3 are read; convert the model anew with"
            " llama.cpp"
        )
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
        start, stop = base + offset, base + offset + math.prod(shape) // per_block * size
        if stop > data.size:
            raise InputError(
                f"is cut short: tensor {name} lacks {stop - data.size} bytes at the end; fetch it"
                " again"
            )
        tensors[name] = Tensor(shape, kind, data[start:stop])
    return Header(fields, tensors)


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
    raw = tensor.raw
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
