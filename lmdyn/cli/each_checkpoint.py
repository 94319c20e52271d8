"""What `measure` and `gradients` do with a series: one checkpoint after another, nothing lost."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from lmdyn import records
from lmdyn.cli.common import say, write
from lmdyn.errors import InputError
from lmdyn.records import provenance
from lmdyn.records.partial import PartialRows
from lmdyn.types import Row

if TYPE_CHECKING:
    from lmdyn.checkpoints import Loaded, Reference

INCOMPLETE = 3
"""Exit code when some checkpoints of a series could not be measured and the others were."""


_TOKEN_CHARACTERS = 256  # more than a token stands for


class Measured(NamedTuple):
    """What one checkpoint gave."""

    rows: Sequence[Row]
    """without the fields that its reference gives"""
    tokens: int
    """predictions made"""


class Verb(NamedTuple):
    """What a verb does with a checkpoint, and what it says of its rows."""

    options: Any
    """have the fields `models`, `out`, `dtype`, `bos`, `end_of_text` and `pre`"""
    command: list[str]
    """the words of the command line"""
    started: float
    """`time.time()` at the start"""
    measure: "Callable[[Loaded], Measured]"
    show: Callable[[Sequence[Row]], None]
    """prints the rows of one checkpoint"""
    described: dict[str, Any]
    """titles of its metrics, from `records.describe`"""
    texts: Iterable[str]
    """what is read; of documents those that `options.tokens` may reach are enough"""
    seed: int | None = None
    """None where nothing is random"""


def measure_each(verb: Verb) -> int:
    """Measures every checkpoint that the verb's models name, and writes the rows of all.

    References are read before the first is measured, and the next one is downloaded meanwhile. What
    is done is kept in `OUT.partial`: the same command goes on after a kill or a failure. A
    checkpoint that fails is named, and the others stand. One that holds the same parameters as an
    earlier one is named, and its rows say `duplicate_of`.

    Returns:
      The exit code: 0; 3 if some checkpoints failed; 130 if it was interrupted.

    Raises:
      InputError: a reference is none, or no checkpoint could be measured.
    """
    from lmdyn import checkpoints

    options = verb.options
    references = [r for ref in options.models for r in checkpoints.series(ref)]
    kept = PartialRows(options.out, _settings(verb) if len(references) > 1 else {})
    failed: dict[str, InputError] = {}
    with ThreadPoolExecutor(1) as fetcher:
        for number, reference in enumerate(references, 1):
            name, stamp = str(reference), checkpoints.stamp(reference)
            of = f" ({number} of {len(references)})" if len(references) > 1 else ""
            if kept.done.get(name, {}).get("stamp", "") == stamp != "":
                say(f"{name}{of}: measured before")
                continue
            say(f"{name}{of}")
            if number < len(references):
                fetcher.submit(checkpoints.prefetch, references[number])
            try:
                entry = _measured(verb, reference)
                if len(references) > 1:
                    kept.add(name, {**entry, "stamp": stamp})
                else:
                    kept.done[name] = entry
            except InputError as err:
                if len(references) == 1:
                    raise
                say(f"{name} could not be measured: {err}")
                failed[name] = err
            except KeyboardInterrupt:
                if not kept.path.exists():
                    raise
                say(f"interrupted; the same command goes on after {len(kept.done)} checkpoints")
                return 130
    if len(failed) == len(references):
        raise next(iter(failed.values()))
    _write(verb, [str(r) for r in references if str(r) not in failed], kept.done)
    if failed:
        say(f"{len(failed)} of {len(references)} checkpoints failed: {', '.join(failed)}")
        return INCOMPLETE
    kept.remove()
    return 0


def _settings(verb: Verb) -> dict[str, Any]:
    """What the rows depend on besides the checkpoints; of texts the content."""
    digest, read = hashlib.sha256(), 0
    for text in verb.texts:
        digest.update(repr(text).encode())
        read += len(text)
        if verb.options.tokens is not None and read > _TOKEN_CHARACTERS * verb.options.tokens:
            break
    settings = dataclasses.asdict(verb.options) | {"texts": digest.hexdigest()}
    settings |= {"version": provenance.version("lmdyn")}
    return {k: v for k, v in settings.items() if k not in ("out", "models")}


def _measured(verb: Verb, reference: "Reference") -> dict[str, Any]:
    """Loads one checkpoint and measures it."""
    from lmdyn import checkpoints, data
    from lmdyn.models import Compute
    from lmdyn.params import fingerprint

    options = verb.options
    loaded = checkpoints.load(
        reference,
        Compute(dtype=options.dtype),
        packed=True,
        end_of_text=options.end_of_text,
        pre=options.pre,
    )
    data.check_vocabulary(loaded.tokenizer, loaded.model.config)
    loaded = loaded._replace(tokenizer=loaded.tokenizer.with_bos(options.bos))
    mark = fingerprint(loaded.params)
    measured = verb.measure(loaded)
    rows = [records.row(model=str(reference), **{**reference.fields(), **r}) for r in measured.rows]
    verb.show(rows)
    return {
        "rows": [json.loads(line) for line in records.dumps(rows).splitlines()],
        "tokens": measured.tokens,
        "fingerprint": mark,
        "special_tokens": loaded.tokenizer.special_tokens(),
    }


def _write(verb: Verb, names: Sequence[str], done: dict[str, dict[str, Any]]) -> None:
    """Writes the rows of all checkpoints; those that are there twice are marked."""
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(done[name]["fingerprint"], name)
        twice = {} if first == name else {"duplicate_of": first}
        if twice:
            say(f"{name} holds the same parameters as {first}: its rows say duplicate_of")
        rows += [{**r, **twice} for r in done[name]["rows"]]
    notes = {
        "metrics": verb.described,
        "special_tokens": {name: done[name]["special_tokens"] for name in names},
        "fingerprints": {name: done[name]["fingerprint"] for name in names},
    }
    total = sum(done[name]["tokens"] for name in names)
    write(verb.options, verb.command, verb.started, rows, total, verb.seed, notes=notes)
