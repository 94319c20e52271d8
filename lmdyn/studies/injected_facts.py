"""Continual training with new facts injected at intervals.

It is the same for every model that is compared (Kim et al. 2024, arXiv 2410.01380, section 4; the
intervals are from Chang et al. 2024, arXiv 2406.11813).

A `FactStream` is made once: batches of a new domain in which some rows are replaced by texts about
new facts, and the probes of them. `injection_scores` trains on it and asks.

Shape letters: B rows of a batch, T tokens, P probes.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from lmdyn import data
from lmdyn.data import Batch, Fact, ProbeBatch
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError, check_least
from lmdyn.studies.config import for_seed
from lmdyn.training import Optimizer


@dataclasses.dataclass(frozen=True)
class FactInjection:
    """Which facts are injected, and how. Part of `lmdyn.studies.FactLearning`.

    Attributes:
      facts: a file of facts or a synthetic world, see `lmdyn.data.read_facts`; `{seed}` becomes the
        seed.
      count: only the first n facts; None takes all.
      rounds: rounds of injection, each of which contains every fact once.
      wordings: `paraphrases`: other words in each round; `same`: the same words; `once`: in the
        first round only.
      every: updates from the beginning of one round to that of the next.
      ask_every: rounds between probes of the new facts.
      share: the largest share of a batch's rows that hold facts. At least one row does.

    >>> FactInjection("facts.jsonl", rounds=8, every=16).share
    0.5
    """

    facts: str
    count: int | None = None
    rounds: int = 10
    wordings: Literal["paraphrases", "same", "once"] = "paraphrases"
    every: int = 16
    ask_every: int = 2
    share: float = 0.5

    def __post_init__(self) -> None:
        check_least(self, "injection.", count=1, rounds=1, every=1, ask_every=1)
        if not 0 < self.share <= 1:
            raise InputError(
                f"injection.share={self.share}; it is a share of the rows: above 0, at most 1"
            )

    def read(self, seed: int) -> Sequence[Fact]:
        """The facts of a seed."""
        return data.read_facts(for_seed(self.facts, seed))[: self.count]

    def rows(self, batch: int) -> int:
        """How many rows of a batch may hold a fact."""
        return max(1, int(self.share * batch))


@dataclasses.dataclass(frozen=True)
class ContinualTraining:
    """The continual training into which facts are injected. Part of `lmdyn.studies.FactLearning`.

    Attributes:
      text: text of the new domain; `{seed}` becomes the seed.
      held_out: other text of that domain; None measures none.
      length: tokens per row, T.
      batch: rows per update, B.
      steps_after: updates after the last round, without facts.
      optimizer: its schedule runs over all updates. Its state is new.

    >>> ContinualTraining("builtin:code:train", held_out="builtin:code:test").batch
    16
    """

    text: str
    held_out: str | None = None
    length: int = 128
    batch: int = 16
    steps_after: int = 16
    optimizer: Optimizer = Optimizer(
        learning_rate=1e-3, schedule="constant", warmup=10, weight_decay=0.0
    )

    def __post_init__(self) -> None:
        check_least(self, "continual.", length=1, batch=1, steps_after=0)


class FactStream(NamedTuple):
    """The batches and questions that every model gets. Made by `fact_stream`.

    Attributes:
      batches: of `[B, T]`, one per update.
      ask_at: updates after which the new facts are probed: 0, before every few further
        rounds, and at the end.
      rounds: rounds begun by each of these.
      probes: the probes about the new facts, P of them.
      fact: `[P]`: the number of the fact that a probe is about.
      depth: `[P]`: the probe's depth.
    """

    batches: list[Batch]
    ask_at: tuple[int, ...]
    rounds: tuple[int, ...]
    probes: ProbeBatch
    fact: np.ndarray
    depth: np.ndarray

    @property
    def tokens(self) -> int:
        """Predictions that training on it takes."""
        return sum(int(batch.mask.sum()) for batch in self.batches)


def total_updates(injection: FactInjection, continual: ContinualTraining) -> int:
    """Updates of the continual training.

    >>> total_updates(
    ...     FactInjection("facts.json", rounds=10, every=16),
    ...     ContinualTraining("text:x", steps_after=16),
    ... )
    176
    """
    return injection.rounds * injection.every + continual.steps_after


def check_facts(
    facts: Sequence[Fact],
    injection: FactInjection,
    continual: ContinualTraining,
    tokenizer: Tokenizer,
) -> None:
    """Raises an `InputError` for facts that do not fit into a window or between two rounds.

    >>> injection = FactInjection("tfds:synthetic_world/people=10,places=4", count=3, every=1)
    >>> continual = ContinualTraining("builtin:docs:test", length=500, batch=2)
    >>> check_facts(injection.read(0), injection, continual, data.tokenizers.byte_tokenizer())
    Traceback (most recent call last):
    lmdyn.errors.InputError: 3 facts, 1 rows of a batch at most, take 3 updates a round; use
    injection.every of at least 3, a larger share or batch, or a smaller injection.count
    """
    data.check_fit(facts, tokenizer, continual.length)
    rows = injection.rows(continual.batch)
    need = math.ceil(len(facts) / rows)
    if need > injection.every:
        raise InputError(
            f"{len(facts)} facts, {rows} rows of a batch at most, take {need} updates a round; use"
            f" injection.every of at least {need}, a larger share or batch, or a smaller"
            " injection.count"
        )


def fact_stream(
    facts: Sequence[Fact],
    injection: FactInjection,
    continual: ContinualTraining,
    tokenizer: Tokenizer,
    seed: int,
    cache: str | None = None,
) -> FactStream:
    """The stream of a seed, which decides the order of the domain's windows.

    Raises:
      InputError: facts that do not fit into a window or into the rows between two rounds; texts
        that cannot be read; no probe.

    >>> injection = FactInjection(
    ...     "tfds:synthetic_world/people=10,places=4", count=2, rounds=2, every=3, ask_every=1
    ... )
    >>> stream = fact_stream(
    ...     injection.read(seed=0),
    ...     injection,
    ...     ContinualTraining("builtin:docs:test", length=500, batch=2, steps_after=1),
    ...     data.tokenizers.byte_tokenizer(),
    ...     seed=0,
    ... )
    >>> len(stream.batches), stream.ask_at, stream.rounds
    (7, (0, 3, 7), (0, 1, 2))
    """
    check_facts(facts, injection, continual, tokenizer)
    rows = injection.rows(continual.batch)
    # The domain's batches, as they would be without facts.
    stored = data.store(data.documents(for_seed(continual.text, seed)), tokenizer, cache=cache)
    source = iter(
        data.mix(
            [(stored, 1.0)],
            data.Packing(
                continual.length,
                continual.batch,
                tokenizer.end_of_text,
                first=tokenizer.window_token,
            ),
            seed=seed,
        )
    )
    batches = [next(source) for _ in range(total_updates(injection, continual))]
    # The k-th fact of a round is in row k % rows of the round's (k // rows)-th batch.
    before = tokenizer.end_of_text if tokenizer.window_token is None else tokenizer.window_token
    rounds = 1 if injection.wordings == "once" else injection.rounds
    for number in range(rounds):
        for k, fact in enumerate(facts):
            wording = number % len(fact.texts) if injection.wordings == "paraphrases" else 0
            [ids] = data.tokenize([fact.texts[wording]], tokenizer)
            at, row = number * injection.every + k // rows, k % rows
            batches[at] = _with_row(batches[at], row, ids, before)
    probes = [(i, probe) for i, fact in enumerate(facts) for probe in fact.probes]
    asked = range(0, rounds, injection.ask_every)
    return FactStream(
        batches,
        (*(r * injection.every for r in asked), len(batches)),
        (*asked, rounds),
        data.encode_probes([probe for _, probe in probes], tokenizer),
        np.array([i for i, _ in probes]),
        np.array([probe.depth or "unknown" for _, probe in probes]),
    )


def _with_row(batch: Batch, row: int, ids, before: int) -> Batch:
    """The batch with one row replaced by a text, as it would follow the token `before`.

    The rest of the row is padding.
    """
    inputs, targets, mask = (np.array(a) for a in batch[:3])
    n = len(ids)
    inputs[row], targets[row], mask[row] = 0, 0, False
    inputs[row, 0], inputs[row, 1:n] = before, ids[:-1]
    targets[row, :n], mask[row, :n] = ids, True
    return Batch(inputs, targets, mask)
