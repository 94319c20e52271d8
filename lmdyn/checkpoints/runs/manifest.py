"""What a checkpoint must look like on disk, so that damage is found.

Every file has a size and a checksum.
"""

import functools
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from lmdyn.errors import InputError
from lmdyn.files import atomic_write
from lmdyn.types import PathLike

NAME = "checkpoint.json"
CHECKPOINT_FORMAT = 1
READ_CHUNK = 2**22


class DamagedError(InputError):
    """A file is not what was written: cut short, deleted, or with other bytes.

    The message is one line that names it.

    >>> isinstance(DamagedError("checkpoint 8: params is cut short"), InputError)
    True
    """


def write_signed(path: Path, content: Mapping) -> None:
    """Writes `content` as JSON with its own checksum, whole or not at all.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.json"
    >>> write_signed(path, {"format": 1})
    >>> read_signed(path)
    {'format': 1}
    """
    atomic_write(path, signed(content))


def signed(content: Mapping) -> str:
    """`content` as JSON, with its own checksum.

    >>> print(signed({"format": 1}))
    {
     "format": 1,
     "checksum": "bfcf2554"
    }
    """
    return _dump({**content, "checksum": f"{zlib.crc32(_dump(content).encode()):08x}"})


def read_signed(path: Path) -> dict:
    """The content that `write_signed` was given.

    Raises:
      DamagedError: the file is missing, or any byte of it has changed.

    >>> read_signed(Path("/nowhere/a.json"))
    Traceback (most recent call last):
    lmdyn.checkpoints.runs.manifest.DamagedError: a.json is missing
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        content.pop("checksum")
        whole = signed(content) == text
    except FileNotFoundError as err:
        raise DamagedError(f"{path.name} is missing") from err
    except OSError as err:
        raise DamagedError(f"{path.name} cannot be read: {err.strerror}") from err
    except (ValueError, KeyError, AttributeError, TypeError) as err:
        raise DamagedError(f"{path.name} is cut short or damaged") from err
    if not whole:
        raise DamagedError(f"{path.name} does not match its own checksum; it was damaged or edited")
    return content


def _dump(content) -> str:
    return json.dumps(content, indent=1)


def seal(folder: Path, content: Mapping) -> None:
    """Writes `checkpoint.json`: `content`, and the size and checksum of every file in `folder`.

    All is flushed to the disk.

    Raises:
      OSError: what the operating system says.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a").write_text("abc")
    >>> seal(folder, {"step": 3})
    >>> check(folder)["files"]
    {'a': [3, '352441c2']}
    """
    files = {}
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(root, name)
            with path.open("rb") as file:
                os.fsync(file.fileno())
                files[path.relative_to(folder).as_posix()] = [
                    os.fstat(file.fileno()).st_size,
                    _checksum(file),
                ]
        sync(root)
    write_signed(folder / NAME, {"format": CHECKPOINT_FORMAT, **content, "files": files})


def check(folder: Path, items: tuple[str, ...] | None = None) -> dict:
    """The content of `checkpoint.json`, once every file has been compared with it.

    Args:
      folder: of one checkpoint.
      items: check the files of these items only.

    Raises:
      DamagedError: names the first file that is not as it was written.

    >>> check(Path("/nowhere"))
    Traceback (most recent call last):
    lmdyn.checkpoints.runs.manifest.DamagedError: checkpoint.json is missing
    """
    content = read_signed(folder / NAME)
    if content.get("format") != CHECKPOINT_FORMAT:
        raise InputError(
            f"{folder / NAME} has format {content.get('format')}; this version reads"
            f" {CHECKPOINT_FORMAT}: update lmdyn"
        )
    for name, (size, checksum) in content["files"].items():
        if items is not None and name.split("/", 1)[0] not in items:
            continue
        try:
            found = (folder / name).stat()
            if found.st_size != size:
                raise DamagedError(f"{name} has {found.st_size} bytes instead of {size}")
            if (
                _known_checksum(str(folder / name), size, found.st_mtime_ns, found.st_ino)
                != checksum
            ):
                raise DamagedError(f"{name} has other bytes than were written")
        except FileNotFoundError as err:
            raise DamagedError(f"{name} is missing") from err
        except OSError as err:
            raise DamagedError(f"{name} cannot be read: {err.strerror}") from err
    return content


@functools.lru_cache(maxsize=4096)
def _known_checksum(path: str, *state: int) -> str:
    """The checksum of a file, read once for each state (size, time of change, inode) of it."""
    with open(path, "rb") as file:
        return _checksum(file)


def _checksum(file) -> str:
    """CRC-32, which guards against accidents.

    It costs a third of SHA-256, and lets other threads run meanwhile.
    """
    checksum = 0
    while chunk := file.read(READ_CHUNK):
        checksum = zlib.crc32(chunk, checksum)
    return f"{checksum:08x}"


def sync(folder: PathLike) -> None:
    """Flushes a folder to the disk: which names it holds.

    >>> sync("/tmp")
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
