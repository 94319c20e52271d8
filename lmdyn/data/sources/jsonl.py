"""JSON Lines: `jsonl:PATH#FIELD`, one document per line."""

import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from lmdyn.data.lazy_documents import Documents, split_field, text_field
from lmdyn.data.sources.opening import BYTE_ORDER_MARK, find_paths, unpacked
from lmdyn.data.sources.text import read_text
from lmdyn.errors import InputError


def jsonl_documents(ref: str, rest: str) -> Documents:
    r"""One document per line of JSON Lines files, or per object of a JSON array.

    Args:
      ref: the whole reference, for errors.
      rest: `GLOB#FIELD`; several patterns are separated by commas, files may be compressed.

    Raises:
      InputError: no field, a file that cannot be read, or nothing in any of them. What is wrong on
        one line is raised when that line is read.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", delete=False) as file:
    ...     _ = file.write('{"text": "hello"}\n')
    >>> jsonl_documents("jsonl:a.jsonl#text", f"{file.name}#text")[0]
    'hello'
    """
    patterns, field = split_field(ref, rest, "jsonl:GLOB#FIELD")
    paths = find_paths(ref, patterns, ".jsonl")
    index = [_index(path, number) for number, path in enumerate(paths)]
    items: Any = np.concatenate(index)  # an array, which is as good as a sequence
    if not len(items):
        raise InputError(f"{ref}: {paths[0]} is empty; give a file with one JSON object per line")
    return Documents(ref, items, functools.partial(_read_item, paths=paths, field=field))


def _index(path: str, number: int) -> np.ndarray:
    """[documents, 3] int64: number of the file, byte offset (-1: in an array), line or place."""
    if is_array(path):
        return np.array([(number, -1, i) for i in range(len(_array(path)))], np.int64)
    starts = [(number, offset, line) for offset, line, _ in _lines(path)]
    return np.array(starts, np.int64).reshape(-1, 3)


def is_array(path: str) -> bool:
    """Whether a JSON file begins as an array.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", delete=False) as file:
    ...     _ = file.write('[{"text": "hello"}]')
    >>> is_array(file.name)
    True
    """
    with open(unpacked(path), "rb") as file:
        return file.read(64).removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"[")


@functools.lru_cache(maxsize=2)
def _array(path: str) -> list:
    try:
        return json.loads(read_text(path))
    except ValueError as err:
        raise InputError(
            f"{path} is not JSON: {err}; it must be one array of objects, or one object per line"
        ) from err


def _lines(path: str) -> Iterator[tuple[int, int, bytes]]:
    """(byte offset, number from 1, content) of every line that is not blank."""
    offset = 0
    with open(unpacked(path), "rb") as file:
        for number, line in enumerate(file, 1):
            start = 0
            if number == 1 and line.startswith(BYTE_ORDER_MARK):
                start = len(BYTE_ORDER_MARK)
            if line[start:].strip():
                yield offset + start, number, line[start:]
            offset += len(line)


def _read_item(item, paths, field):
    number, offset, place = (int(x) for x in item)
    path = paths[number]
    if offset < 0:
        record, where = _array(path)[place], f"{path} record {place}"
        if not isinstance(record, dict):
            raise InputError(f"{where} is not a JSON object but of type {type(record).__name__}")
        return text_field(record, field, where)
    with open(unpacked(path), "rb") as file:
        file.seek(offset)
        line = file.readline()
    where = f"{path} line {place}"
    return text_field(read_record(line, where, offset, f'{{"{field}": "..."}}'), field, where)


def read_record(line: bytes, where: str, offset: int, example: str) -> dict:
    """The object on one line of JSON Lines.

    Args:
      line: its bytes.
      where: its name in error messages.
      offset: where in the file it begins.
      example: what a good line looks like.

    Raises:
      InputError: the line is not UTF-8, not JSON, or not an object.

    >>> read_record(b'{"a": 1}', "file line 1", 0, "")
    {'a': 1}
    """
    try:
        record = json.loads(line)
    except UnicodeDecodeError as err:
        raise InputError(
            f"{where} is not UTF-8: byte 0x{line[err.start]:02x} at offset {offset + err.start};"
            " convert it, for example with iconv -t UTF-8"
        ) from err
    except ValueError as err:
        raise InputError(
            f"{where} is not JSON: {str(err).splitlines()[0]}; each line must be one JSON object"
        ) from err
    if not isinstance(record, dict):
        raise InputError(
            f"{where} is not a JSON object but of type {type(record).__name__}; each line must be"
            f" one object such as {example}"
        )
    return record


def json_lines(path: str, example: str) -> Iterator[tuple[dict, str]]:
    r"""The objects of a JSON Lines file, each with its name for errors; blank lines are left out.

    Args:
      path: of the file.
      example: what a good line looks like.

    Raises:
      InputError: the file cannot be read, or as for `read_record`.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", delete=False) as file:
    ...     _ = file.write('{"a": 1}\n\n{"a": 2}\n')
    >>> [record for record, where in json_lines(file.name, "")]
    [{'a': 1}, {'a': 2}]
    """
    for offset, number, line in _lines(path):
        where = f"{path} line {number}"
        yield read_record(line, where, offset, example), where


def json_records(path: str, text: str, example: str, what: str) -> Iterator[tuple[Any, str]]:
    """The records of a JSON file, of an array or one per line, each with its name for errors.

    Args:
      path: of the file.
      text: its content.
      example: what a good record looks like.
      what: what an array holds, for errors.

    Raises:
      InputError: it is not a JSON array, or as for `json_lines`.

    >>> list(json_records("a.json", "[1, 2]", "{}", "numbers"))
    [(1, 'a.json record 0'), (2, 'a.json record 1')]
    """
    if not text.lstrip().startswith("["):
        yield from json_lines(path, example)
        return
    try:
        records = json.loads(text)
    except ValueError as err:
        raise InputError(
            f"{path} is not JSON: {err}; it must be one array of {what}, or one object per line"
        ) from err
    for number, record in enumerate(records):
        yield record, f"{path} record {number}"
