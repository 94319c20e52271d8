"""Files that are either whole or not there.

Everything lmdyn writes goes through this module: it is written under a temporary name in the same
folder, flushed to the disk, and only then moved to its own name. An exception, a full disk or
Ctrl-C on the way leaves what was there before.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from lmdyn.errors import InputError


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file to write, which gets its name when the block ends well.

    It is removed when the block does not.

    Args:
      path: the file's name. Its folder is created if missing; a file that is there is replaced.

    Yields:
      A binary file object.

    Raises:
      OSError: what the operating system says, for example ENOSPC on a full disk. Nothing is left
        behind.

    >>> folder = tempfile.mkdtemp()
    >>> with atomic_file(f"{folder}/a.bin") as f:
    ...     _ = f.write(b"whole")
    >>> os.listdir(folder)
    ['a.bin']
    """
    with _temporary(path) as (file, commit):
        yield file
        commit()


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """An empty folder to fill, which gets its name when the block ends well.

    It is removed when the block does not. A folder that is there already is replaced: it is moved
    aside, and removed once the new one has its name.

    Args:
      path: the folder's name.

    Yields:
      The temporary folder, beside `path`.

    >>> folder = tempfile.mkdtemp()
    >>> with atomic_folder(f"{folder}/model") as new:
    ...     _ = (new / "config.json").write_text("{}")
    >>> os.listdir(folder), os.listdir(f"{folder}/model")
    (['model'], ['config.json'])
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield new
        os.chmod(new, 0o777 & ~_umask())
        for folder, _, names in os.walk(new):
            for name in names:
                _sync(Path(folder) / name)
            _sync(folder)
        if path.exists():
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
            os.replace(path, aside / "old")
            try:
                os.replace(new, path)
            except BaseException:
                os.replace(aside / "old", path)
                raise
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(new, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def atomic_write(path: str | os.PathLike, content: str | bytes) -> None:
    r"""Writes a whole file, or nothing. Text is written as UTF-8.

    >>> folder = tempfile.mkdtemp()
    >>> atomic_write(f"{folder}/a.txt", "caf\u00e9")
    >>> Path(folder, "a.txt").read_bytes()
    b'caf\xc3\xa9'
    """
    atomic_write_all({path: content})


def atomic_write_all(contents: Mapping[str | os.PathLike, str | bytes]) -> None:
    """Writes several files that belong together, all of them or none.

    All are on the disk before the first gets its name.

    Args:
      contents: file name -> content. They get their names in this order, so the file whose presence
        means "complete" goes last.

    >>> folder = tempfile.mkdtemp()
    >>> atomic_write_all({f"{folder}/a.meta.json": "{}", f"{folder}/a": "rows"})
    >>> sorted(os.listdir(folder))
    ['a', 'a.meta.json']
    """
    with contextlib.ExitStack() as stack:
        commits = []
        for path, content in contents.items():
            file, commit = stack.enter_context(_temporary(path))
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            commits.append(commit)
        for commit in commits:
            commit()


def check_writable(path: str | os.PathLike) -> Path:
    """`path` if a file of that name could be written, else an `InputError`. Makes nothing.

    Called before a long computation, so that it does not end in "permission denied".

    >>> check_writable("/dev/null/rows.jsonl")
    Traceback (most recent call last):
    lmdyn.errors.InputError: cannot write /dev/null/rows.jsonl: /dev/null is not a folder; choose
    another file
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(
            f"cannot write {path}: it is a folder; name a file in it, such as {path / 'rows.jsonl'}"
        )
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"cannot write {path}: it is a device or pipe; name an ordinary file")
        _check_parent(path, "file")
    except OSError as err:
        raise InputError(f"cannot write {path}: {err.strerror}; choose another file") from err
    return path


def check_new_folder(path: str | os.PathLike) -> Path:
    """`path` if it is an empty folder or could be made one, else an `InputError`. Makes nothing.

    >>> check_new_folder("/dev/null/model")
    Traceback (most recent call last):
    lmdyn.errors.InputError: cannot write /dev/null/model: /dev/null is not a folder; choose another
    folder
    """
    path = Path(path)
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} exists and is not an empty folder; choose another")
        _check_parent(path, "folder")
    except OSError as err:
        raise InputError(f"cannot write {path}: {err.strerror}; choose another folder") from err
    return path


def _check_parent(path: Path, kind: str) -> None:
    """The nearest folder above `path` that is there must be one that may be written in."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: {folder} is not a folder; choose another {kind}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"cannot write {path}: no permission to write in {folder}; choose another {kind}"
        )


@contextlib.contextmanager
def _temporary(path):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:

            def commit():
                file.flush()
                os.fsync(file.fileno())
                os.chmod(name, 0o666 & ~_umask())
                os.replace(name, path)
                _sync(path.parent)

            yield file, commit
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _sync(path):
    """Flushes a file or folder to the disk, where the system lets us open it."""
    with contextlib.suppress(PermissionError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
