"""TempLAMA (Dhingra et al. 2022) and dynamic TempLAMA (Margatina et al. 2023)."""

import contextlib
import datetime
import re
from collections.abc import Iterator

from lmdyn.data.probes.cloze import cloze, record_field, text_in, usable
from lmdyn.data.probes.probe import Probe
from lmdyn.data.sources.jsonl import json_lines
from lmdyn.errors import InputError


def templama(path: str, old: str | int, new: str | int) -> tuple[Probe, ...]:
    r"""What was true at the date `new`, by whether it was so at `old`.

    Dhingra et al. 2022 and Margatina et al. 2023.

    Args:
      path: JSON Lines with `query` (with a blank), `answer` (a dict with `name` and perhaps
        `wikidata_id`, or a list of such; a name may be a list of names, of which the first of
        `original_name`, or else the first, is asked for), `date` (2019, 2019-Q1, 2019-03 or
        2019-03-25), and optionally `relation` and `id` (subject_relation_date).
      old: a date of the file.
      new: another.

    Returns:
      A probe for every answer of every query at `new`: unchanged if it was an answer at `old`,
      updated if there were others, new if the query is not asked at `old`. `entity` is the subject
      of `id`, `attribute` the relation.

    Raises:
      InputError: the file cannot be read, a date that does not parse or that no line has, a query
        without a blank, an empty answer, a missing field; it names the file and the line.

    >>> import tempfile
    >>> line = '{"query": "Ada Quill plays for _X_.", "answer": [{"name": "%s"}], "date": "%d"}'
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
    ...     print(line % ("Dunmouth", 2010), line % ("Xelton", 2020), sep="\n", file=file)
    >>> [(found.text, found.kind) for found in templama(file.name, 2010, 2020)]
    [('Ada Quill plays for Xelton', 'updated')]
    """
    old, new = (_date(given, f"templama:{path}@{old},{new}") for given in (old, new))
    example = '{"query": "... plays for _X_.", "answer": [{"name": "..."}], "date": "2019"}'
    lines = [
        (
            text_in(record, "query", where),
            list(_answers(record, where)),
            _date(record_field(record, "date", where), where),
            record,
            where,
        )
        for record, where in json_lines(path, example)
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
                yield cloze(
                    query,
                    name,
                    where,
                    kind=kind,
                    entity=subject,
                    attribute=record.get("relation"),
                    time=time,
                )

    return usable(asked(), path)


def _answers(record, where) -> Iterator[tuple[str, str]]:
    """Of each answer, what makes it the same and its name."""
    found = record_field(record, "answer", where)
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
        f"{where}: '{text}' is not a date; write a year such as 2019, or 2019-Q1, 2019-03,"
        " 2019-03-25"
    )
