"""Entity Cloze By Date (Onoe et al. 2022)."""

import re

from lmdyn.data.probes.cloze import cloze, record_field, text_in, usable
from lmdyn.data.probes.probe import Probe
from lmdyn.data.sources.jsonl import json_lines
from lmdyn.errors import InputError


def ecbd(path: str, year: str | int) -> tuple[Probe, ...]:
    """Sentences about entities, by whether the entity is younger than a year.

    Onoe et al. 2022, Entity Cloze By Date.

    Args:
      path: JSON Lines with `masked_sentence`, `answer_d` (blank to answer) or `answer_str` (the
        answer between two blanks), `year` of the entity's origin, and optionally `entity_span_str`
        and `span_type`.
      year: the last year that the model knows of.

    Returns:
      One probe per line: new if the entity's year is after `year`, else unchanged. `attribute` is
      the type of span. The entity may come after the span, where a decoder does not see it.

    Raises:
      InputError: as for `templama`.

    >>> import tempfile
    >>> sentence = '"masked_sentence": "Xelton has <extra_id_0>, and a port."'
    >>> answer = '"answer_d": {"<extra_id_0>": "two rivers"}'
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
    ...     _ = file.write(f'{{{sentence}, {answer}, "year": "2019"}}')
    >>> [(found.text, found.target, found.kind) for found in ecbd(file.name, 2018)]
    [('Xelton has two rivers', 'two rivers', 'new')]
    """
    last = _year(year, f"ecbd:{path}@{year}")
    example = (
        '{"masked_sentence": "... has <extra_id_0>.", "answer_d": {"<extra_id_0>": "..."}, "year":'
        ' "2019"}'
    )

    def asked():
        for record, where in json_lines(path, example):
            sentence, origin = (
                text_in(record, "masked_sentence", where),
                _year(record_field(record, "year", where), where),
            )
            answer = record.get("answer_d")
            if isinstance(answer, dict):
                answer = next(iter(answer.values()), "")
            else:
                answer = re.sub(r"<extra_id_\d+>", "", text_in(record, "answer_str", where))
            kind = "new" if origin > last else "unchanged"
            labels = dict(
                entity=record.get("entity_span_str"), attribute=record.get("span_type"), time=origin
            )
            yield cloze(sentence, answer, where, kind=kind, **labels)

    return usable(asked(), path)


def _year(given, where) -> int:
    if not re.fullmatch(r"\d{4}", str(given)):
        raise InputError(f"{where}: '{given}' is not a year; write one such as 2019")
    return int(given)
