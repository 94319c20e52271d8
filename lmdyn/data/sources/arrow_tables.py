"""Columns of Arrow tables: `parquet:GLOB#FIELD`, and `arrow:FOLDER#FIELD` of `save_to_disk`.

One document per row. Parquet is read by row groups, Arrow files are mapped into memory.
"""

import bisect
import functools
import json
import os
from typing import Any

from lmdyn.data.lazy_documents import Documents, split_field, text_field
from lmdyn.data.sources.opening import find_paths, import_pyarrow
from lmdyn.errors import InputError
from lmdyn.file_kinds import mismatch


def parquet_documents(ref: str, rest: str) -> Documents:
    """One document per row of Parquet files.

    Args:
      ref: the whole reference, for errors.
      rest: `GLOB#FIELD`, or `FOLDER#FIELD` for all `*.parquet` below a folder.

    Raises:
      InputError: no field, nothing there, or files that are not Parquet.

    >>> import pyarrow, pyarrow.parquet, tempfile
    >>> path = tempfile.mkdtemp() + "/a.parquet"
    >>> pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"]}), path)
    >>> list(parquet_documents("parquet:", f"{path}#text"))
    ['one', 'two']
    """
    patterns, field = split_field(ref, rest, "parquet:GLOB#FIELD")
    if os.path.isdir(folder := os.path.expanduser(patterns)):
        patterns = os.path.join(folder, "**", "*.parquet")
    groups, ends = [], [0]
    for path in find_paths(ref, patterns, ".parquet"):
        file = _parquet(path)
        check_column(ref, path, field, file.schema_arrow.names)
        for group in range(file.metadata.num_row_groups):
            groups.append((path, group))
            ends.append(ends[-1] + file.metadata.row_group(group).num_rows)
    read = functools.partial(_read_row, table=_row_group, groups=groups, ends=ends, field=field)
    return _rows(ref, ends[-1], read)


def arrow_documents(ref: str, rest: str) -> Documents:
    """One document per row of a data set that `datasets.Dataset.save_to_disk` wrote.

    Args:
      ref: the whole reference, for errors.
      rest: `FOLDER#FIELD`, or `GLOB#FIELD` of Arrow files.

    Raises:
      InputError: no field, nothing there, a folder of several splits, or files that are not Arrow.

    >>> import pyarrow, tempfile
    >>> path, table = tempfile.mkdtemp() + "/a.arrow", pyarrow.table({"text": ["one", "two"]})
    >>> with pyarrow.ipc.new_stream(path, table.schema) as file:
    ...     file.write_table(table)
    >>> list(arrow_documents("arrow:", f"{path}#text"))
    ['one', 'two']
    """
    patterns, field = split_field(ref, rest, "arrow:FOLDER#FIELD")
    folder = os.path.expanduser(patterns)
    paths = _saved(ref, folder) if os.path.isdir(folder) else find_paths(ref, patterns, ".arrow")
    ends = [0]
    for path in paths:
        table = _arrow(path)
        check_column(ref, path, field, table.column_names)
        ends.append(ends[-1] + table.num_rows)
    groups = [(path, None) for path in paths]
    read = functools.partial(_read_row, table=_whole, groups=groups, ends=ends, field=field)
    return _rows(ref, ends[-1], read)


def _rows(ref: str, count: int, read) -> Documents:
    if not count:
        raise InputError(f"{ref} has no rows; give a text with at least one window of tokens")
    return Documents(ref, range(count), read)


def _saved(ref: str, folder: str) -> list[str]:
    """The files of a folder, in the order in which its `state.json` names them."""
    splits = os.path.join(folder, "dataset_dict.json")
    if os.path.isfile(splits):
        with open(splits, encoding="utf-8") as file:
            names = json.load(file)["splits"]
        raise InputError(
            f"{ref}: {folder} holds the splits {', '.join(names)}; write"
            f" arrow:{os.path.join(folder, names[0])}#FIELD"
        )
    state = os.path.join(folder, "state.json")
    if not os.path.isfile(state):
        return list(find_paths(ref, os.path.join(folder, "**", "*.arrow"), ".arrow"))
    with open(state, encoding="utf-8") as file:
        return [os.path.join(folder, one["filename"]) for one in json.load(file)["_data_files"]]


def check_column(ref: str, path: str, field: str, names: list[str]) -> None:
    """Raises an `InputError` that lists the columns if `field` is none of them.

    >>> check_column("parquet:", "a.parquet", "text", ["text"])
    """
    if field not in names:
        raise InputError(f"{ref}: {path} has no field '{field}'; it has: {', '.join(names)}")


def _read_row(row, table, groups, ends, field) -> str:
    """The text of a row, counted over all groups."""
    at = bisect.bisect_right(ends, int(row)) - 1
    place, where = int(row) - ends[at], f"{groups[at][0]} row {int(row) - ends[at]}"
    column = table(*groups[at], field)
    return text_field({field: column[place].as_py()}, field, where)


@functools.lru_cache(maxsize=4)
def _row_group(path: str, group: int, field: str) -> Any:
    return _parquet(path).read_row_group(group, columns=[field]).column(field)


def _whole(path: str, group: None, field: str) -> Any:
    return _arrow(path).column(field)


@functools.lru_cache(maxsize=8)
def _parquet(path: str) -> Any:
    import_pyarrow(path, "Parquet")
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as err:
        why = " ".join(str(err).split()).rstrip(".")
        raise InputError(mismatch(path, "a whole Parquet file", why)) from err


@functools.lru_cache(maxsize=1024)
def _arrow(path: str) -> Any:
    """The table of an Arrow file or stream, mapped into memory."""
    pyarrow = import_pyarrow(path, "Arrow")
    try:
        file = pyarrow.memory_map(path)
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        return (pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream)(file).read_all()
    except (OSError, pyarrow.ArrowInvalid) as err:
        why = " ".join(str(err).split()).rstrip(".")
        raise InputError(mismatch(path, "a whole Arrow file", why)) from err
