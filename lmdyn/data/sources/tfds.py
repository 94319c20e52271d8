"""TFDS datasets: `tfds:NAME[/CONFIG][:VERSION]:SPLIT#FIELD`, read without TensorFlow."""

import functools
import os
import re
from collections.abc import Sequence
from typing import Any, cast

from lmdyn.data.lazy_documents import Documents, split_field, text_field
from lmdyn.errors import InputError, choose

_SPLIT = r"[\w.-]+(?:\[[^\]]*\])?"  # such as train[:1%]


def tfds_documents(ref: str, rest: str) -> Documents:
    """One document per example of a split.

    Args:
      ref: the whole reference, for errors.
      rest: `NAME[/CONFIG][:VERSION]:SPLIT#FIELD`.

    Raises:
      InputError: no field, or as for `tfds_source`.

    >>> world = "synthetic_world/people=5,places=4:time0#text"
    >>> len(tfds_documents(f"tfds:{world}", world))
    35
    """
    example = "tfds:NAME[/CONFIG]:SPLIT#FIELD"
    rest, field = split_field(ref, rest, example)
    source = tfds_source(ref, rest, example)
    read = functools.partial(_read_example, source=source, field=field, name=rest)
    return Documents(ref, range(len(source)), read)


def _read_example(index, source, field, name):
    return text_field(source[int(index)], field, f"{name} example {index}")


def tfds_source(ref: str, rest: str, example: str) -> Sequence[dict]:
    """The examples of a TFDS split, by index.

    Args:
      ref: the whole reference, for errors.
      rest: NAME[/CONFIG]:SPLIT.
      example: how to write it, for errors.

    Raises:
      InputError: no such dataset or split, one that is not prepared, or an empty one.

    >>> world = "synthetic_world/people=5,places=4:probes"
    >>> tfds_source(f"tfds:{world}", world, "tfds:NAME:SPLIT")[0]["depth"]
    b'memorisation'
    """
    parts = re.fullmatch(rf"(.+):({_SPLIT}(?:\+{_SPLIT})*)", rest)
    if not parts:
        raise InputError(
            f"'{ref}' names no split; write {example}, for example tfds:imdb_reviews:train#text"
        )
    name, split = parts.groups()
    builder = _builder(ref, name)
    plain = split.partition("[")[0]
    if builder.info.splits and "+" not in split and plain != "all":
        choose("split", plain, builder.info.splits)
    try:
        source = cast(Any, builder).as_data_source(split=split)
    except Exception as err:  # many kinds: file format, missing files, a split that does not parse
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


def _builder(ref, name):
    import tensorflow_datasets

    folder = os.path.expanduser(name)
    try:
        if name.partition("/")[0] == "synthetic_world" and not os.path.exists(
            os.path.join(folder, "features.json")
        ):
            from lmdyn.data.worlds.tfds_builder import world_builder  # it imports TFDS

            return world_builder(name, os.environ.get("TFDS_DATA_DIR"))
        if os.path.isdir(folder):
            return tensorflow_datasets.builder_from_directory(folder)
        data_dir = os.environ.get("TFDS_DATA_DIR")
        return tensorflow_datasets.builder(name, data_dir=data_dir, try_gcs=False)
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
