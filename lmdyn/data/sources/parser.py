"""A text reference such as `text:corpus/*.txt` becomes a lazy sequence of documents."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable

from lmdyn.data.lazy_documents import Documents
from lmdyn.data.sources.arrow_tables import arrow_documents, parquet_documents
from lmdyn.data.sources.builtin import builtin_documents
from lmdyn.data.sources.jsonl import jsonl_documents
from lmdyn.data.sources.text import text_documents
from lmdyn.data.sources.tfds import tfds_documents
from lmdyn.errors import InputError
from lmdyn.names import resolve

SOURCES: dict[str, Callable[[str, str], Documents]] = {
    "text": text_documents,
    "jsonl": jsonl_documents,
    "parquet": parquet_documents,
    "arrow": arrow_documents,
    "tfds": tfds_documents,
    "builtin": builtin_documents,
}
"""By kind of reference: `(reference, what follows the kind) -> Documents`."""


def documents(ref: str, on_bad_document: str = "error") -> Documents:
    """The documents of a text reference.

    Args:
      ref: one of `text:GLOB`: UTF-8 files, one document each, sorted by name (`**` crosses
        folders); `jsonl:GLOB#FIELD`: JSON Lines (one document per line), or arrays of objects. A
        list of patterns is separated by commas, and files may be packed with gzip, zstd, bz2 or xz.
        `parquet:GLOB#FIELD`, `arrow:FOLDER#FIELD`: one document per row, of Parquet files and of
        what `datasets.Dataset.save_to_disk` wrote.
        `tfds:NAME[/CONFIG][:VERSION]:SPLIT#FIELD`: a dataset prepared with TFDS in array_record
        files (no TensorFlow needed), by its name or folder; `tfds:synthetic_world/small:time0#text`
        (or `medium`, `large`, `people=300,seed=1`) is made when first used, see
        `lmdyn.data.worlds.world`; `builtin:NAME[:SPLIT]`: text that every Python has (`docs`,
        `code`), all of it or its split `train` or `test`; `my_pkg.my_source:REST`: what
        `my_source(ref, rest)` in your package returns.
      on_bad_document: `error`; or `skip`: a document that cannot be read is left out and counted.

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
    if not colon or (kind not in SOURCES and _meant(ref)):
        meant = _meant(ref) or "text:GLOB, jsonl:PATH#FIELD, tfds:NAME:SPLIT#FIELD or builtin:NAME"
        raise InputError(f"text reference '{ref}' has no kind; write {meant}")
    found = resolve(kind, SOURCES, "kind of text reference")(ref, rest)
    return dataclasses.replace(found, on_bad_document=on_bad_document)


def _meant(ref: str) -> str | None:
    """The reference that a path, a name or an address without a kind stands for, if any."""
    if "://" in ref:
        return "text:PATH of a copy; addresses are not fetched"
    if ref.startswith("hf:"):
        return "arrow:FOLDER#FIELD, the folder that Dataset.save_to_disk of datasets made"
    if os.path.isdir(ref):
        return f"text:{os.path.join(ref, '*.txt')}, or another glob for its files"
    end = re.search(r"\.(jsonl|json|parquet|arrow|txt|md)(\.\w+)?$", ref)
    if end and end[1] in ("jsonl", "json", "parquet", "arrow"):
        return f"{'jsonl' if end[1] == 'json' else end[1]}:{ref}#FIELD"
    path = end or os.path.isfile(ref) or re.match(r"\.{0,2}/|~|[A-Za-z]:[\\/]", ref)
    return f"text:{ref}" if path else None


def check_texts(refs: Iterable[str]) -> None:
    """Checks that texts are there, before any work: opens each of them.

    Args:
      refs: text references.

    Raises:
      InputError: as `documents`.

    >>> check_texts(["builtin:docs", "builtin:dosc"])
    Traceback (most recent call last):
    lmdyn.errors.InputError: unknown built-in text 'dosc'; did you mean 'docs'? known: code, docs
    """
    for ref in refs:
        documents(ref)
