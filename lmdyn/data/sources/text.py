"""Plain text: `text:GLOB`, UTF-8 files of one document each."""

from lmdyn.data.lazy_documents import Documents, decode_utf8
from lmdyn.data.sources.opening import BYTE_ORDER_MARK, find_paths, unpacked


def text_documents(ref: str, patterns: str) -> Documents:
    """The files of a list of patterns; see `find_paths`. They may be compressed.

    Args:
      ref: the whole reference, for errors.
      patterns: separated by commas.

    Raises:
      InputError: nothing matches, or all files are empty.

    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.txt").write_text("hello")
    >>> list(text_documents("text:*.txt", f"{folder}/*.txt"))
    ['hello']
    """
    return Documents(ref, find_paths(ref, patterns), read_text)


def read_text(path: str) -> str:
    r"""A UTF-8 file's text, with `\n` as line ends and without a byte order mark.

    Raises:
      InputError: the file cannot be read, or is not UTF-8; it names the byte and its offset.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("wb", delete=False) as file:
    ...     _ = file.write(b"\xef\xbb\xbftwo\r\nlines")
    >>> read_text(file.name)
    'two\nlines'
    """
    with open(unpacked(path), "rb") as file:
        raw = file.read()
    text = decode_utf8(raw, path).removeprefix(BYTE_ORDER_MARK.decode())
    return text.replace("\r\n", "\n").replace("\r", "\n")
