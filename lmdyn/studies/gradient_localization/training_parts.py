"""The parts of the study of gradient localization that train: each a function of the config, a seed
and a profile, that gives rows.

Shape letters: L layers, P probes, B rows of a batch, T tokens.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmdyn import costs, data, metrics, models, online, records, training, transforms
from lmdyn.data import Batch
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig
from lmdyn.models.modules import LanguageModel
from lmdyn.params import Partition, low_rank, partition
from lmdyn.params.adapters import Adapters
from lmdyn.studies.gradient_localization.profile_parts import (
    KEPT,
    LEARNED,
    Loaded,
    Questions,
    batch_norms,
    by_entity,
    loaded,
    pretrain,
    pretraining,
    profile,
    questions,
    run_folder,
    shared,
    traced,
)
from lmdyn.studies.workers import remembered
from lmdyn.training import make_optimizer, make_step
from lmdyn.transforms.localization import KINDS as GROUPS
from lmdyn.transforms.running_profile import DECAY, RunningProfile, relative
from lmdyn.types import Params, Tree, present

if TYPE_CHECKING:
    from lmdyn.studies.gradient_localization.study import GradientLocalization, Method
__all__ = [
    "KEPT",
    "LEARNED",
    "MODES",
    "RUNNING",
    "STEPS",
    "Asked",
    "Loaded",
    "Program",
    "Questions",
    "Rates",
    "adapt_online",
    "anonymous",
    "ask",
    "batch_norms",
    "batches",
    "by_entity",
    "loaded",
    "moments",
    "one_run",
    "outcome",
    "part_of",
    "pretrain",
    "pretraining",
    "profile",
    "program",
    "questions",
    "restriction",
    "run_folder",
    "run_rows",
    "selector",
    "shared",
    "streamed",
    "traced",
    "train_further",
    "train_running",
]

MODES = ("plain", "freeze", "scale", "random", "complement", "blocks")
RUNNING = ("running freeze", "running scale")
STEPS = (1, 2)
"""Optimizer steps a chunk that online adaptation takes."""


# --- restrictions
# ------------------------------------------------------------------------------------------------------


class Rates(NamedTuple):
    """What updates are multiplied by: `{group: [L]}`, and one number for what is in none of the
    groups.
    """

    groups: dict[str, np.ndarray]
    elsewhere: float

    def put(self, state: Tree, factor: float) -> Tree:
        """An optimizer's state with these rates in it, times a factor."""
        return transforms.with_rates(
            state,
            {group: factor * values for group, values in self.groups.items()},
            factor * self.elsewhere,
        )

    def left(self) -> "Rates":
        """The rates of what is left when all that has a rate of 0 is left out, for `freeze` and its
        like.
        """
        return Rates({}, 1.0)


def restriction(mode: str, r: Mapping[str, Sequence[float]], seed: int) -> Rates:
    """The rates of a mode, for a profile.

    `freeze`: 1 where `r > mean(r)`, nothing else. `scale`: `r / mean(r)`, and all else as usual.
    `random`: as many groups and layers as freeze has, drawn by seed. `complement`: those that
    freeze has not. `blocks`: all groups and layers, nothing else. `plain`: everything.

    >>> restriction("freeze", {"attention": [1.0, 2.0], "mlp": [1.0, 4.0]}, seed=0)
    Rates(groups={'attention': array([0., 0.]), 'mlp': array([0., 1.])}, elsewhere=0.0)
    """
    flat = np.concatenate([np.asarray(r[group], float) for group in GROUPS])
    high = flat > flat.mean()
    drawn = np.random.default_rng([seed, 7]).permutation(len(flat)) < high.sum()
    values = {
        "plain": np.ones(len(flat)),
        "freeze": high,
        "scale": flat / flat.mean(),
        "random": drawn,
        "complement": ~high,
        "blocks": np.ones(len(flat)),
    }[mode]
    cut = np.split(values.astype(float), np.cumsum([len(r[group]) for group in GROUPS])[:-1])
    return Rates(dict(zip(GROUPS, cut, strict=True)), 1.0 if mode in ("plain", "scale") else 0.0)


def selector(rates: Rates) -> str:
    """What has a rate above 0, for a partition that costs as little as it can.

    >>> selector(Rates({"attention": np.array([0.0, 1.0]), "mlp": np.array([0.0, 0.0])}, 0.0))
    'blocks[1].attention'
    """
    if rates.elsewhere:
        return "all"
    named = (
        (group, ",".join(map(str, np.flatnonzero(values))))
        for group, values in rates.groups.items()
    )
    return "+".join(f"blocks[{layers}].{group}" for group, layers in named if layers)


def part_of(
    method: "Method", architecture: ModelConfig, rates: Rates | None = None
) -> Partition | Adapters:
    """What a method trains, as a partition or adapters, with what has a rate of 0 left out.

    Args:
      rates: None leaves nothing out.
    """
    form = models.shapes(architecture)
    kept = partition(form, "all" if rates is None else selector(rates))
    if method.adapters is None:
        return kept
    where = method.adapters
    whole = low_rank(where.where, rank=where.rank, scale=where.scale).partition(form)
    chosen: dict[Any, tuple[int, ...] | None] = {
        path: tuple(sorted(set(layers or ()) & set(kept.chosen.get(path) or ())))
        for path, layers in whole.chosen.items()
    }
    chosen = {path: layers for path, layers in chosen.items() if layers}
    if not chosen:
        raise InputError(
            f"method {method.name}: no adapter at {where.where} stands beside what is trained; give"
            " adapters at blocks"
        )
    return dataclasses.replace(whole, part=Partition(chosen, whole.part.depth))


# --- continual pretraining
# ---------------------------------------------------------------------------------------------


def batches(
    config: "GradientLocalization", tokenizer: Tokenizer, seed: int, method: "Method"
) -> list[Batch]:
    """The batches of a run: the same for all methods, but for what a review puts in."""
    name = lambda ref: ref.replace("{seed}", str(seed))
    store = lambda ref, every=1: data.store(
        data.documents(name(ref))[::every], tokenizer, cache=config.cache
    )
    review = None
    if method.review is not None:
        review = data.MixReview(store(method.review.ref), method.review.ratio, method.review.decay)
    stream = data.mix(
        [(store(s.ref, s.every), s.weight) for s in config.data.sources],
        data.Packing(config.data.length, config.data.batch, tokenizer.end_of_text),
        seed=seed,
        review=review,
        steps=config.steps,
    )
    source = iter(stream)
    return [next(source) for _ in range(config.steps)]


class Program(NamedTuple):
    """What all runs of one kind share, compiled once."""

    begin: Callable
    """`params -> State`, a copy"""
    step: Callable
    whole: Callable
    """`State -> params`"""


@remembered
def program(
    config: "GradientLocalization",
    model: LanguageModel,
    method: "Method",
    rates: Rates | None = None,
    mode: str | None = None,
    reference: Mapping[str, Sequence[float]] | None = None,
) -> Program:
    """The compiled step of a method.

    Args:
      method: its name and its review do not matter. rates: what has a rate of 0 is left out of the
        program; None: nothing is.
      mode: `freeze` or `scale` of a running profile, whose `reference` is given; None for rates
        that are given.
    """
    rule = make_optimizer(dataclasses.replace(config.optimizer, recall=method.recall), config.steps)
    if mode is not None:
        rule = transforms.relocalize(rule, present(reference), mode)
    optimizer = optax.chain(rule, transforms.adjustable_rates(GROUPS if rates is None else ()))
    part = (
        None if method.adapters is None and rates is None else part_of(method, model.config, rates)
    )
    begin = jax.jit(lambda params: training.start(jax.tree.map(jnp.copy, params), optimizer, part))
    step = jax.jit(make_step(model, optimizer, part=part), donate_argnums=0)
    return Program(begin, step, jax.jit(lambda state: training.whole(state, part)))


def anonymous(method: "Method") -> "Method":
    """A method without what its program does not depend on."""
    return dataclasses.replace(method, name="", review=None, rate=1.0)


@remembered
def _nll(config):  # one metric, so that every run uses the same compiled program
    return metrics.likelihood()


class Asked(NamedTuple):
    """What a model knows: `{kind: mean log-probability}` of asked spans, nats, and nll of old text."""

    spans: dict[str, float]
    old_nll: float


def ask(config: "GradientLocalization", here: Loaded, params: Params) -> Asked:
    """Asks a model for all kinds of facts, and for old text."""
    kinds = {kind: len(probes) for kind, probes in here.questions.asked.items()}
    scores = metrics.score_probes(here.model, params, here.asked, rows=64).log_probability
    cut = np.split(scores, np.cumsum(list(kinds.values()))[:-1])
    return Asked(
        {kind: float(part.mean()) for kind, part in zip(kinds, cut, strict=True)},
        metrics.measure(_nll(config), here.model, params, here.old).nll,
    )


def moments(config: "GradientLocalization") -> list[int]:
    """Updates after which a run is asked: spread evenly, the last one among them.

    >>> import types
    >>> moments(types.SimpleNamespace(steps=9, ask=2))
    [4, 9]
    """
    return [config.steps * (i + 1) // config.ask for i in range(config.ask)]


def one_run(
    config: "GradientLocalization",
    here: Loaded,
    made: Program,
    given: list[Batch],
    before: Asked,
    rates: Rates,
    factor: float,
) -> tuple[dict[int, Asked], Any]:
    """Trains once; what was asked at each moment, and the parameters at the end."""
    state = made.begin(here.params)
    state = state._replace(optimizer=rates.put(state.optimizer, factor))
    found, due = {0: before}, moments(config)
    for number, batch in enumerate(given, 1):
        state, logged = made.step(state, batch)
        if number in due:
            found[number] = ask(config, here, made.whole(state))
    if not math.isfinite(float(logged["loss"])):
        raise InputError(
            f"the loss of the continual training is {float(logged['loss'])}; lower"
            " optimizer.learning_rate"
            " or the last of factors"
        )
    return found, state


def run_rows(
    config: "GradientLocalization",
    here: Loaded,
    found: Mapping[int, Asked],
    moved: float,
    flops: float,
    tags: dict,
) -> list[dict]:
    """A run as rows: `span_log_probability` by `kind` and `moment`, with its `perplexity`;
    `old_nll`; `moved`, the distance from where it began over the size of the parameters; `flops`;
    and what they come to, `learned` and `forgotten`, see `outcome`.
    """
    rows, about = [], {"step": here.reference.step, **tags}
    make = lambda metric, value, unit, **more: rows.append(
        records.row(str(here.reference), metric, float(value), unit, **about, **more)
    )
    for moment, asked in found.items():
        for kind, value in asked.spans.items():
            make(
                "span_log_probability",
                value,
                "nats",
                kind=kind,
                moment=moment,
                perplexity=math.exp(-value),
                tokens=len(here.questions.asked[kind]),
            )
        make("old_nll", asked.old_nll, "nats", moment=moment, tokens=config.tokens)
    learned, forgotten, how = outcome(found[0], found[max(found)])
    make("learned", learned, "nats")
    make("forgotten", forgotten, "share", **how)
    make("moved", moved, "share")
    make(
        "flops",
        flops,
        "flops",
        tokens_trained=config.steps * config.data.batch * config.data.length,
    )
    return rows


def outcome(before: Asked, after: Asked) -> tuple[float, float, dict[str, float]]:
    """What a run learned and forgot.

    `learned`: the rise of log-probability of updated and of new spans, their mean, nats.
    `forgotten`: the mean of the relative rise of old text's nll and the relative fall of unchanged
    spans' log-probability (as in the study of knowledge entropy); above 0 is forgotten.

    >>> before, after = (
    ...     Asked({"updated": -4.0, "new": -6.0, "unchanged": -2.0}, 4.0),
    ...     Asked({"updated": -3.0, "new": -3.0, "unchanged": -2.5}, 5.0),
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


def train_further(
    config: "GradientLocalization", seed: int, method: "Method", r: Mapping[str, Sequence[float]]
) -> list[dict]:
    """Continual pretraining by one method, in every mode and at every rate."""
    here = loaded(config, seed)
    given, before, rows = (
        batches(config, here.tokenizer, seed, method),
        ask(config, here, here.params),
        [],
    )
    for mode in MODES:
        if mode == "blocks" and method != config.methods[0]:
            continue
        rates = restriction(mode, r, seed)
        without = rates if config.leave_out and not rates.elsewhere else None
        made = program(config, here.model, anonymous(method), without)
        part = part_of(method, here.model.config, rates)
        flops = config.steps * costs.step_flops(
            here.model.config, config.data.batch, config.data.length, part
        )
        for factor in config.factors:
            found, state = one_run(
                config,
                here,
                made,
                given,
                before,
                rates if without is None else rates.left(),
                factor * method.rate,
            )
            tags = {"seed": seed, "method": method.name, "mode": mode, "factor": factor}
            rows += run_rows(
                config, here, found, _moved(here.params, made.whole(state)), flops, tags
            )
    return rows


def train_running(
    config: "GradientLocalization", seed: int, reference: Mapping[str, Sequence[float]]
) -> list[dict]:
    """Plain continual pretraining with the profile estimated on the way; also `running_profile`,
    what it is at the end of a run.
    """
    here, method = loaded(config, seed), config.methods[0]
    given, before, rows = (
        batches(config, here.tokenizer, seed, method),
        ask(config, here, here.params),
        [],
    )
    everything = Rates({group: np.ones(here.model.config.depth) for group in GROUPS}, 1.0)
    part = part_of(method, here.model.config)
    flops = config.steps * costs.step_flops(
        here.model.config, config.data.batch, config.data.length, part
    )
    for mode in RUNNING:
        made = program(config, here.model, anonymous(method), None, mode.split()[1], reference)
        for factor in config.factors:
            found, state = one_run(
                config, here, made, given, before, everything, factor * method.rate
            )
            tags = {"seed": seed, "method": method.name, "mode": mode, "factor": factor}
            rows += run_rows(
                config, here, found, _moved(here.params, made.whole(state)), flops, tags
            )
            is_ours = lambda node: isinstance(node, RunningProfile)
            (profile,) = [
                node for node in jax.tree.leaves(state.optimizer, is_leaf=is_ours) if is_ours(node)
            ]
            for group, values in relative(profile, DECAY).items():
                rows += [
                    records.row(
                        str(here.reference),
                        "running_profile",
                        float(value),
                        "ratio",
                        site=group,
                        layer=layer,
                        **tags,
                    )
                    for layer, value in enumerate(np.asarray(values))
                ]
    return rows


# --- online adaptation
# -------------------------------------------------------------------------------------------------


def adapt_online(
    config: "GradientLocalization", seed: int, r: Mapping[str, Sequence[float]]
) -> list[dict]:
    """Static and online nll of a stream: adaptation of everything, restricted and scaled, at every
    rate, with one step a chunk or two.

    Rows: `static_nll`; `online_nll` by `mode`, `rate` and `steps`, with `flops`.
    """
    here, plan = loaded(config, seed), present(config.online)
    docs = data.tokenize(plan.text.replace("{seed}", str(seed)), here.tokenizer, plan.tokens)
    context = online.none()
    chunks = online.stream(
        docs,
        chunk=plan.chunk,
        context=context,
        end_of_text=here.tokenizer.end_of_text,
        tokens=plan.tokens,
    )
    static = online.evaluate(here.model, here.params, chunks, chunk=plan.chunk)
    about = {"step": here.reference.step, "tokens": chunks.tokens, "seed": seed}
    rows = [
        records.row(
            str(here.reference), "static_nll", static.mean, "nats", flops=static.flops, **about
        )
    ]
    for steps in STEPS:
        run = streamed(config, here.model, steps)
        for mode in MODES:
            rates = restriction(mode, r, seed)
            part = partition(here.params, selector(rates))
            flops = costs.evaluation_flops(here.model.config, chunks.sizes(context), part, steps)
            for rate in plan.rates:
                nll = run(here.params, rates, rate, chunks)[chunks.mask]
                mean = float(nll.mean(dtype=np.float64))
                if not math.isfinite(mean):
                    raise InputError(f"online nll is {mean} at rate {rate}; lower online.rates")
                rows.append(
                    records.row(
                        str(here.reference),
                        "online_nll",
                        mean,
                        "nats",
                        mode=mode,
                        rate=rate,
                        steps=steps,
                        flops=flops,
                        **about,
                    )
                )
    return rows


@remembered
def streamed(config: "GradientLocalization", model: LanguageModel, steps: int) -> Callable:
    """`(params, rates, rate, chunks) -> nll [n, C]`: `online.evaluate` with rates of layers that
    are given, so that all restrictions run in one compiled program; a rate of 0 gives the numbers
    of a selector that leaves the layer out.
    """
    context = online.none()
    optimizer = optax.chain(
        optax.scale_by_adam(b1=0.0), optax.scale(-1.0), transforms.adjustable_rates(GROUPS)
    )
    part = partition(models.shapes(model.config), "all")
    core = jax.jit(
        lambda rest, carry, chunks: online.adapt(
            model, part, optimizer, context, None, rest, carry, chunks, steps=steps
        )[1][0]
    )

    def run(params, rates: Rates, rate: float, chunks):
        chosen, rest = part.split(params)
        carry = online.start(model, chosen, optimizer, context)
        return np.asarray(
            core(rest, carry._replace(optimizer=rates.put(carry.optimizer, rate)), chunks)
        )

    return run
