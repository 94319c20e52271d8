"""A lazy sequence of documents, and the text that one record of a data set holds.

Documents have `len` and `[]` and nothing else, which is what Grain asks of a data source; nothing
is read before it is needed, and they pickle (Grain's workers are processes).
"""

import dataclasses
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lmdyn.errors import InputError, choose


@dataclasses.dataclass(frozen=True)
class Documents(Sequence[str]):
    """A lazy sequence: `len(documents)`, `documents[i] -> str`, `documents[i:j] -> Documents`.

    Args:
      reference: what the user called it; errors and rows name it.
      items: what there is to read, one item per document.
      read: item -> text.
      on_bad_document: `error`, or `skip`: a document that cannot be read is empty.
      skipped: what was wrong with those that were read, as the keys of a dict.

    Raises:
      InputError: another `on_bad_document`.

    >>> shouting = Documents("test:abc", ("a", "b", "c"), str.upper)
    >>> len(shouting), shouting[0], shouting[-1], list(shouting[:2])
    (3, 'A', 'C', ['A', 'B'])
    """

    reference: str
    items: Sequence[Any]
    read: Callable[[Any], str]
    on_bad_document: str = "error"
    skipped: dict[str, None] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        choose("on_bad_document", self.on_bad_document, ("error", "skip"))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return dataclasses.replace(self, items=self.items[index])
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {self.reference}, which has {len(self)}")
        try:
            return self.read(self.items[index])
        except InputError as err:
            if self.on_bad_document == "error":
                raise
            self.skipped[str(err)] = None
            return ""

    def warn(self) -> None:
        """Warns of the documents that were skipped, if any, with how many and what is wrong.

        >>> Documents("test:abc", ("a",), str.upper).warn()
        """
        if self.skipped:
            first = next(iter(self.skipped))
            warnings.warn(
                f"{self.reference}: {len(self.skipped)} of {len(self)} documents are skipped; the"
                f" first: {first}",
                stacklevel=3,
            )


def check_unicode(text: str, where: str) -> None:
    r"""Checks that a text can be written as UTF-8: it has no half of a surrogate pair.

    Args:
      text: such as JSON's escapes make it.
      where: its name in error messages.

    Raises:
      InputError: it has one.

    >>> check_unicode("a\ud83d", "a.jsonl line 1")
    Traceback (most recent call last):
    lmdyn.errors.InputError: a.jsonl line 1 has half of a surrogate pair, U+D83D, at character 1; it
    is not text: correct it, or skip such documents
    """
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise InputError(
            f"{where} has half of a surrogate pair, U+{ord(text[err.start]):04X}, at character"
            f" {err.start}; it is not text: correct it, or skip such documents"
        ) from None


def decode_utf8(raw: bytes, where: str) -> str:
    r"""The text of UTF-8 bytes.

    Args:
      raw: the bytes.
      where: its name in error messages.

    Raises:
      InputError: they are not UTF-8; it names the first byte that is wrong and its offset.

    >>> decode_utf8(b"caf\xc3\xa9", "a.txt")
    'café'
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as err:
        raise InputError(
            f"{where} is not UTF-8: byte 0x{raw[err.start]:02x} at offset {err.start}; convert it,"
            " for example with iconv -t UTF-8"
        ) from err


def split_field(ref: str, rest: str, example: str) -> tuple[str, str]:
    """`PATH#FIELD` as `(path, field)`.

    Args:
      ref: the whole reference, for errors.
      rest: what follows its kind.
      example: how to write it, for errors.

    Raises:
      InputError: there is no field.

    >>> split_field("jsonl:a.jsonl#text", "a.jsonl#text", "jsonl:PATH#FIELD")
    ('a.jsonl', 'text')
    """
    path, mark, field = rest.rpartition("#")
    if not mark or not field or not path:
        raise InputError(
            f"'{ref}' names no field; write {example}, FIELD being the one that holds the text"
        )
    return path, field


def text_field(record: Mapping[str, Any], field: str, where: str) -> str:
    """The text in one field of a record: a str, UTF-8 bytes, or a NumPy scalar of these.

    Args:
      record: its fields by name.
      field: which of them.
      where: what errors call the record.

    Raises:
      InputError: no such field, or one that does not hold text.

    >>> text_field({"text": b"hello"}, "text", "a.jsonl line 1")
    'hello'
    """
    if field not in record:
        raise InputError(
            f"{where} has no field '{field}'; it has:"
            f" {', '.join(sorted(map(str, record))) or 'none'}"
        )
    value = record[field]
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value.item()
    if isinstance(value, bytes):
        value = decode_utf8(value, where)
    if not isinstance(value, str):
        what = "null" if value is None else type(value).__name__
        raise InputError(
            f"{where}: field '{field}' is not text but {what}; name a field that holds text, or"
            " skip such documents"
        )
    check_unicode(value, where)
    return value
