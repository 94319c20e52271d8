"""Cloze questions, as published sets of probes write them: a sentence with a blank somewhere.

A decoder sees only the text before the blank, so the probe is the text up to the blank and the
answer; questions that begin with the blank cannot be asked, and are left out with a warning.
"""

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from lmdyn.data.probes.probe import Probe
from lmdyn.errors import InputError

BLANK = re.compile(r"_X_|<extra_id_0>|\[MASK\]|<mask>")


def record_field(record: Mapping[str, Any], field: str, where: str) -> Any:
    """One field of a record; an `InputError` that lists the fields if it is not there.

    >>> record_field({"year": 2019}, "year", "a.jsonl line 1")
    2019
    """
    if field not in record:
        raise InputError(
            f"{where} has no {field}; it has: {', '.join(sorted(map(str, record))) or 'nothing'}"
        )
    return record[field]


def text_in(record: Mapping[str, Any], field: str, where: str) -> str:
    """The stripped text of one field; an `InputError` if it is empty or no text.

    >>> text_in({"query": " Who? "}, "query", "a.jsonl line 1")
    'Who?'
    """
    value = record_field(record, field, where)
    if not isinstance(value, str) or not value.strip():
        what = (
            "empty"
            if value is None or isinstance(value, str)
            else f"not text but {type(value).__name__}"
        )
        raise InputError(f"{where}: {field} is {what}")
    return value.strip()


def cloze(sentence: str, answer: Any, where: str, **labels: Any) -> Probe | None:
    """The probe of a sentence with a blank; None if there is no text before the blank.

    Args:
      sentence: with `_X_`, `<extra_id_0>`, `[MASK]` or `<mask>`.
      answer: what fills the blank.
      where: its name in error messages.
      **labels: of the probe, such as `kind`.

    Raises:
      InputError: no blank, or an answer that is empty or no text.

    >>> cloze("Ada plays for _X_.", "Xelton", "a.jsonl line 1", kind="new").text
    'Ada plays for Xelton'
    """
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


def usable(asked: Iterable[Probe | None], path: str) -> tuple[Probe, ...]:
    """Those that can be asked; warns of those that cannot (None), of the file `path`.

    Raises:
      InputError: none can be asked.

    >>> len(usable([Probe("2 + 2 = 4", 8, 9)], "a.jsonl"))
    1
    """
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
