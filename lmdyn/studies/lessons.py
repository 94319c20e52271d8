"""Continual training with new facts told in between, the same for every model that is compared (Kim
et al. 2024, section 4; the telling at intervals is from Chang et al. 2024, arXiv 2406.11813).

A lesson is made once: batches of a new domain, in some of which rows are replaced by texts about
new facts. What is asked, and when, is part of it. Shape letters: B rows of a batch, T tokens, P
probes.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from lmdyn import data, metrics, records
from lmdyn.analysis import statistics
from lmdyn.data import Batch, ProbeBatch
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError, check_least
from lmdyn.models.modules import LanguageModel
from lmdyn.training import Optimizer, make_optimizer, make_step, start, whole
from lmdyn.types import present


@dataclasses.dataclass(frozen=True)
class Tell:
    """Which facts are told, and how. Part of `lmdyn.studies.FactLearning`.

    Attributes:
      facts: a file of facts or a synthetic world, see `lmdyn.data.read_facts`; `{seed}` becomes the
        seed.
      count: take only so many facts, the first; None takes all.
      times: rounds in which every fact is told.
      wordings: `paraphrases`: in other words each round; `same`: in the same words; `once`: in the
        first round alone.
      every: updates between the beginnings of two rounds.
      ask: rounds between two times that the new facts are asked for.
      share: the largest share of a batch's rows that tell facts. At least one row does.
    """

    facts: str
    count: int | None = None
    times: int = 10
    wordings: Literal["paraphrases", "same", "once"] = "paraphrases"
    every: int = 16
    ask: int = 2
    share: float = 0.5

    def __post_init__(self) -> None:
        check_least(self, "tell.", count=1, times=1, every=1, ask=1)
        if not 0 < self.share <= 1:
            raise InputError(
                f"tell.share={self.share}; it is a share of the rows: above 0, at most 1"
            )


@dataclasses.dataclass(frozen=True)
class Further:
    """The continual training in which facts are told. Part of `lmdyn.studies.FactLearning`.

    Attributes:
      text: of the new domain; `{seed}` becomes the seed.
      held_out: other text of that domain; None measures none.
      length, batch: T and B.
      rest: updates after the last round, without facts.
      optimizer: its schedule runs over the whole lesson. The state begins anew.
    """

    text: str
    held_out: str | None = None
    length: int = 128
    batch: int = 16
    rest: int = 16
    optimizer: Optimizer = Optimizer(
        learning_rate=1e-3, schedule="constant", warmup=10, weight_decay=0.0
    )

    def __post_init__(self) -> None:
        check_least(self, "further.", length=1, batch=1, rest=0)


class Lesson(NamedTuple):
    """What every model goes through.

    Attributes:
      batches: of `[B, T]`, one an update.
      moments: updates after which the new facts are asked for: 0, before every so many further
        rounds, and at the end.
      told: rounds begun by each moment.
      asked: the probes about the new facts, P of them.
      owner: `[P]`: which fact a probe is about.
      depth: `[P]`: its depth.
    """

    batches: list[Batch]
    moments: tuple[int, ...]
    told: tuple[int, ...]
    asked: ProbeBatch
    owner: np.ndarray
    depth: np.ndarray


def steps(tell: Tell, further: Further) -> int:
    """Updates of a lesson.

    >>> steps(Tell("facts.json", times=10, every=16), Further("text:x", rest=16))
    176
    """
    return tell.times * tell.every + further.rest


def make_lesson(
    tell: Tell, further: Further, tokenizer: Tokenizer, seed: int, cache: str | None = None
) -> Lesson:
    """The lesson for a seed: which decides the order of the domain's windows, and what `{seed}` is.

    Raises:
      InputError: facts that do not fit into a window or into the rows between two rounds; texts
        that cannot be read; no probe.

    >>> lesson = make_lesson(
    ...     Tell("tfds:synthetic_world/people=10,places=4", count=2, times=2, every=3, ask=1),
    ...     Further("builtin:docs:test", length=500, batch=2, rest=1),
    ...     data.tokenizers.byte_tokenizer(),
    ...     seed=0,
    ... )
    >>> len(lesson.batches), lesson.moments, lesson.told
    (7, (0, 3, 7), (0, 1, 2))
    """
    facts = data.read_facts(tell.facts.replace("{seed}", str(seed)))[: tell.count]
    data.check_fit(facts, tokenizer, further.length)
    rows = max(1, int(tell.share * further.batch))
    need = math.ceil(len(facts) / rows)
    if need > tell.every:
        raise InputError(
            f"{len(facts)} facts, {rows} rows of a batch at most, take {need} updates a round; use"
            f" tell.every of at least {need}, a larger share or batch, or a smaller tell.count"
        )
    stored = data.store(
        data.documents(further.text.replace("{seed}", str(seed))), tokenizer, cache=cache
    )
    stream = data.mix(
        [(stored, 1.0)],
        data.Packing(further.length, further.batch, tokenizer.end_of_text),
        seed=seed,
    )
    source = iter(stream)
    batches = [next(source) for _ in range(steps(tell, further))]
    rounds = 1 if tell.wordings == "once" else tell.times
    for number in range(rounds):
        for k, fact in enumerate(facts):
            text = fact.texts[number % len(fact.texts) if tell.wordings == "paraphrases" else 0]
            at, row = number * tell.every + k // rows, k % rows
            batches[at] = _with_row(batches[at], row, tokenizer.encode(text), tokenizer.end_of_text)
    probes = [(i, probe) for i, fact in enumerate(facts) for probe in fact.probes]
    asked = data.encode_probes([probe for _, probe in probes], tokenizer)
    asks = range(0, rounds, tell.ask)
    moments = (*(r * tell.every for r in asks), len(batches))
    return Lesson(
        batches,
        moments,
        (*asks, rounds),
        asked,
        np.array([i for i, _ in probes]),
        np.array([probe.depth or "unknown" for _, probe in probes]),
    )


def _with_row(batch: Batch, row: int, ids, end_of_text: int) -> Batch:
    """The batch with one row replaced by a text, as it would stand after an end-of-text token; the
    rest of the row is padding.
    """
    inputs, targets, mask = (np.array(a) for a in batch[:3])
    n = len(ids)
    inputs[row], targets[row], mask[row] = 0, 0, False
    inputs[row, 0], inputs[row, 1:n], targets[row, :n], mask[row, :n] = (
        end_of_text,
        ids[:-1],
        ids,
        True,
    )
    return Batch(inputs, targets, mask)


class Asked(NamedTuple):
    """What a model knows at a moment.

    Attributes:
      new: `lmdyn.metrics.SpanScores` of the new facts' probes, `[P]`.
      old: of what was known before; None where not asked.
      old_nll, new_nll: of held-out text of the old and of the new domain, nats; None where not
        asked.
    """

    new: Any
    old: Any
    old_nll: float | None
    new_nll: float | None


class Exam(NamedTuple):
    """What is asked beside the new facts, before and after a lesson: probes of what was known,
    held-out text of the old and of the new domain (batches); None where there is none.
    """

    known: ProbeBatch | None
    old: Sequence[Batch] | None
    new: Sequence[Batch] | None


def teacher(model: LanguageModel, further: Further, tell: Tell) -> Callable:
    """`teach(params, lesson, exam, progress=False) -> tuple[Asked, ...]`, one for each of the
    lesson's moments.

    All models of a study go through one compiled step. `teach` may run in several threads at once.

    Args:
      model: a `lmdyn.models.LanguageModel`, whose architecture all `params` share.
    """
    optimizer = make_optimizer(further.optimizer, steps(tell, further))
    step = jax.jit(make_step(model, optimizer), donate_argnums=0)
    nll = metrics.likelihood()

    def begin(
        params,
    ):  # copies: the first step takes its state over, and the parameters are needed again
        return start(jax.tree.map(jnp.copy, params), optimizer)

    begin = jax.jit(begin)

    def ask(params, lesson: Lesson, exam: Exam, everything: bool) -> Asked:
        measured = lambda batches: (
            None
            if batches is None or not everything
            else metrics.measure(nll, model, params, batches).nll
        )
        known = (
            None
            if exam.known is None or not everything
            else metrics.score_probes(model, params, exam.known)
        )
        return Asked(
            metrics.score_probes(model, params, lesson.asked),
            known,
            measured(exam.old),
            measured(exam.new),
        )

    def teach(params, lesson: Lesson, exam: Exam, progress: bool = False) -> tuple[Asked, ...]:
        state, found, last = begin(params), [], lesson.moments[-1]
        for number in tqdm(
            range(last + 1), desc="lesson", unit="update", leave=False, disable=not progress
        ):
            if number in lesson.moments:
                found.append(ask(whole(state), lesson, exam, number in (0, last)))
            if number < last:
                state, logged = step(state, lesson.batches[number])
        if not math.isfinite(float(logged["loss"])):
            raise InputError(
                f"the loss of the continual training is {float(logged['loss'])}; lower"
                " further.optimizer.learning_rate"
            )
        return tuple(found)

    return teach


def answers(
    reference: str, step: int | None, asked: "Sequence[Asked]", lesson: Lesson, tags: dict
) -> list[dict]:
    """What was asked in a lesson, as rows.

    Rows: `span_log_probability` and `exact_match` of the new facts by `depth` at each `moment`
    (updates done), with the rounds `told`; `acquisition` by depth and over all probes (None),
    `mean(l_after - l_before)` in nats with its bootstrap interval over facts, and `relative`,
    `mean((l_after - l_before) / |l_before|)`; `fact_gain`, the same for each fact; `old_nll`,
    `new_nll`, `known_log_probability`, `known_exact_match` before and after; `forgetting`, see
    `forgetting`.

    Args:
      asked: what `teach` returned. tags: added to every row.
    """
    rows = []
    make = lambda metric, value, unit, **extra: rows.append(
        records.row(reference, metric, float(value), unit, step=step, **tags, **extra)
    )
    depths = [None, *dict.fromkeys(lesson.depth)]
    for moment, told, answer in zip(lesson.moments, lesson.told, asked, strict=True):
        for depth in depths:
            of = np.ones(len(lesson.depth), bool) if depth is None else lesson.depth == depth
            about = {"depth": depth, "moment": moment, "told": told, "tokens": int(of.sum())}
            make("span_log_probability", answer.new.log_probability[of].mean(), "nats", **about)
            make("exact_match", answer.new.exact[of].mean(), "share", **about)
    before, after = asked[0], asked[-1]
    gained = after.new.log_probability - before.new.log_probability
    for depth in depths:
        of = np.ones(len(lesson.depth), bool) if depth is None else lesson.depth == depth
        per_fact = np.array(
            [gained[of & (lesson.owner == i)].mean() for i in np.unique(lesson.owner[of])]
        )
        found = statistics.bootstrap(per_fact)
        relative = np.mean(gained[of] / np.abs(before.new.log_probability[of]))
        make(
            "acquisition",
            gained[of].mean(),
            "nats",
            depth=depth,
            relative=float(relative),
            low=found.low,
            high=found.high,
            tokens=int(of.sum()),
        )
        for fact, value in zip(np.unique(lesson.owner[of]), per_fact, strict=True):
            make("fact_gain", value, "nats", depth=depth, fact=int(fact))
    for moment, answer in ((lesson.moments[0], before), (lesson.moments[-1], after)):
        for name in ("old_nll", "new_nll"):
            if (value := getattr(answer, name)) is not None:
                make(name, value, "nats", moment=moment)
        if answer.old is not None:
            make("known_log_probability", answer.old.log_probability.mean(), "nats", moment=moment)
            make("known_exact_match", answer.old.exact.mean(), "share", moment=moment)
    for name, value in forgetting(before, after).items():
        make("forgetting", value, "share", of=name)
    return rows


def forgetting(before: "Asked", after: "Asked") -> dict[str, float]:
    """Relative losses of what was known before: positive is forgotten.

    `text`: the rise of the old domain's nll over what it was. `facts`: the fall of old facts' span
    log-probability over its size. `exact`: the fall of their exact match over what it was, where
    any was right (METHODS takes this one; early checkpoints have none right, so a series cannot be
    compared by it). `all`: the mean of `text` and `facts`.
    """
    found = {}
    if before.old_nll is not None:
        found["text"] = present(after.old_nll) / before.old_nll - 1
    if before.old is not None:
        was = before.old.log_probability.mean()
        found["facts"] = float((was - after.old.log_probability.mean()) / abs(was))
    found["all"] = float(np.mean(list(found.values()))) if found else 0.0
    if before.old is not None and before.old.exact.any():
        found["exact"] = float(1 - after.old.exact.mean() / before.old.exact.mean())
    return found
