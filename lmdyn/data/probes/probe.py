"""Probes: texts with a marked span, whose tokens alone are scored.

A probe asks for knowledge: what stands in the span should be predictable from what stands before
it. Metrics and studies score the tokens that overlap the span. Shape letters: P probes, T tokens.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lmdyn.data.sources import references as sources
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError

EXAMPLE = '{"prompt": "...", "target": "..."}'


@dataclasses.dataclass(frozen=True)
class Probe:
    """A text, the characters `[start, end)` of it that are asked for, and what is known about the
    question.

    `kind` (such as updated, new, unchanged), `depth` (memorisation, paraphrase, composition),
    `entity`, `attribute` and `time` are free, and None where nothing is said. `where` names the
    file and line, for errors.

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
        """What stands before the span."""
        return self.text[: self.start]

    @property
    def target(self) -> str:
        """What is asked for."""
        return self.text[self.start : self.end]


class ProbeBatch(NamedTuple):
    """P probes of at most T predictions. Where `mask` is False, ids are 0 and nothing may count.
    Made by `encode_probes`.
    """

    inputs: np.ndarray
    """[P, T] int32"""
    targets: np.ndarray
    """[P, T] int32: the token after each input"""
    span: np.ndarray
    """[P, T] bool: which targets overlap the span; at least one in each row, and all of them lie inside `mask`"""
    mask: np.ndarray
    """[P, T] bool: which predictions are of the probe's text, and not padding"""


def probe(record: dict[str, Any], where: str = "the probe") -> Probe:
    """A probe from a dict.

    Args:
      record: `prompt` and `target` (joined by one space unless one of them brings white space); or
        `text` with `start` and `end` (characters; the end is the first one after the span); or
        `text` and a `target` that stands in it once. Optional: `kind`, `depth`, `entity`,
        `attribute`, `time`. Other keys are left alone.
      where: what errors call it.

    Raises:
      InputError: neither form, a field of the wrong type, an empty target or one that is not in the
        text, offsets outside the text.

    >>> probe(
    ...     {"prompt": "The capital of France is", "target": "Paris", "kind": "unchanged"}
    ... ).text
    'The capital of France is Paris'
    """
    found = functools.partial(_typed, record, where)
    if "prompt" in record:
        prompt, target = found("prompt", str), found("target", str)
        gap = "" if not prompt or prompt[-1].isspace() or target[:1].isspace() else " "
        text, start = prompt + gap + target, len(prompt + gap)
        end = len(text)
    elif "start" in record or "end" in record:
        text, start, end = found("text", str), found("start", int), found("end", int)
        if not 0 <= start <= end <= len(text):
            raise InputError(
                f"{where}: start={start}, end={end} is no span of a text of {len(text)} characters;"
                " it must be 0 <= start < end <= length"
            )
        if "target" in record and record["target"] != text[start:end]:
            raise InputError(
                f"{where}: the text has {text[start:end]!r} at start={start}, end={end} and not the"
                f" target {record['target']!r}; mend the offsets or leave one of them out"
            )
    elif "text" in record and "target" in record:
        text, target = found("text", str), found("target", str)
        if target.strip() and text.count(target) != 1:
            many = (
                f"stands {text.count(target)} times in the text"
                if target in text
                else "is not found in the text"
            )
            raise InputError(f"{where}: the target {target[:60]!r} {many}; give start and end")
        start = text.find(target)
        end = start + len(target)
    else:
        raise InputError(
            f"{where} is no probe: it needs prompt and target, or text, start and end; it has: "
            f"{', '.join(sorted(map(str, record))) or 'nothing'}"
        )
    if not text[start:end].strip():
        raise InputError(f"{where}: the target is empty; give the text that is asked for")
    labels = ("kind", "depth", "entity", "attribute", "time")
    return Probe(text, start, end, **{key: record.get(key) for key in labels}, where=where)


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


def read_probes(ref: str) -> tuple[Probe, ...]:
    """All probes of a file or dataset.

    Args:
      ref: the path of a JSON Lines file (or `jsonl:PATH`), one dict a line, see `probe`; or
        `tfds:NAME[/CONFIG]:SPLIT`, whose features have those names:
        `tfds:synthetic_world/small:probes`. Or a published file (see
        `lmdyn.data.probes.published`): `templama:PATH@OLD,NEW`: TempLAMA and dynamic TempLAMA, what
        is true at one date by what was true at another; `ecbd:PATH@YEAR`: Entity Cloze By Date, new
        if the entity is younger than the year; `temporalwiki:PATH[@KIND]`: TWiki-Probes, of the
        kind that is given or that the file's name holds.

    Raises:
      InputError: no such file, nothing in it, or a line that is no probe; it names the file and the
        line.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl", delete=False) as file:
    ...     _ = file.write('{"prompt": "2 + 2 =", "target": "4"}')
    >>> [found.target for found in read_probes(file.name)]
    ['4']
    """
    from lmdyn.data.probes import published  # not above: it imports this module

    kind, _, rest = ref.partition(":")
    if kind in published.READERS:
        return published.read(ref)
    path = os.path.expanduser(rest if kind == "jsonl" else ref)
    found = _tfds(ref, rest) if kind == "tfds" else sources.json_lines(path, EXAMPLE)
    found = tuple(probe(record, where) for record, where in found)
    if not found:
        raise InputError(f"{ref} has no probes; give at least one line such as {EXAMPLE}")
    return found


def _tfds(ref, rest):
    if "#" in rest:
        raise InputError(
            f"'{ref}' names a field; probes take several: write tfds:NAME[/CONFIG]:SPLIT"
        )
    source = sources.tfds_source(ref, rest, "tfds:NAME[/CONFIG]:SPLIT")
    for i in range(len(source)):
        yield {key: _plain(value) for key, value in source[i].items()}, f"{rest} example {i}"


def _plain(value):
    value = (
        value.item() if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0 else value
    )
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def encode_probes(
    probes: Sequence[Probe], tokenizer: Tokenizer, length: int | None = None
) -> ProbeBatch:
    """Probes as token ids, padded to one length, with the targets that are asked for marked.

    A token counts if one of its characters is in the span, also where it holds others too (in most
    vocabularies the space before a word is part of the word's token).

    Args:
      probes: P of them.
      tokenizer: has `encode_with_offsets(text) -> (ids, offsets)`.
      length: T; text after the span may be cut off, the span may not. Default the longest probe's.

    Raises:
      InputError: no probes, a length below 1, a target that does not fit into `length`, or a target
        in the first token, which nothing predicts.

    >>> from lmdyn.data import tokenizers
    >>> batch = encode_probes(
    ...     [Probe("né à Fès", 5, 8), Probe("a b", 2, 3)], tokenizers.byte_tokenizer()
    ... )
    >>> batch.span.astype(int).tolist()
    [[0, 0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]]
    """
    if not len(probes):
        raise InputError("there are no probes; give at least one")
    if length is not None and length < 1:
        raise InputError(f"length={length}; it must be at least 1")
    encoded = [_encode(probe, tokenizer, length) for probe in probes]
    longest = max(len(ids) - 1 for ids, _ in encoded)
    size = length or longest
    inputs, targets = np.zeros((2, len(probes), size), np.int32)
    span, mask = np.zeros((2, len(probes), size), bool)
    for row, (ids, hit) in enumerate(encoded):
        n = min(len(ids) - 1, size)
        inputs[row, :n], targets[row, :n] = ids[:n], ids[1 : n + 1]
        span[row, :n], mask[row, :n] = hit[1 : n + 1], True
    return ProbeBatch(inputs, targets, span, mask)


def _encode(probe: Probe, tokenizer, length):
    """The ids of a probe's text, and which of them overlap its span."""
    ids, offsets = tokenizer.encode_with_offsets(probe.text)
    starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    hit = (starts < probe.end) & (ends > probe.start)
    short = f"{probe.where}: the target {probe.target[:60]!r}"
    if not hit.any():
        raise InputError(f"{short} has no token of its own; give a longer target")
    if hit[0]:
        raise InputError(
            f"{short} begins with the first token, which nothing predicts; give a prompt before it"
        )
    last = int(np.flatnonzero(hit)[-1])
    if length is not None and last > length:
        raise InputError(
            f"{short} ends at token {last}, beyond length={length}; give a length of at least"
            f" {last}"
        )
    return ids, hit
