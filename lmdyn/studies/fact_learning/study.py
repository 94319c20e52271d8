"""How a model learns facts that it is told at intervals (Chang et al. 2024, arXiv 2406.11813): one
model, the lesson of the study of knowledge entropy, and a table of what it gained by depth.

The replicate is a fact: intervals say how much other facts of this kind could differ, not other
models or other orders.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmdyn import checkpoints, data
from lmdyn.analysis import statistics
from lmdyn.errors import check_least, check_types
from lmdyn.models import Compute
from lmdyn.studies.claims import Claim, claim
from lmdyn.studies.folder import Folder
from lmdyn.studies.lessons import Exam, Further, Tell, make_lesson, teacher
from lmdyn.studies.lessons import answers as as_rows
from lmdyn.training.config import to_json
from lmdyn.types import Row, Say

NAME, SOURCE = "fact learning", "Chang et al. 2024"


@dataclasses.dataclass(frozen=True)
class FactLearning:
    """Tell a model new facts at intervals, and ask for them at three depths.

    Attributes:
      out: the study's folder. The same command goes on with a study that was stopped.
      model: a model reference.
      tell: which facts are told, and how.
      further: the continual training in which they are told.
      text: held-out text of the kind that the model knows, for what is forgotten; None measures
        none.
      tokens: predictions of one measurement of text.
      seed: of the order of texts.
      compute: dtype and attention. cache: folder of tokenised text.

    >>> study = FactLearning(
    ...     out="out/facts",
    ...     model="hf:EleutherAI/pythia-70m@step143000",
    ...     tell=Tell("facts.jsonl", count=16, times=8),
    ...     further=Further("builtin:code:train", held_out="builtin:code:test"),
    ...     text="builtin:docs:test",
    ... )
    >>> study.tell.times * study.tell.every + study.further.rest  # updates of the lesson
    144
    """

    out: str
    model: str
    tell: Tell
    further: Further
    text: str | None = None
    tokens: int = 4096
    seed: int = 0
    compute: Compute = Compute()
    cache: str | None = None

    def __post_init__(self) -> None:
        check_types(self)
        check_least(self, tokens=1)


def run(config: FactLearning, command: list[str] | None = None, say: Say | None = None) -> Path:
    """The whole study; returns its report.

    Raises:
      InputError: whatever is wrong with the model, the texts or the facts.
    """
    reference = checkpoints.parse(config.model)
    data.read_facts(config.tell.facts.replace("{seed}", str(config.seed)))
    folder = Folder(config.out, NAME, to_json(config), command, say)

    def make():
        loaded = checkpoints.load(reference, config.compute)
        data.check_vocabulary(loaded.tokenizer, loaded.model.config)
        length, batch = config.further.length, config.further.batch
        texts = [
            list(data.batches(ref, loaded.tokenizer, length, batch, config.tokens)) if ref else None
            for ref in (config.text, config.further.held_out)
        ]
        lesson = make_lesson(
            config.tell, config.further, loaded.tokenizer, config.seed, config.cache
        )
        folder.say(f"{reference}: {len(lesson.batches)} updates of {batch * length:,} tokens")
        folder.tokens += sum(int(b.mask.sum()) for b in lesson.batches)
        teach = teacher(loaded.model, config.further, config.tell)
        asked = teach(loaded.params, lesson, Exam(None, *texts), progress=True)
        return as_rows(
            str(reference),
            reference.step,
            asked,
            lesson,
            {"seed": config.seed, "start": reference.name, "kind": "series"},
        )

    rows = folder.part("lesson", make)
    folder.say(table(rows))
    return folder.finish(rows, claims(rows), config.seed)


def table(rows: Sequence[Row]) -> str:
    """What was gained by depth, as text.

    >>> gained = {
    ...     "metric": "acquisition",
    ...     "depth": "paraphrase",
    ...     "value": 1.5,
    ...     "low": 1.0,
    ...     "high": 2.0,
    ...     "relative": 0.5,
    ...     "tokens": 9,
    ... }
    >>> asked = [
    ...     {"metric": "span_log_probability", "depth": "paraphrase", "value": value}
    ...     for value in (-3.0, -1.5)
    ... ]
    >>> print(table([*asked, gained]))
    depth           before    after   gained      interval   relative   probes
    paraphrase      -3.000   -1.500    1.500   1.00..2.00      0.500        9
    """
    lines = ["depth           before    after   gained      interval   relative   probes"]
    for row in rows:
        if row["metric"] == "acquisition":
            asked = [
                r["value"]
                for r in rows
                if r["metric"] == "span_log_probability" and r["depth"] == row["depth"]
            ]
            between = f"{row['low']:.2f}..{row['high']:.2f}"
            lines.append(
                f"{row['depth'] or 'all':14} {asked[0]:7.3f}  {asked[-1]:7.3f}  {row['value']:7.3f}"
                f"  {between:>12}  {row['relative']:9.3f}  {row['tokens']:7d}"
            )
    return "\n".join(lines)


def claims(rows: Sequence[Row]) -> list[Claim]:
    """That facts are learnt at each depth, and that words are learnt better than what follows from
    them.
    """
    found, by_depth = [], {}
    for row in rows:
        if row["metric"] == "acquisition" and row["depth"] is not None:
            by_depth[row["depth"]] = row
            known = statistics.Interval(row["value"], row["low"], row["high"], row["tokens"])
            found.append(
                claim(
                    NAME,
                    SOURCE,
                    f"learnt-{row['depth']}",
                    f"Facts that are told are learnt: {row['depth']}.",
                    known,
                    "nats",
                    "learning",
                    "Rise of the span's log-probability, mean over probes; interval over facts.",
                )
            )
    gains = [r for r in rows if r["metric"] == "fact_gain"]
    facts = sorted({r["fact"] for r in gains})
    of = lambda depth: np.array(
        [
            next((r["value"] for r in gains if r["fact"] == f and r["depth"] == depth), np.nan)
            for f in facts
        ]
    )
    if {"memorisation", "composition"} <= by_depth.keys():
        more = of("memorisation") - of("composition")
        more = statistics.bootstrap(more[np.isfinite(more)])
        found.append(
            claim(
                NAME,
                SOURCE,
                "words-before-meaning",
                "What is told is learnt better than what follows from it.",
                more,
                "nats",
                "learning",
                "Rise for memorisation less that for composition, mean over facts; interval over"
                " facts.",
            )
        )
    return found
