"""Where text comes from: a reference such as `text:corpus/*.txt` becomes a lazy sequence of
documents.

Documents have `len` and `[]` and nothing else, which is what Grain asks of a data source; nothing
is read before it is asked for, and they pickle (Grain's workers are processes).
"""

import dataclasses
import functools
import glob
import json
import operator
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from lmdyn.data.sources import builtin
from lmdyn.errors import InputError, choose


@dataclasses.dataclass(frozen=True)
class Documents(Sequence[str]):
    """A lazy sequence of documents: `len(documents)`, `documents[i] -> str`, `documents[i:j] ->
    Documents`.

    Args:
      reference: what the user called it; errors and rows name it.
      items: what there is to read, one item a document.
      read: item -> text.

    >>> shouting = Documents("test:abc", ("a", "b", "c"), str.upper)
    >>> len(shouting), shouting[0], shouting[-1], list(shouting[:2])
    (3, 'A', 'C', ['A', 'B'])
    """

    reference: str
    items: Sequence[Any]
    read: Callable[[Any], str]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return dataclasses.replace(self, items=self.items[index])
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {self.reference}, which has {len(self)}")
        return self.read(self.items[index])


def documents(ref: str) -> Documents:
    """The documents of a text reference.

    Args:
      ref: one of `text:GLOB`: UTF-8 files, one document each, sorted by name (`**` crosses
        folders); `jsonl:PATH#FIELD`: JSON Lines, one document a line;
        `tfds:NAME[/CONFIG][:VERSION]:SPLIT#FIELD`: a dataset prepared with tfds in array_record
        files (no TensorFlow needed), by its name or folder; `tfds:synthetic_world/small:time0#text`
        (or `medium`, `large`, `people=300,seed=1`) is made when it is first asked for, see
        `lmdyn.data.worlds.world`; `builtin:NAME[:SPLIT]`: text that every Python has (`docs`,
        `code`), all of it or its split `train` or `test`.

    Returns:
      A lazy sequence of str.

    Raises:
      InputError: an unknown kind, nothing there, nothing in it, or a file that cannot be read as
        said. What is wrong inside one document is raised when that document is read.

    >>> docs = documents("builtin:docs")
    >>> len(docs) > 100, docs[0].splitlines()[0]
    (True, 'The "assert" statement')
    """
    kind, colon, rest = ref.partition(":")
    if not colon:
        raise InputError(
            f"text reference '{ref}' has no kind; write text:GLOB, jsonl:PATH#FIELD,"
            " tfds:NAME:SPLIT#FIELD or builtin:NAME"
        )
    kinds = {"text": _text, "jsonl": _jsonl, "tfds": _tfds, "builtin": _builtin}
    return kinds[choose("kind of text reference", kind, kinds)](ref, rest)


def _builtin(ref, name):
    return Documents(ref, *builtin.corpus(name))


def _text(ref, pattern):
    paths = tuple(
        sorted(
            p
            for p in glob.glob(os.path.expanduser(pattern), recursive=True)
            if not os.path.isdir(p)
        )
    )
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
    """A UTF-8 file's text, line ends as `\\n`. Bytes that are not UTF-8 are an `InputError` that
    says where.
    """
    return _decode(_read(path), path).replace("\r\n", "\n").replace("\r", "\n")


def _read(path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as err:
        raise InputError(
            f"cannot read {path}: {err.strerror}; check the path and its permissions"
        ) from err


def _decode(raw: bytes, path) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as err:
        raise InputError(
            f"{path} is not UTF-8: byte 0x{raw[err.start]:02x} at offset {err.start}; convert it,"
            " for example with iconv -t UTF-8"
        ) from err


def _split_field(ref, rest, example):
    path, mark, field = rest.rpartition("#")
    if not mark or not field or not path:
        raise InputError(
            f"'{ref}' names no field; write {example}, FIELD being the one that holds the text"
        )
    return path, field


def _jsonl(ref, rest):
    path, field = _split_field(ref, rest, "jsonl:PATH#FIELD")
    path = os.path.expanduser(path)
    lines: Any = _line_starts(path)  # an array, which is as good as a sequence
    if not len(lines):
        raise InputError(f"{ref}: {path} is empty; give a file with one JSON object a line")
    return Documents(ref, lines, functools.partial(_read_line, path=path, field=field))


def _line_starts(path) -> np.ndarray:
    """[lines, 2] int64: byte offset and number of every line that is not blank."""
    starts, offset = [], 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    starts.append((offset, number))
                offset += len(line)
    except OSError as err:
        raise InputError(
            f"cannot read {path}: {err.strerror}; check the path and its permissions"
        ) from err
    return np.array(starts, np.int64).reshape(-1, 2)


def _read_line(item, path, field):
    offset, number = (int(x) for x in item)
    with open(path, "rb") as file:
        file.seek(offset)
        line = file.readline()
    where = f"{path} line {number}"
    return _field(read_record(line, where, offset, f'{{"{field}": "..."}}'), field, where)


def read_record(line: bytes, where: str, offset: int, example: str) -> dict:
    """The object on one line of JSON Lines.

    Args:
      line: its bytes.
      where, offset: what errors call it, and where in the file it begins.
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
            f"{where} is not a JSON object but a {type(record).__name__}; each line must be one"
            f" object such as {example}"
        )
    return record


def json_lines(path: str, example: str) -> Iterator[tuple[dict, str]]:
    """The objects of a JSON Lines file, and what errors call each; blank lines are left out.

    Args:
      path: of the file.
      example: what a good line looks like.

    Raises:
      InputError: the file cannot be read, or as for `read_record`.
    """
    offset = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                where = f"{path} line {number}"
                if line.strip():
                    yield read_record(line, where, offset, example), where
                offset += len(line)
    except OSError as err:
        raise InputError(
            f"cannot read {path}: {err.strerror}; check the path and its permissions"
        ) from err


def _field(record, field, where):
    if field not in record:
        raise InputError(
            f"{where} has no field '{field}'; it has:"
            f" {', '.join(sorted(map(str, record))) or 'none'}"
        )
    value = record[field]
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value.item()
    if isinstance(value, bytes):
        value = _decode(value, where)
    if not isinstance(value, str):
        raise InputError(
            f"{where}: field '{field}' is not text but {type(value).__name__}; name a field that"
            " holds text"
        )
    return value


_SPLIT = r"[\w.-]+(?:\[[^\]]*\])?"  # such as train[:1%]


def _tfds(ref, rest):
    example = "tfds:NAME[/CONFIG]:SPLIT#FIELD"
    rest, field = _split_field(ref, rest, example)
    source = tfds_source(ref, rest, example)
    return Documents(
        ref,
        range(len(source)),
        functools.partial(_read_example, source=source, field=field, name=rest),
    )


def tfds_source(ref: str, rest: str, example: str) -> Sequence[dict]:
    """The examples of a tfds split, by index.

    Args:
      ref: the whole reference, for errors.
      rest: NAME[/CONFIG]:SPLIT.
      example: how to write it, for errors.

    Raises:
      InputError: no such dataset or split, one that is not prepared, or an empty one.
    """
    parts = re.fullmatch(rf"(.+):({_SPLIT}(?:\+{_SPLIT})*)", rest)
    if not parts:
        raise InputError(
            f"'{ref}' names no split; write {example}, for example tfds:imdb_reviews:train#text"
        )
    name, split = parts.groups()
    builder = _tfds_builder(ref, name)
    plain = split.partition("[")[0]
    if builder.info.splits and "+" not in split and plain != "all":
        choose("split", plain, builder.info.splits)
    try:
        source = cast(Any, builder).as_data_source(split=split)
    except (
        Exception
    ) as err:  # tfds raises many kinds: file format, missing files, a split that does not parse
        if not builder.info.splits:
            raise InputError(
                f"{ref}: dataset '{name}' is not prepared in {builder.data_dir}; prepare it with"
                " tfds, or set TFDS_DATA_DIR"
            ) from err
        raise InputError(
            f"{ref}: cannot be read by index: {_first_line(err)}; prepare it with"
            " file_format='array_record'"
        ) from err
    if not len(source):
        raise InputError(f"{ref}: the split '{split}' is empty; choose another split")
    return source


def _tfds_builder(ref, name):
    import tensorflow_datasets as tfds

    folder = os.path.expanduser(name)
    try:
        if name.partition("/")[0] == "synthetic_world" and not os.path.exists(
            os.path.join(folder, "features.json")
        ):
            from lmdyn.data.worlds import builder as world_builder  # not above: it imports tfds

            return world_builder.builder(name, os.environ.get("TFDS_DATA_DIR"))
        if os.path.isdir(folder):
            return tfds.builder_from_directory(folder)
        return tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"), try_gcs=False)
    except InputError:
        raise
    except Exception as err:
        where = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
        raise InputError(
            f"{ref}: no dataset '{name}' could be opened ({_first_line(err)}); prepare it under"
            f" {where}, set TFDS_DATA_DIR, or give its folder"
        ) from err


def _first_line(err) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:160]


def _read_example(index, source, field, name):
    return _field(source[int(index)], field, f"{name} example {index}")
