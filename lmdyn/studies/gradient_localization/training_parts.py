"""The parts of the study of gradient localization that train.

Each is a function of the config, a seed and a profile, that gives rows.

Shape letters: L layers, P probes, B rows of a batch, T tokens.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmdyn import costs, data, metrics, records, training, transforms
from lmdyn.data import Batch
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError
from lmdyn.models.modules import LanguageModel
from lmdyn.studies.config import for_seed
from lmdyn.studies.gradient_localization.config import GradientLocalization, Method
from lmdyn.studies.gradient_localization.questions import KEPT, LEARNED, Subject, load_subject
from lmdyn.studies.gradient_localization.restrictions import (
    MODES,
    RUNNING,
    Rates,
    restriction,
    trained_part,
)
from lmdyn.studies.workers import remembered
from lmdyn.training import TrainState, make_optimizer, make_step
from lmdyn.training.prepare import packing
from lmdyn.transforms.localization import PROFILE_GROUPS
from lmdyn.transforms.running_profile import DECAY, RunningProfile, relative
from lmdyn.types import Params, present


def batches(
    config: GradientLocalization, tokenizer: Tokenizer, seed: int, method: Method
) -> list[Batch]:
    """The batches of a run: the same for all methods, but for what a review puts in."""
    store = lambda ref, every=1: data.store(
        data.documents(for_seed(ref, seed))[::every], tokenizer, cache=config.cache
    )
    review = None
    if method.review is not None:
        review = data.MixReview(store(method.review.ref), method.review.ratio, method.review.decay)
    stream = data.mix(
        [(store(s.ref, s.every), s.weight) for s in config.data.sources],
        packing(config.data, tokenizer),
        seed=seed,
        review=review,
        steps=config.steps,
    )
    source = iter(stream)
    return [next(source) for _ in range(config.steps)]


class Program(NamedTuple):
    """What all runs of one kind share, compiled once.

    Attributes:
      begin: `params -> TrainState`, a copy.
      step: `(TrainState, batch) -> (TrainState, metrics)`.
      whole: `TrainState -> params`.
    """

    begin: Callable
    step: Callable
    whole: Callable


@remembered
def program(
    config: GradientLocalization,
    model: LanguageModel,
    method: Method,
    rates: Rates | None = None,
    mode: str | None = None,
    reference: Mapping[str, Sequence[float]] | None = None,
) -> Program:
    """The compiled step of a method.

    Args:
      config: of the study.
      model: the module.
      method: its name and its review do not matter.
      rates: what has a rate of 0 is left out of the program; None: nothing is.
      mode: `freeze` or `scale` of a running profile; None for rates that are given.
      reference: of the running profile.
    """
    rule = make_optimizer(dataclasses.replace(config.optimizer, recall=method.recall), config.steps)
    if mode is not None:
        rule = transforms.relocalize(rule, present(reference), mode)
    optimizer = optax.chain(
        rule, transforms.adjustable_rates(PROFILE_GROUPS if rates is None else ())
    )
    part = (
        None
        if method.adapters is None and rates is None
        else trained_part(method, model.config, rates)
    )
    begin = jax.jit(lambda params: training.start(jax.tree.map(jnp.copy, params), optimizer, part))
    step = jax.jit(make_step(model, optimizer, part=part), donate_argnums=0)
    return Program(begin, step, jax.jit(lambda state: training.whole(state, part)))


def anonymous(method: Method) -> Method:
    """A method without what its program does not depend on."""
    return dataclasses.replace(method, name="", review=None, learning_rate_factor=1.0)


@remembered
def _nll(config):  # one metric, so that every run uses the same compiled program
    return metrics.likelihood()


class FactScores(NamedTuple):
    """What a model knows.

    Attributes:
      spans: `{kind: mean log-probability}` of the probed spans, nats.
      old_nll: of held-out pretraining text, nats per token.
    """

    spans: dict[str, float]
    old_nll: float


class Setup(NamedTuple):
    """What all runs of one method and seed share.

    Attributes:
      config: of the study.
      seed: the seed.
      subject: the model that they begin from.
      method: of continual pretraining.
      batches: one per update.
      before: what the model knows at the beginning.
    """

    config: GradientLocalization
    seed: int
    subject: Subject
    method: Method
    batches: list[Batch]
    before: FactScores


def set_up(config: GradientLocalization, seed: int, method: Method) -> Setup:
    """Loads a seed's model and makes the batches of a method."""
    subject = load_subject(config, seed)
    given = batches(config, subject.tokenizer, seed, method)
    return Setup(config, seed, subject, method, given, ask(config, subject, subject.params))


def ask(config: GradientLocalization, subject: Subject, params: Params) -> FactScores:
    """Asks a model for all kinds of facts, and for old text."""
    kinds = {kind: len(probes) for kind, probes in subject.questions.asked.items()}
    scores = metrics.score_probes(subject.model, params, subject.asked, rows=64).log_probability
    cut = np.split(scores, np.cumsum(list(kinds.values()))[:-1])
    return FactScores(
        {kind: float(part.mean()) for kind, part in zip(kinds, cut, strict=True)},
        metrics.measure(_nll(config), subject.model, params, subject.old).nll,
    )


def evaluate_at(steps: int, evaluations: int) -> list[int]:
    """Updates after which a run is asked: spread evenly, the last one among them.

    >>> evaluate_at(steps=9, evaluations=2)
    [4, 9]
    """
    return [steps * (i + 1) // evaluations for i in range(evaluations)]


def train_once(
    setup: Setup, compiled: Program, rates: Rates, factor: float
) -> tuple[dict[int, FactScores], TrainState]:
    """Trains once.

    Args:
      setup: what the runs of the method share.
      compiled: the step.
      rates: what updates of each layer are multiplied by.
      factor: what all of them are multiplied by.

    Returns:
      What was asked after each update that it was due, and the state at the end.
    """
    config, subject = setup.config, setup.subject
    state = compiled.begin(subject.params)
    state = state._replace(optimizer=rates.put(state.optimizer, factor))
    found, due = {0: setup.before}, evaluate_at(config.steps, config.evaluations)
    for number, batch in enumerate(setup.batches, 1):
        state, logged = compiled.step(state, batch)
        if number in due:
            found[number] = ask(config, subject, compiled.whole(state))
    if not math.isfinite(float(logged["loss"])):
        raise InputError(
            f"the loss of the continual training is {float(logged['loss'])}; lower"
            " optimizer.learning_rate or the last of learning_rate_factors"
        )
    return found, state


def run_rows(
    setup: Setup, found: Mapping[int, FactScores], moved: float, flops: float, tags: dict
) -> list[dict]:
    """A run as rows.

    `span_log_probability` by `kind` and `update`, with its `perplexity`; `old_nll`; `moved`,
    the distance from where it began over the size of the parameters; `flops`; and what they
    come to, `learned` and `forgotten`, see `outcome`.
    """
    config, reference = setup.config, setup.subject.reference
    rows = []
    make = lambda metric, value, unit, **more: rows.append(
        records.row(
            metric, float(value), unit, model=str(reference), step=reference.step, **tags, **more
        )
    )
    for update, scores in found.items():
        for kind, value in scores.spans.items():
            about = {"kind": kind, "update": update, "perplexity": math.exp(-value)}
            tokens = len(setup.subject.questions.asked[kind])
            make("span_log_probability", value, "nats", **about, tokens=tokens)
        make("old_nll", scores.old_nll, "nats", update=update, tokens=config.tokens)
    learned, forgotten, how = outcome(found[0], found[max(found)])
    make("learned", learned, "nats")
    make("forgotten", forgotten, "share", **how)
    make("moved", moved, "share")
    tokens = config.steps * config.data.batch * config.data.length
    make("flops", flops, "flops", tokens_trained=tokens)
    return rows


def outcome(before: FactScores, after: FactScores) -> tuple[float, float, dict[str, float]]:
    """What a run learned and forgot.

    `learned`: the rise of log-probability of updated and of new spans, their mean, nats.
    `forgotten`: the mean of the relative rise of old text's nll and the relative fall of unchanged
    spans' log-probability (as in the study of knowledge entropy); above 0 is forgotten.

    >>> before, after = (
    ...     FactScores({"updated": -4.0, "new": -6.0, "unchanged": -2.0}, 4.0),
    ...     FactScores({"updated": -3.0, "new": -3.0, "unchanged": -2.5}, 5.0),
    ... )
    >>> outcome(before, after)
    (2.0, 0.25, {'text': 0.25, 'facts': 0.25})
    """
    learned = float(np.mean([after.spans[kind] - before.spans[kind] for kind in LEARNED]))
    text = after.old_nll / before.old_nll - 1
    facts = (before.spans[KEPT] - after.spans[KEPT]) / abs(before.spans[KEPT])
    return learned, (text + facts) / 2, {"text": text, "facts": facts}


def _moved(old, new) -> float:
    pairs = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
    squares = [(float(jnp.sum(jnp.square(b - a))), float(jnp.sum(jnp.square(a)))) for a, b in pairs]
    return math.sqrt(sum(d for d, _ in squares) / sum(s for _, s in squares))


def train_at_all_rates(
    setup: Setup, compiled: Program, used: Rates, part: Any, mode: str
) -> Iterator[tuple[list[dict], TrainState]]:
    """The rows and the last state of a run at each learning rate.

    Args:
      setup: what the runs of the method share.
      compiled: the step.
      used: what updates of each layer are multiplied by.
      part: what is trained, whose operations are counted.
      mode: in rows.
    """
    config, method, subject = setup.config, setup.method, setup.subject
    flops = config.steps * costs.step_flops(
        subject.model.config, config.data.batch, config.data.length, part
    )
    for factor in config.learning_rate_factors:
        found, state = train_once(setup, compiled, used, factor * method.learning_rate_factor)
        moved = _moved(subject.params, compiled.whole(state))
        tags = {"seed": setup.seed, "method": method.name, "mode": mode, "factor": factor}
        yield run_rows(setup, found, moved, flops, tags), state


def train_further(
    config: GradientLocalization, seed: int, method: Method, r: Mapping[str, Sequence[float]]
) -> list[dict]:
    """Continual pretraining by one method, in every mode and at every learning rate.

    Args:
      config: of the study.
      seed: the seed.
      method: the method.
      r: the profile that restricts training, `{group: L numbers}`.
    """
    setup, rows = set_up(config, seed, method), []
    model = setup.subject.model
    for mode in MODES:
        if mode == "blocks" and method != config.methods[0]:
            continue
        rates = restriction(mode, r, seed)
        left_out = rates if config.leave_out_frozen and not rates.elsewhere else None
        compiled = program(config, model, anonymous(method), left_out)
        used = rates if left_out is None else rates.of_rest()
        part = trained_part(method, model.config, rates)
        for found, _ in train_at_all_rates(setup, compiled, used, part, mode):
            rows += found
    return rows


def train_running(
    config: GradientLocalization, seed: int, reference: Mapping[str, Sequence[float]]
) -> list[dict]:
    """Plain continual pretraining with the profile estimated during training.

    Also `running_profile`, what it is at the end of a run.
    """
    setup, rows = set_up(config, seed, config.methods[0]), []
    model, method = setup.subject.model, setup.method
    everything = Rates({group: np.ones(model.config.depth) for group in PROFILE_GROUPS}, 1.0)
    part = trained_part(method, model.config)
    for mode in RUNNING:
        compiled = program(config, model, anonymous(method), None, mode.split()[1], reference)
        for found, state in train_at_all_rates(setup, compiled, everything, part, mode):
            rows += found
            tags = {k: found[-1][k] for k in ("seed", "method", "mode", "factor")}
            make = functools.partial(records.row, model=str(setup.subject.reference), **tags)
            is_profile = lambda node: isinstance(node, RunningProfile)
            nodes = jax.tree.leaves(state.optimizer, is_leaf=is_profile)
            (profile,) = filter(is_profile, nodes)
            for group, values in relative(profile, DECAY).items():
                rows += [
                    make("running_profile", value, "ratio", site=group, layer=layer)
                    for layer, value in enumerate(np.asarray(values))
                ]
    return rows
