"""TWiki-Probes of TemporalWiki (Jang et al. 2022)."""

import csv
import io
import os
import re
from collections.abc import Iterator

from lmdyn.data.probes.cloze import text_in, usable
from lmdyn.data.probes.probe import Probe
from lmdyn.data.sources.jsonl import json_records
from lmdyn.data.sources.text import read_text
from lmdyn.errors import InputError, choose

KIND_OF_WORD = {"unchanged": "unchanged", "updated": "updated", "changed": "updated", "new": "new"}
"""What TemporalWiki's files are called, and the kind of knowledge in them."""


def temporalwiki(path: str, kind: str | None = None) -> tuple[Probe, ...]:
    r"""Facts of two Wikipedia snapshots as subject, relation, object.

    Jang et al. 2022, TWiki-Probes.

    Args:
      path: a CSV file with the columns `subject`, `relation` and `objective` (or `object`), or
        JSON: an array of triples or of dicts, or one dict per line.
      kind: unchanged, updated, changed (which counts as updated) or new; default what the file's
        name says, such as `0801-0901_unchanged.csv`. A row's own column `kind` goes before both.

    Returns:
      One probe per row: the three joined by spaces, as the authors score decoders; the object is
      asked for.

    Raises:
      InputError: the file cannot be read, a missing or empty field, or a kind that is not known.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix="_updated.csv", delete=False) as file:
    ...     print(
    ...         "subject,relation,objective",
    ...         "Xelton,head of government,Ada Quill",
    ...         sep="\n",
    ...         file=file,
    ...     )
    >>> [(found.text, found.target, found.kind) for found in temporalwiki(file.name)]
    [('Xelton head of government Ada Quill', 'Ada Quill', 'updated')]
    """
    named = {
        word for word in re.split("[^a-z]+", os.path.basename(path).lower()) if word in KIND_OF_WORD
    }
    if kind is None and len(named) == 1:
        kind = named.pop()

    def asked():
        for record, where in _rows(path):
            own = record.get("kind") or kind
            if own is None:
                raise InputError(
                    f"{where}: neither the file's name nor a column says of which kind its facts"
                    " are; add one of @updated, @new, @unchanged"
                )
            own = KIND_OF_WORD[choose(f"kind of facts of {where}", own, KIND_OF_WORD)]
            subject, relation = (text_in(record, field, where) for field in ("subject", "relation"))
            target = text_in(record, "object" if "object" in record else "objective", where)
            prompt = f"{subject} {relation} "
            yield Probe(
                prompt + target,
                len(prompt),
                len(prompt + target),
                own,
                None,
                subject,
                relation,
                None,
                where,
            )

    return usable(asked(), path)


def _rows(path) -> Iterator[tuple[dict, str]]:
    """(row, its name in error messages) of CSV with a header, or of JSON."""
    text = read_text(path)
    start = text.lstrip()[:1]
    if start in ("{", "["):
        example = '{"subject": "...", "relation": "...", "object": "..."}'
        for row, where in json_records(path, text, example, "triples or objects"):
            if isinstance(row, list) and len(row) == 3:
                row = dict(zip(("subject", "relation", "object"), row, strict=True))
            if not isinstance(row, dict):
                raise InputError(
                    f"{where} is not a fact; write an array of [subject, relation, object]"
                )
            yield row, where
    else:
        table = csv.DictReader(io.StringIO(text, newline=""))
        try:
            for row in table:
                yield row, f"{path} line {table.line_num}"
        except csv.Error as err:
            raise InputError(
                f"{path} line {table.line_num} is not CSV: {err}; correct the quotation marks"
            ) from err
