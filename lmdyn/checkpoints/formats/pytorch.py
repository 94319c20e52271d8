"""PyTorch files (`torch.save`), read without executing anything.

Such a file holds a pickle, which is stepped through (`formats.pickles`): it may build numbers,
text, lists, dicts and tensors, and at any other name it ends with an error that says which. Tensors
stay in the file, mapped into memory, until their rows are needed. Both forms are read: the zip
archive of PyTorch 1.6 and later (`NAME/data.pkl`, and a member `NAME/data/KEY` per storage), and
the older one (several pickles one after another, then the storages).
"""

import io
import math
import mmap
import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from lmdyn.checkpoints.formats.pickles import Name, run_pickle
from lmdyn.checkpoints.formats.tensors import StoredTensor
from lmdyn.errors import InputError
from lmdyn.file_kinds import mismatch

# The class of a storage says its type; "torch.cuda" stands before those that lay on a GPU.
_STORAGES: dict[str, tuple[str, Any]] = {
    "DoubleStorage": ("F64", "<f8"),
    "FloatStorage": ("F32", "<f4"),
    "HalfStorage": ("F16", "<f2"),
    "BFloat16Storage": ("BF16", ml_dtypes.bfloat16),
    "LongStorage": ("I64", "<i8"),
    "IntStorage": ("I32", "<i4"),
    "ShortStorage": ("I16", "<i2"),
    "CharStorage": ("I8", "i1"),
    "ByteStorage": ("U8", "u1"),
    "BoolStorage": ("BOOL", "?"),
}
_MAGIC = 0x1950A86A20F9469CFC6C  # begins a file of the older form
_PROTOCOL = 1001
# Under these keys training code keeps the parameters beside its own state.
_NESTED = ("state_dict", "model_state_dict", "model")


class _Storage(NamedTuple):
    """Numbers of a file that tensors are views of; a pickle names it by its key."""

    type: str
    dtype: Any
    key: str
    count: int
    """of numbers"""


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """in numbers, as PyTorch counts them"""


def read_tensors(path: pathlib.Path) -> dict[str, StoredTensor]:
    r"""The tensors of a PyTorch file by name; only the pickle is read, no number of a tensor.

    Args:
      path: of a file that `torch.save` wrote: a dict of tensors by name, or one that holds such a
        dict under `state_dict`, `model_state_dict` or `model`.

    Raises:
      InputError: no such file, damaged, or it holds something other than numbers, text, lists,
        dicts and tensors; that is named.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "pytorch_model.bin"
    >>> with zipfile.ZipFile(path, "w") as file:
    ...     file.writestr("m/data.pkl", b"\x80\x02}.")
    >>> read_tensors(path)
    {}
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as err:
        raise InputError(
            f"{path}: {getattr(err, 'strerror', None) or 'the file is empty'}"
        ) from err
    try:
        zipped = data[:4] == b"PK\x03\x04"
        if not zipped and data[:1] != b"\x80":
            why = "it begins with neither a zip archive nor a pickle"
            raise InputError(mismatch(path, "a PyTorch file", why).replace(f"{path} ", "it ", 1))
        found, storages = (_read_zip if zipped else _read_sequence)(data)
        return {name: _stored(tensor, data, storages) for name, tensor in _named(found).items()}
    except InputError as err:
        raise InputError(f"{path}: {err}") from err
    except _DAMAGE as err:
        reason = " ".join(str(err).split())[:200] or type(err).__name__
        raise InputError(f"{path} is not a whole PyTorch file: {reason}; fetch it again") from err


# What parsing damaged bytes may raise, here and in zipfile and pickletools.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    OSError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


def _read_zip(data: mmap.mmap) -> tuple[Any, dict[str, tuple[int, int]]]:
    """The pickled object, and where each storage is: key to first byte and length."""
    with zipfile.ZipFile(io.BufferedReader(_Mapped(data))) as archive:
        members = {member.filename: member for member in archive.infolist()}
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError("it is a zip archive without a data.pkl, so not from torch.save")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in members:
        raise InputError("it is a TorchScript program; save the model's state_dict instead")
    if (order := members.get(f"{root}byteorder")) is not None:
        start, size = _member(data, order)
        if data[start : start + size] != b"little":
            raise InputError("its numbers are big-endian; only little-endian files are read")
    start, size = _member(data, members[pickles[0]])
    found = _run(io.BytesIO(data[start : start + size]), _persistent)
    storages = {
        name.removeprefix(f"{root}data/"): _member(data, member)
        for name, member in members.items()
        if name.startswith(f"{root}data/")
    }
    return found, storages


class _Mapped(io.RawIOBase):
    """A map of memory as a file that `zipfile` can read, without a second handle."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self.at, len(self.data))[whence]
        if base + offset < 0:
            raise OSError("a position before the file")
        self.at = base + offset
        return self.at

    def readinto(self, buffer: Any) -> int:
        part = self.data[self.at : self.at + len(buffer)]
        buffer[: len(part)] = part
        self.at += len(part)
        return len(part)


def _member(data: mmap.mmap, member: zipfile.ZipInfo) -> tuple[int, int]:
    """First byte and length of a member, which must be in the file uncompressed."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError(f"{member.filename} is compressed, which torch.save never does")
    header = data[member.header_offset : member.header_offset + 30]
    if header[:4] != b"PK\x03\x04":
        raise ValueError(f"{member.filename} is not where the archive's index says")
    start = member.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
    if start + member.file_size > len(data):
        raise ValueError(f"it ends within {member.filename}")
    return start, member.file_size


def _read_sequence(data: mmap.mmap) -> tuple[Any, dict[str, tuple[int, int]]]:
    """As `_read_zip`, of the older form."""
    seen: dict[str, _Storage] = {}

    def persistent(given: Any) -> _Storage:
        *first, view = given
        storage = _persistent(tuple(first))
        seen.setdefault(storage.key, storage)
        if view is not None:
            raise InputError("it is from before PyTorch 0.4; save it anew with a later version")
        return storage

    data.seek(0)
    file: Any = data
    if _run(file, _nothing) != _MAGIC:
        raise InputError("it is a pickle, but not one that torch.save wrote")
    if (version := _run(file, _nothing)) != _PROTOCOL:
        raise ValueError(f"its version is {version!r:.20}; {_PROTOCOL} is read")
    if not _run(file, _nothing)["little_endian"]:
        raise InputError("its numbers are big-endian; only little-endian files are read")
    found, keys = _run(file, persistent), _run(file, _nothing)
    storages, at = {}, data.tell()
    for key in keys:
        storage = seen[key]
        (count,) = struct.unpack("<q", data[at : at + 8])
        size = _size(count) * np.dtype(storage.dtype).itemsize
        storages[key] = (at + 8, size)
        at += 8 + size
    if at > len(data):
        raise ValueError(f"it lacks {at - len(data)} bytes at the end")
    return found, storages


def _nothing(given: Any) -> Any:
    raise ValueError("a storage stands where none belongs")


def _persistent(given: Any) -> _Storage:
    """The storage that a pickle names: `("storage", class, key, device, count)`."""
    word, kind, key, _, count = given
    if word != "storage" or not isinstance(key, str) or not isinstance(kind, Name):
        raise ValueError("a storage is malformed")
    if kind.name not in _STORAGES:
        raise InputError(f"it holds numbers of type {kind}, which are not read")
    return _Storage(*_STORAGES[kind.name], key, _size(count))


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError("a size is not a whole number")
    return value


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    """`torch._utils._rebuild_tensor_v2`, and its predecessor."""
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError("a tensor is malformed")
    found = _Tensor(storage, _size(offset), tuple(map(_size, shape)), tuple(map(_size, strides)))
    last = sum((n - 1) * stride for n, stride in zip(found.shape, found.strides, strict=True))
    if math.prod(found.shape) and found.offset + last >= storage.count:
        raise ValueError("a tensor reaches beyond its storage")
    return found


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _is_storage(name: Name) -> bool:
    return name.module in ("torch", "torch.cuda") and name.name.endswith("Storage")


_CALLS: dict[Name, Callable] = {
    Name("torch", "Size"): tuple,
    Name("torch._utils", "_rebuild_tensor"): _tensor,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
}


def _run(file: BinaryIO, persistent: Callable[[Any], Any]) -> Any:
    return run_pickle(file, _CALLS, _is_storage, persistent)


def _named(found: Any) -> dict[str, _Tensor]:
    """The tensors of a state dict by name."""
    if isinstance(found, dict):
        inner = next((k for k in _NESTED if isinstance(found.get(k), dict)), None)
        if inner is not None:
            found = found[inner]
    if not isinstance(found, dict):
        raise InputError(f"it holds a {type(found).__name__}, not the dict of a model's tensors")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise InputError(
                f"its entry {name!r:.80} is not a tensor; save the model's state_dict alone"
            )
    return found


def _stored(tensor: _Tensor, data: mmap.mmap, storages: dict[str, tuple[int, int]]) -> StoredTensor:
    storage = tensor.storage
    start, size = storages[storage.key]
    dtype = np.dtype(storage.dtype)
    if storage.count * dtype.itemsize > size:
        raise ValueError(f"storage {storage.key} is shorter than its pickle says")

    def read(first: int, last: int) -> np.ndarray:
        if math.prod(tensor.shape) == 0:
            return np.zeros(tensor.shape, dtype)[first:last]
        numbers = np.frombuffer(data, dtype, storage.count, start)[tensor.offset :]
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False)
        return view[first:last]

    return StoredTensor(storage.type, tensor.shape, read)
