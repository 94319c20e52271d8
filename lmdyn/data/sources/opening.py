"""Files of text as they are published: known by their first bytes, and unpacked once.

A compressed file is unpacked into the cache when it is first read, in bounded memory, so that any
document of it can be read by its place. A file that changed is unpacked anew.
"""

import bz2
import contextlib
import glob
import gzip
import hashlib
import lzma
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

from lmdyn.errors import InputError
from lmdyn.file_kinds import LFS_POINTER
from lmdyn.files import atomic_file

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
OTHERS = {
    LFS_POINTER: "is a Git LFS pointer; fetch the file itself with git lfs pull",
    b"PAR1": "is a Parquet file; write parquet:{path}#FIELD",
    b"ARROW1": "is an Arrow file; write arrow:{path}#FIELD",
    b"GGUF": "is a GGUF file, a model and no text",
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"%PDF": "is a PDF file; extract its text first",
    b"\x93NUMPY": "is a NumPy array and no text",
    b"\xff\xfe": "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "is UTF-16; convert it: iconv -f UTF-16 -t UTF-8",
}


def find_paths(ref: str, patterns: str, suffix: str = ".txt") -> tuple[str, ...]:
    """The files of a comma-separated list of patterns, those of each pattern sorted by name.

    Args:
      ref: the whole reference, for errors.
      patterns: `**` crosses folders; a file whose own name has a comma is found, too.
      suffix: of such files, for errors.

    Raises:
      InputError: a pattern that matches nothing, or only empty files.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = [(folder / name).write_text("x") for name in ("b.txt", "a.txt", "c.md")]
    >>> [Path(path).name for path in find_paths("text:", f"{folder}/*.txt,{folder}/c.md")]
    ['a.txt', 'b.txt', 'c.md']
    """
    whole = os.path.expanduser(patterns)
    parts = [patterns] if os.path.exists(whole) else patterns.split(",")
    found: dict[str, None] = {}
    for pattern in parts:
        matches = glob.glob(os.path.expanduser(pattern), recursive=True)
        files = sorted(path for path in matches if not os.path.isdir(path))
        if not files:
            raise InputError(f"{ref}: {_nothing(pattern, suffix)}")
        found.update(dict.fromkeys(files))
    paths = tuple(found)
    if not any(os.path.getsize(p) or not os.path.isfile(p) for p in paths):
        raise InputError(
            f"{ref}: {f'{paths[0]} is' if len(paths) == 1 else f'all {len(paths)} files are'}"
            " empty; give a text with at least one window of tokens"
        )
    return paths


def _nothing(pattern: str, suffix: str) -> str:
    """Why a pattern matches no file."""
    if glob.has_magic(pattern):
        return (
            f"no file matches {pattern} (looked from {os.getcwd()}); check the path, and quote the"
            " pattern in a shell"
        )
    folder = os.path.isdir(os.path.expanduser(pattern))
    what = "is a folder; write" if folder else "is not there; check the path, or write"
    return f"{pattern} {what} {os.path.join(pattern, f'*{suffix}')} for the files in a folder"


def unpacked(path: str) -> str:
    """The path of a file's bytes, which for a compressed one is a copy in the cache.

    Args:
      path: of a plain file, or of one packed with gzip, zstd, bz2 or xz, whatever its name.

    Raises:
      InputError: the file cannot be read, is damaged or of another kind, or the cache is full.

    >>> unpacked(__file__) == __file__
    True
    """
    try:
        with open(path, "rb") as file:
            first, state = file.read(32), os.fstat(file.fileno())
    except OSError as err:
        raise InputError(
            f"cannot read {path}: {err.strerror}; check the path and its permissions"
        ) from err
    for magic, what in OTHERS.items():
        if first.startswith(magic):
            raise InputError(f"{path} {what.format(path=path)}")
    kind = next((kind for magic, kind in PACKED.items() if first.startswith(magic)), None)
    if kind is None:
        return path
    about = f"{os.path.realpath(path)} {state.st_size} {state.st_mtime_ns}"
    target = cache_folder() / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}"
    if not target.is_file():
        _unpack(path, kind, target)
    return str(target)


def cache_folder() -> Path:
    """Where unpacked files are kept: `lmdyn/unpacked` in the user's cache folder.

    >>> cache_folder().parts[-2:]
    ('lmdyn', 'unpacked')
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "lmdyn" / "unpacked"


def _unpack(path: str, kind: str, target: Path) -> None:
    try:
        with contextlib.closing(_reader(path, kind)) as packed, atomic_file(target) as file:
            shutil.copyfileobj(packed, file, 2**20)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as err:
        raise InputError(
            f"{path} is a damaged {kind} file: {' '.join(str(err).split())}; fetch it again"
        ) from err
    except OSError as err:
        if err.errno is None:  # of the decompressor, and not of the system
            raise InputError(
                f"{path} is a damaged {kind} file: {' '.join(str(err).split())}; fetch it again"
            ) from err
        raise InputError(
            f"{path} cannot be unpacked into {target.parent}: {err.strerror}; free some space, or"
            " set XDG_CACHE_HOME to another folder"
        ) from err


def _reader(path: str, kind: str) -> Any:
    if kind == "zstd":
        return import_pyarrow(path, "zstd").input_stream(path, compression="zstd")
    return {"gzip": gzip, "bz2": bz2, "xz": lzma}[kind].open(path, "rb")


def import_pyarrow(path: str, what: str) -> Any:
    """The module `pyarrow`, which is an extra.

    Args:
      path: of the file that needs it, for errors.
      what: the format, for errors.

    Raises:
      InputError: it is not installed.

    >>> import_pyarrow("a.parquet", "Parquet").__name__
    'pyarrow'
    """
    try:
        import pyarrow
    except ImportError as err:
        raise InputError(
            f"{path}: {what} files need pyarrow; pip install 'lmdyn[corpora]'"
        ) from err
    return pyarrow
