"""Probes as others published them: TempLAMA and dynamic TempLAMA, ECBD, TemporalWiki.

Cloze questions have a blank somewhere. A decoder sees what stands before it only, so the probe is
the text up to the blank and the answer; questions that begin with the blank cannot be asked, and
are left out with a warning.
"""

import contextlib
import csv
import datetime
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator

from lmdyn.data.probes.probe import Probe
from lmdyn.data.sources import references as sources
from lmdyn.errors import InputError, choose

BLANK = re.compile(r"_X_|<extra_id_0>|\[MASK\]|<mask>")
KINDS = {"unchanged": "unchanged", "updated": "updated", "changed": "updated", "new": "new"}
"""What TemporalWiki's files are called, and the kind of knowledge in them."""


def templama(path: str, old: str | int, new: str | int) -> tuple[Probe, ...]:
    """What was true at the date `new`, by whether it was so at `old` (Dhingra et al. 2022;
    Margatina et al. 2023).

    Args:
      path: JSON Lines with `query` (with a blank), `answer` (a dict with `name` and perhaps
        `wikidata_id`, or a list of such; a name may be a list of names, of which the first of
        `original_name`, or else the first, is asked for), `date` (2019, 2019-Q1, 2019-03 or
        2019-03-25), and optionally `relation` and `id` (subject_relation_date).
      old, new: two dates of the file.

    Returns:
      A probe for every answer of every query at `new`: unchanged if it was an answer at `old`,
        updated if there were
      others, new if the query is not asked at `old`. `entity` is the subject of `id`, `attribute`
      the relation.

    Raises:
      InputError: the file cannot be read, a date that does not parse or that no line has, a query
        without a blank, an empty answer, a missing field; it names the file and the line.

    >>> import tempfile
    >>> line = '{"query": "Ada Quill plays for _X_.", "answer": [{"name": "%s"}], "date": "%d"}'
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
    ...     print(line % ("Dunmouth", 2010), line % ("Xelton", 2020), sep="\\n", file=file)
    >>> [(found.text, found.kind) for found in templama(file.name, 2010, 2020)]
    [('Ada Quill plays for Xelton', 'updated')]
    """
    old, new = (_date(given, f"templama:{path}@{old},{new}") for given in (old, new))
    example = '{"query": "... plays for _X_.", "answer": [{"name": "..."}], "date": "2019"}'
    lines = [
        (
            _text(record, "query", where),
            list(_answers(record, where)),
            _date(_field(record, "date", where), where),
            record,
            where,
        )
        for record, where in sources.json_lines(path, example)
    ]
    dates = {date for _, _, date, _, _ in lines}
    for date in (old, new):
        if date not in dates:
            raise InputError(
                f"{path} has no question of {date}; it has: {', '.join(sorted(dates)) or 'nothing'}"
            )
    before: dict[str, set[str]] = {}
    for query, answers, date, _, _ in lines:
        if date == old:
            before.setdefault(query, set()).update(key for key, _ in answers)

    def asked():
        for query, answers, date, record, where in lines:
            for key, name in answers if date == new else ():
                known = before.get(query)
                kind = "new" if known is None else "unchanged" if key in known else "updated"
                subject = str(record.get("id", "")).partition("_")[0] or None
                time = int(date) if date.isdigit() else date
                yield _cloze(
                    query,
                    name,
                    where,
                    kind=kind,
                    entity=subject,
                    attribute=record.get("relation"),
                    time=time,
                )

    return _kept(asked(), path)


def _answers(record, where) -> Iterator[tuple[str, str]]:
    """(what makes an answer the same, its name)"""
    found = _field(record, "answer", where)
    for answer in found if isinstance(found, list) else [found]:
        if not isinstance(answer, dict):
            raise InputError(f"{where}: an answer is not an object with a name but {answer!r:.60}")
        name = answer.get("original_name") or answer.get("name")
        name = name[0] if isinstance(name, list) and name else name
        if not isinstance(name, str) or not name.strip():
            raise InputError(
                f"{where}: the answer is empty; give the text that is asked for as its name"
            )
        yield str(answer.get("wikidata_id") or name), name.strip()
    if not found:
        raise InputError(
            f"{where}: the answer is empty; give the text that is asked for as its name"
        )


def _date(given, where) -> str:
    """A date as text, checked."""
    text = str(given)
    if re.fullmatch(r"\d{4}(-Q[1-4]|(-\d\d){0,2})", text):
        day = re.sub("Q[1-4]", "01", text) + "-01-01"
        with contextlib.suppress(ValueError):  # such as month 13
            datetime.date.fromisoformat(day[:10])
            return text
    raise InputError(
        f"{where}: '{text}' is no date; write a year such as 2019, or 2019-Q1, 2019-03, 2019-03-25"
    )


def ecbd(path: str, cutoff: str | int) -> tuple[Probe, ...]:
    """Sentences about entities, by whether the entity is younger than a year (Onoe et al. 2022,
    Entity Cloze By Date).

    Args:
      path: JSON Lines with `masked_sentence`, `answer_d` (blank to answer) or `answer_str` (the
        answer between two blanks), `year` of the entity's origin, and optionally `entity_span_str`
        and `span_type`.
      cutoff: the last year that the model knows of.

    Returns:
      A probe a line: new if the entity's year is after `cutoff`, else unchanged. `attribute` is the
        type of span. The
      entity may stand behind the span, where a decoder does not see it.

    Raises:
      InputError: as for `templama`.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
    ...     print(
    ...         '{"masked_sentence": "Xelton has <extra_id_0>, and a port.", "answer_d": {"<extra_id_0>": "two rivers"}, '
    ...         '"year": "2019", "entity_span_str": "Xelton"}',
    ...         file=file,
    ...     )
    >>> [(found.text, found.target, found.kind) for found in ecbd(file.name, 2018)]
    [('Xelton has two rivers', 'two rivers', 'new')]
    """
    last = _year(cutoff, f"ecbd:{path}@{cutoff}")
    example = (
        '{"masked_sentence": "... has <extra_id_0>.", "answer_d": {"<extra_id_0>": "..."}, "year":'
        ' "2019"}'
    )

    def asked():
        for record, where in sources.json_lines(path, example):
            sentence, year = (
                _text(record, "masked_sentence", where),
                _year(_field(record, "year", where), where),
            )
            answer = record.get("answer_d")
            if isinstance(answer, dict):
                answer = next(iter(answer.values()), "")
            else:
                answer = re.sub(r"<extra_id_\d+>", "", _text(record, "answer_str", where))
            kind = "new" if year > last else "unchanged"
            labels = dict(
                entity=record.get("entity_span_str"), attribute=record.get("span_type"), time=year
            )
            yield _cloze(sentence, answer, where, kind=kind, **labels)

    return _kept(asked(), path)


def _year(given, where) -> int:
    if not re.fullmatch(r"\d{4}", str(given)):
        raise InputError(f"{where}: '{given}' is no year; write one such as 2019")
    return int(given)


def temporalwiki(path: str, kind: str | None = None) -> tuple[Probe, ...]:
    """Facts of two Wikipedia snapshots as subject, relation, object (Jang et al. 2022,
    TWiki-Probes).

    Args:
      path: a CSV file with the columns `subject`, `relation` and `objective` (or `object`), or
        JSON: an array of triples or of dicts, or one dict a line.
      kind: unchanged, updated, changed (which counts as updated) or new; default what the file's
        name says, such as `0801-0901_unchanged.csv`. A row's own column `kind` goes before both.

    Returns:
      A probe a row: the three joined by spaces, as the authors score decoders; the object is asked
        for.

    Raises:
      InputError: the file cannot be read, a missing or empty field, or a kind that is not known.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix="_updated.csv", delete=False) as file:
    ...     print(
    ...         "subject,relation,objective",
    ...         "Xelton,head of government,Ada Quill",
    ...         sep="\\n",
    ...         file=file,
    ...     )
    >>> [(found.text, found.target, found.kind) for found in temporalwiki(file.name)]
    [('Xelton head of government Ada Quill', 'Ada Quill', 'updated')]
    """
    named = {word for word in re.split("[^a-z]+", os.path.basename(path).lower()) if word in KINDS}
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
            own = KINDS[choose(f"kind of facts of {where}", own, KINDS)]
            subject, relation = (_text(record, field, where) for field in ("subject", "relation"))
            target = _text(record, "object" if "object" in record else "objective", where)
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

    return _kept(asked(), path)


def _rows(path) -> Iterator[tuple[dict, str]]:
    """(row, what errors call it) of CSV with a header, or of JSON."""
    text = sources.read_text(path)
    start = text.lstrip()[:1]
    if start == "{":
        yield from sources.json_lines(
            path, '{"subject": "...", "relation": "...", "object": "..."}'
        )
    elif start == "[":
        try:
            rows = json.loads(text)
        except ValueError as err:
            raise InputError(
                f"{path} is not JSON: {err}; it must be one array of triples or objects"
            ) from err
        for i, row in enumerate(rows):
            where = f"{path} record {i}"
            if isinstance(row, list) and len(row) == 3:
                row = dict(zip(("subject", "relation", "object"), row, strict=True))
            if not isinstance(row, dict):
                raise InputError(
                    f"{where} is no fact; write an array of [subject, relation, object]"
                )
            yield row, where
    else:
        table = csv.DictReader(io.StringIO(text, newline=""))
        try:
            for row in table:
                yield row, f"{path} line {table.line_num}"
        except csv.Error as err:
            raise InputError(
                f"{path} line {table.line_num} is not CSV: {err}; mend the quotation marks"
            ) from err


READERS: dict[str, tuple[Callable, tuple[int, ...], str]] = {
    "templama": (templama, (2,), "templama:PATH@OLD,NEW, such as templama:test.jsonl@2010,2020"),
    "ecbd": (ecbd, (1,), "ecbd:PATH@YEAR, the last year that the model knows of"),
    "temporalwiki": (temporalwiki, (0, 1), "temporalwiki:PATH or temporalwiki:PATH@KIND"),
}
"""By the prefix of a reference: the reader, how many values it takes after the `@`, and how to write it."""


def read(ref: str) -> tuple[Probe, ...]:
    """The probes of a reference whose prefix is one of `READERS`; see `lmdyn.data.read_probes`."""
    prefix, _, rest = ref.partition(":")
    reader, counts, written = READERS[prefix]
    path, _, values = rest.rpartition("@") if "@" in rest else (rest, "", "")
    given = [value.strip() for value in values.split(",")] if values else []
    if len(given) not in counts or not path:
        raise InputError(f"'{ref}' cannot be read; write {written}")
    return reader(os.path.expanduser(path), *given)


def _field(record, field, where):
    if field not in record:
        raise InputError(
            f"{where} has no {field}; it has: {', '.join(sorted(map(str, record))) or 'nothing'}"
        )
    return record[field]


def _text(record, field, where) -> str:
    value = _field(record, field, where)
    if not isinstance(value, str) or not value.strip():
        what = (
            "empty"
            if value is None or isinstance(value, str)
            else f"not text but {type(value).__name__}"
        )
        raise InputError(f"{where}: {field} is {what}")
    return value.strip()


def _cloze(sentence: str, answer, where: str, **labels) -> Probe | None:
    """The probe of a sentence with a blank; None if nothing stands before it."""
    blank = BLANK.search(sentence)
    if not blank:
        raise InputError(
            f"{where}: no blank in {sentence[:60]!r}; write _X_, <extra_id_0>, [MASK] or <mask> for"
            " the answer"
        )
    if not isinstance(answer, str) or not answer.strip():
        raise InputError(f"{where}: the answer is empty; give the text that is asked for")
    prompt, target = sentence[: blank.start()], answer.strip()
    return (
        Probe(prompt + target, len(prompt), len(prompt + target), **labels, where=where)
        if prompt.strip()
        else None
    )


def _kept(asked: Iterable[Probe | None], path) -> tuple[Probe, ...]:
    asked = list(asked)
    kept = tuple(found for found in asked if found is not None)
    if not kept:
        why = f"all {len(asked)} begin with the blank" if asked else "there is nothing in it"
        raise InputError(f"{path} has no probes: {why}; give questions with text before the answer")
    if len(kept) < len(asked):
        left = len(asked) - len(kept)
        warnings.warn(
            f"{path}: {left} of {len(asked)} probes begin with the blank and are left out",
            stacklevel=3,
        )
    return kept
