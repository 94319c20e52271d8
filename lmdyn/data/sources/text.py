"""Plain text: `text:GLOB`, UTF-8 files of one document each."""

import glob
import os

from lmdyn.data.lazy_documents import Documents, decode_utf8
from lmdyn.errors import InputError


def text_documents(ref: str, pattern: str) -> Documents:
    """The files that match a pattern, sorted by name.

    Args:
      ref: the whole reference, for errors.
      pattern: of paths; `**` crosses folders.

    Raises:
      InputError: nothing matches, or all files are empty.

    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.txt").write_text("hello")
    >>> list(text_documents("text:*.txt", f"{folder}/*.txt"))
    ['hello']
    """
    found = glob.glob(os.path.expanduser(pattern), recursive=True)
    paths = tuple(sorted(path for path in found if not os.path.isdir(path)))
    if not paths and not glob.has_magic(pattern):
        what = (
            "is a folder; write"
            if os.path.isdir(os.path.expanduser(pattern))
            else "is not there; check the path, or write"
        )
        raise InputError(
            f"{ref}: {pattern} {what} {os.path.join(pattern, '*.txt')} for the files in a folder"
        )
    if not paths:
        raise InputError(
            f"{ref}: no file matches {pattern} (looked from {os.getcwd()}); check the path, and"
            " quote the pattern in a shell"
        )
    if not any(os.path.getsize(p) or not os.path.isfile(p) for p in paths):
        raise InputError(
            f"{ref}: {paths[0] if len(paths) == 1 else f'all {len(paths)} files'} empty; give a"
            " text with at least one window of tokens"
        )
    return Documents(ref, paths, read_text)


def read_text(path: str) -> str:
    r"""A UTF-8 file's text, with `\n` as line ends.

    Raises:
      InputError: the file cannot be read, or is not UTF-8; it names the byte and its offset.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("wb", delete=False) as file:
    ...     _ = file.write(b"two\r\nlines")
    >>> read_text(file.name)
    'two\nlines'
    """
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as err:
        raise InputError(
            f"cannot read {path}: {err.strerror}; check the path and its permissions"
        ) from err
    return decode_utf8(raw, path).replace("\r\n", "\n").replace("\r", "\n")
