"""A probe: a text with a marked span, whose tokens alone are scored.

A probe tests knowledge: the text in the span should be predictable from the text before
it. Metrics and studies score the tokens that overlap the span.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from lmdyn.errors import InputError

PROBE_EXAMPLE = '{"prompt": "...", "target": "..."}'


@dataclasses.dataclass(frozen=True)
class Probe:
    """A text, the characters `[start, end)` of it to be predicted, and labels.

    Args:
      text: the whole text.
      start: the first character of the span.
      end: the first character after it.
      kind: free, such as updated, new, unchanged; None, as below, where nothing is said.
      depth: memorisation, paraphrase or composition.
      entity: whom or what it is about.
      attribute: what is asked about it.
      time: when the answer is true.
      where: the file and line, for errors.

    >>> probe = Probe("The capital of France is Paris.", 25, 30)
    >>> probe.prompt, probe.target
    ('The capital of France is ', 'Paris')
    """

    text: str
    start: int
    end: int
    kind: str | None = None
    depth: str | None = None
    entity: str | None = None
    attribute: str | None = None
    time: int | str | None = None
    where: str = dataclasses.field(default="the probe", compare=False)

    @property
    def prompt(self) -> str:
        """The text before the span.

        >>> Probe("2 + 2 = 4", 8, 9).prompt
        '2 + 2 = '
        """
        return self.text[: self.start]

    @property
    def target(self) -> str:
        """The text to be predicted.

        >>> Probe("2 + 2 = 4", 8, 9).target
        '4'
        """
        return self.text[self.start : self.end]


def parse_probe(record: dict[str, Any], where: str = "the probe") -> Probe:
    """A probe from a dict.

    Args:
      record: `prompt` and `target` (joined by one space unless one of them brings white space); or
        `text` with `start` and `end` (characters; the end is the first one after the span); or
        `text` and a `target` that occurs in it once. Optional: `kind`, `depth`, `entity`,
        `attribute`, `time`. Other keys are left alone.
      where: its name in error messages.

    Raises:
      InputError: neither form, a field of the wrong type, an empty target or one that is not in the
        text, offsets outside the text.

    >>> parse_probe(
    ...     {"prompt": "The capital of France is", "target": "Paris", "kind": "unchanged"}
    ... ).text
    'The capital of France is Paris'
    """
    found = functools.partial(_typed, record, where)
    if "prompt" in record:
        text, start, end = _prompt_and_target(found)
    elif "start" in record or "end" in record:
        text, start, end = _offsets(record, where, found)
    elif "text" in record and "target" in record:
        text, start, end = _target_in_text(where, found)
    else:
        raise InputError(
            f"{where} is not a probe: it needs prompt and target, or text, start and end; it has: "
            f"{', '.join(sorted(map(str, record))) or 'nothing'}"
        )
    if not text[start:end].strip():
        raise InputError(f"{where}: the target is empty; give the text that is asked for")
    labels = ("kind", "depth", "entity", "attribute", "time")
    return Probe(text, start, end, **{key: record.get(key) for key in labels}, where=where)


Span = tuple[str, int, int]
"""A text, and the start and end of its span."""


def _prompt_and_target(found: Callable) -> Span:
    prompt, target = found("prompt", str), found("target", str)
    gap = "" if not prompt or prompt[-1].isspace() or target[:1].isspace() else " "
    text = prompt + gap + target
    return text, len(prompt + gap), len(text)


def _offsets(record: Mapping, where: str, found: Callable) -> Span:
    text, start, end = found("text", str), found("start", int), found("end", int)
    if not 0 <= start <= end <= len(text):
        raise InputError(
            f"{where}: start={start}, end={end} is not a span of a text of {len(text)} characters;"
            " it must be 0 <= start < end <= length"
        )
    if "target" in record and record["target"] != text[start:end]:
        raise InputError(
            f"{where}: the text has {text[start:end]!r} at start={start}, end={end} and not the"
            f" target {record['target']!r}; correct the offsets or leave one of them out"
        )
    return text, start, end


def _target_in_text(where: str, found: Callable) -> Span:
    text, target = found("text", str), found("target", str)
    if target.strip() and text.count(target) != 1:
        many = (
            f"stands {text.count(target)} times in the text"
            if target in text
            else "is not found in the text"
        )
        raise InputError(f"{where}: the target {target[:60]!r} {many}; give start and end")
    start = text.find(target)
    return text, start, start + len(target)


def _typed(record, where, field, kind):
    if field not in record:
        raise InputError(
            f"{where} has no {field}; a probe needs prompt and target, or text, start and end"
        )
    value = record[field]
    if not isinstance(value, kind) or isinstance(value, bool):
        what = "text" if kind is str else "a whole number"
        raise InputError(f"{where}: {field} is not {what} but {type(value).__name__}")
    return value
