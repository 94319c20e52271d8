"""Training on a `FactStream`, what a model knows before, during and after, and the rows of that."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from lmdyn import metrics, records
from lmdyn.analysis import statistics
from lmdyn.data import Batch, ProbeBatch
from lmdyn.errors import InputError
from lmdyn.models.modules import LanguageModel
from lmdyn.studies.injected_facts import ContinualTraining, FactInjection, FactStream, total_updates
from lmdyn.training import make_optimizer, make_step, start, whole
from lmdyn.types import present


class Scores(NamedTuple):
    """What a model knows after an update. Made by the `inject` of `make_injection`.

    Attributes:
      new: `lmdyn.metrics.SpanScores` of the new facts' probes, `[P]`.
      known: the same of facts known before; None where not asked.
      old_nll: of held-out text of the old domain, nats per token; None where not measured.
      new_nll: the same of the new domain.

    >>> import numpy as np
    >>> known = metrics.SpanScores(np.array([-1.0]), np.array([True]))
    >>> Scores(new=None, known=known, old_nll=3.0, new_nll=None).old_nll
    3.0
    """

    new: Any
    known: Any
    old_nll: float | None
    new_nll: float | None


class Controls(NamedTuple):
    """What is measured besides the new facts, before and after the continual training.

    Attributes:
      known: probes of facts known before; None where there are none.
      old: batches of held-out text of the old domain; None measures none.
      new: the same of the new domain.

    >>> Controls(known=None, old=None, new=None).old is None
    True
    """

    known: ProbeBatch | None
    old: Sequence[Batch] | None
    new: Sequence[Batch] | None


def make_injection(
    model: LanguageModel, continual: ContinualTraining, injection: FactInjection
) -> Callable:
    """`inject(params, stream, controls, progress=False) -> tuple[Scores, ...]`.

    It trains on the stream, and gives the scores after each of the stream's `ask_at` updates.

    All models of a study go through one compiled step. `inject` may run in several threads at once.

    Args:
      model: a `lmdyn.models.LanguageModel`, whose architecture all `params` share.
      continual: the continual training.
      injection: which facts are injected.
    """
    optimizer = make_optimizer(continual.optimizer, total_updates(injection, continual))
    step = jax.jit(make_step(model, optimizer), donate_argnums=0)
    nll = metrics.likelihood()

    # A copy: the first step takes its state over, and the parameters are needed again.
    begin = jax.jit(lambda params: start(jax.tree.map(jnp.copy, params), optimizer))

    def score(params, stream: FactStream, controls: Controls, everything: bool) -> Scores:
        new = metrics.score_probes(model, params, stream.probes)
        if not everything:
            return Scores(new, None, None, None)
        measured = lambda batches: (
            None if batches is None else metrics.measure(nll, model, params, batches).nll
        )
        known = controls.known
        known = None if known is None else metrics.score_probes(model, params, known)
        return Scores(new, known, measured(controls.old), measured(controls.new))

    def inject(
        params, stream: FactStream, controls: Controls, progress: bool = False
    ) -> tuple[Scores, ...]:
        state, found, last = begin(params), [], stream.ask_at[-1]
        for number in tqdm(
            range(last + 1), desc="updates", unit="update", leave=False, disable=not progress
        ):
            if number in stream.ask_at:
                found.append(score(whole(state), stream, controls, number in (0, last)))
            if number < last:
                state, logged = step(state, stream.batches[number])
        if not math.isfinite(float(logged["loss"])):
            raise InputError(
                f"the loss of the continual training is {float(logged['loss'])}; lower"
                " continual.optimizer.learning_rate"
            )
        return tuple(found)

    return inject


def score_rows(
    reference: str, step: int | None, scores: Sequence[Scores], stream: FactStream, tags: dict
) -> list[dict]:
    """What a model scored during the continual training, as rows.

    Rows: `span_log_probability` and `exact_match` of the new facts by `depth` at each `update`,
    with the `rounds` begun by then; `acquisition` and `fact_gain`, see `_gain_rows`; `old_nll`,
    `new_nll`, `known_log_probability`, `known_exact_match` before and after; `forgetting`, see
    `forgetting`.

    Args:
      reference: of the model that it began from.
      step: that model's training step.
      scores: what `inject` returned.
      stream: what it was trained on.
      tags: fields added to every row.
    """
    rows = []
    make = lambda metric, value, unit, **extra: rows.append(
        records.row(metric, float(value), unit, model=reference, step=step, **tags, **extra)
    )
    for update, rounds, now in zip(stream.ask_at, stream.rounds, scores, strict=True):
        for depth, of in _by_depth(stream):
            about = {"depth": depth, "update": update, "rounds": rounds, "tokens": int(of.sum())}
            make("span_log_probability", now.new.log_probability[of].mean(), "nats", **about)
            make("exact_match", now.new.exact[of].mean(), "share", **about)
    before, after = scores[0], scores[-1]
    _gain_rows(make, before, after, stream)
    for update, now in ((stream.ask_at[0], before), (stream.ask_at[-1], after)):
        for name in ("old_nll", "new_nll"):
            if (value := getattr(now, name)) is not None:
                make(name, value, "nats", update=update)
        if now.known is not None:
            make("known_log_probability", now.known.log_probability.mean(), "nats", update=update)
            make("known_exact_match", now.known.exact.mean(), "share", update=update)
    for name, value in forgetting(before, after).items():
        make("forgetting", value, "share", of=name)
    return rows


def _by_depth(stream: FactStream) -> list[tuple[str | None, np.ndarray]]:
    """Each depth with the mask of its probes; None, which stands for all, first."""
    depths = [None, *dict.fromkeys(stream.depth)]
    every = np.ones(len(stream.depth), bool)
    return [(d, every if d is None else stream.depth == d) for d in depths]


def _gain_rows(make: Callable, before: Scores, after: Scores, stream: FactStream) -> None:
    """Rows `acquisition` and `fact_gain`.

    `acquisition`, by depth and over all probes (None): `mean(l_after - l_before)` in nats with
    its bootstrap interval over facts, and `relative`, `mean((l_after - l_before) /
    |l_before|)`; `fact_gain`: the same for each fact.
    """
    gained = after.new.log_probability - before.new.log_probability
    for depth, of in _by_depth(stream):
        facts = np.unique(stream.fact[of])
        per_fact = np.array([gained[of & (stream.fact == i)].mean() for i in facts])
        found = statistics.bootstrap(per_fact)
        relative = float(np.mean(gained[of] / np.abs(before.new.log_probability[of])))
        about = {"depth": depth, "relative": relative, "low": found.low, "high": found.high}
        make("acquisition", gained[of].mean(), "nats", **about, tokens=int(of.sum()))
        for fact, value in zip(facts, per_fact, strict=True):
            make("fact_gain", value, "nats", depth=depth, fact=int(fact))


def forgetting(before: Scores, after: Scores) -> dict[str, float]:
    """Relative losses of what was known before: positive is forgotten.

    `text`: the rise of the old domain's nll over what it was. `facts`: the fall of old facts' span
    log-probability over its size. `exact`: the fall of their exact match over what it was, where
    any was right (the definition of Kim et al. 2024; early checkpoints have none right, so a series
    cannot be compared by it). `all`: the mean of `text` and `facts`.

    >>> import numpy as np
    >>> scored = lambda l, nll: Scores(
    ...     None, metrics.SpanScores(np.array([l]), np.array([True])), old_nll=nll, new_nll=None
    ... )
    >>> {k: round(v, 3) for k, v in forgetting(scored(-1.0, 3.0), scored(-1.5, 3.3)).items()}
    {'text': 0.1, 'facts': 0.5, 'all': 0.3, 'exact': 0.0}
    """
    found = {}
    if before.old_nll is not None:
        found["text"] = present(after.old_nll) / before.old_nll - 1
    if before.known is not None:
        was = before.known.log_probability.mean()
        found["facts"] = float((was - after.known.log_probability.mean()) / abs(was))
    found["all"] = float(np.mean(list(found.values()))) if found else 0.0
    if before.known is not None and before.known.exact.any():
        found["exact"] = float(1 - after.known.exact.mean() / before.known.exact.mean())
    return found
