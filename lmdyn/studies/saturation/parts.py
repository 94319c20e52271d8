"""The parts of the saturation study: what trains, measures or counts.

Each is a function that another process can run, and gives rows.

Shape letters: D width, V vocabulary, R rank.
"""

import functools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax

from lmdyn import checkpoints, data, metrics, records
from lmdyn.errors import InputError
from lmdyn.metrics import targets
from lmdyn.models import Compute, ModelConfig, shapes
from lmdyn.models.heads import LowRankHead, make_head, output_kernel, truncations
from lmdyn.params import flatten
from lmdyn.report.figures import short
from lmdyn.studies.config import load_model
from lmdyn.studies.pretraining import train_run
from lmdyn.studies.saturation.config import Heads, Saturation
from lmdyn.studies.workers import remembered
from lmdyn.training import TrainConfig
from lmdyn.training.final_states import FinalStates, final_states
from lmdyn.training.head_fits import fit_heads, score_heads
from lmdyn.types import Bos, present

AT_ONCE = 2**31
"""Bytes that heads trained together hold at most: parameters, gradients, two moments."""


class Measurement(NamedTuple):
    """What is measured of a given model, and how."""

    text: str
    tokens: int
    length: int
    batch: int
    vocabulary: slice | None
    compute: Compute
    bos: Bos
    end_of_text: str | None


class Frozen(NamedTuple):
    """How states of frozen bodies are made: `text` and `tokens` are what heads are scored on."""

    text: str
    tokens: int
    length: int
    batch: int
    compute: Compute
    bos: Bos
    end_of_text: str | None
    cache: str | None
    states: str | None


def parameters(config: ModelConfig) -> int:
    """N: all numbers of a model, embedding and head too (as Hoffmann et al. 2022 count them)."""
    return sum(math.prod(leaf.shape) for leaf in flatten(shapes(config)).values())


def train(run: TrainConfig, tags: dict, command: list[str]) -> list[dict]:
    """One run of the ladder: what it measured, and its training loss.

    The loss is given as means over the steps between two measurements.
    """
    measured = train_run(run, command, {})
    out, per_step = Path(run.out), run.data.batch * run.data.length
    tags = {**tags, "parameters": parameters(present(run.model)), "run": out.name}
    found = [{**r, **tags, "trained": r["step"] * per_step} for r in measured]
    log = [
        json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    every = present(run.evaluation).every
    bins: dict[int, list[float]] = {}
    for line in log:
        bins.setdefault(-(-line["step"] // every) * every, []).append(line["loss"])
    for step, losses in sorted(bins.items()):
        done = min(step, run.steps)
        about = {"model": f"run:{run.out}", "step": done, **tags, "trained": done * per_step}
        found.append(records.row("train_loss", np.mean(losses), "nats", **about))
    return found


@functools.cache
def _ladder_metrics(vocabulary: tuple | None) -> metrics.Metric:
    """One metric, so that every checkpoint of a series runs the same compiled program."""
    spectrum = metrics.head_spectrum(None if vocabulary is None else slice(*vocabulary))
    return metrics.combine(
        nll=metrics.likelihood(), anisotropy=metrics.anisotropy(), head_spectrum=spectrum
    )


def measured(
    reference: str, step: int | None, how: Measurement, narrow: int, tokens_per_step: int | None
) -> list[dict]:
    """What the ladder's runs measure, of one given checkpoint."""
    loaded = load_model(how, reference, packed=True)
    data.check_vocabulary(loaded.tokenizer, loaded.model.config)
    config = loaded.model.config
    metrics.check_vocabulary_slice(loaded.params, how.vocabulary)
    batches = data.batches(how.text, loaded.tokenizer, how.length, how.batch, how.tokens)
    vocabulary = None if how.vocabulary is None else (how.vocabulary.start, how.vocabulary.stop)
    found = metrics.measure(_ladder_metrics(vocabulary), loaded.model, loaded.params, batches)
    series = reference.partition("@")[0]
    tags = {
        "kind": "given",
        "name": short(series),
        "seed": 0,
        "width": config.width,
        "narrow": config.width <= narrow,
        "head": "full",
        "parameters": parameters(config),
        "run": series,
    }
    # A single model is its own last step.
    about = {"step": step or 0, "tokens": batches.tokens}
    tags["trained"] = (step or 0) * (tokens_per_step or 0)
    return [
        records.row(model=reference, **{**about, **r}, **tags)
        for part in found.values()
        for r in part.rows()
    ]


@remembered
def _loaded(reference: str, how: Frozen) -> Any:
    return load_model(how, reference)


def architecture(reference: str) -> ModelConfig:
    """The architecture of a model, by loading it with its matrices as they are stored."""
    return checkpoints.load(reference, packed=True).model.config


def _states(loaded, text: str, tokens: int, how: Frozen) -> FinalStates:
    batches = data.batches(text, loaded.tokenizer, how.length, how.batch, tokens)
    return final_states(loaded.model, loaded.params, batches, cache=how.states)


def _body(reference: str, heads, how: Frozen):
    """The model, its states to train heads on and those to score them on, and the tags of rows."""
    loaded = _loaded(reference, how)
    config = loaded.model.config
    if config.head != "full":
        raise InputError(
            f"{reference} has a head '{config.head}'; ranks are of a full head, which is one matrix"
        )
    fit, test = (
        _states(loaded, heads.text, heads.tokens, how),
        _states(loaded, how.text, how.tokens, how),
    )
    return loaded, fit, test, {"kind": "frozen", "width": config.width, "body": short(reference)}


def _fitted(
    kinds: dict, fit: FinalStates, test: FinalStates, heads, seed: int, rate: float, starts=None
) -> dict[str, float]:
    """The final loss of each head on the other text; as many of them at once as memory allows."""
    found, group = {}, {}

    def flush():
        if group:
            own = {name: starts[name] for name in group if starts and name in starts}
            optimizer = optax.adam(optax.cosine_decay_schedule(rate, heads.steps))
            trained = fit_heads(
                group,
                fit.states,
                fit.targets,
                steps=heads.steps,
                batch=heads.batch,
                params=own,
                optimizer=optimizer,
                seed=seed,
            )
            found.update(
                score_heads(group, trained.params, test.states, test.targets, batch=heads.batch)
            )
            group.clear()

    for name, kind in kinds.items():
        if group and 16 * (sum(head.size for head in group.values()) + kind.size) > AT_ONCE:
            flush()
        group[name] = kind
    flush()
    return found


def head_ranks(reference: str, heads: Heads, how: Frozen, seed: int) -> list[dict]:
    """Loss against the head's rank.

    The truncated head as it is, trained on from there, and trained from random parameters.
    """
    loaded, fit, test, tags = _body(reference, heads, how)
    width, vocab = loaded.model.config.width, loaded.model.config.vocab
    ranks = sorted({*heads.ranks, width})
    starts = {
        f"truncated {r}": p for r, p in truncations(output_kernel(loaded.params), ranks).items()
    }
    ladder = {f"truncated {r}": LowRankHead(width, vocab, r) for r in ranks}
    losses = {
        ("as it is", int(name.split()[1])): nll
        for name, nll in _scores(ladder, starts, test, heads).items()
    }
    wanted = ladder | {f"scratch {r}": LowRankHead(width, vocab, r) for r in ranks if heads.scratch}
    for name, nll in _fitted(wanted, fit, test, heads, seed, heads.learning_rate, starts).items():
        start, rank = name.split()
        losses[
            {"truncated": "trained from there", "scratch": "trained from random"}[start], int(rank)
        ] = nll
    make = functools.partial(records.row, "head_rank", model=reference, unit="nats")
    about = {"seed": seed, "climb": heads.climb, **tags}
    return [
        make(value=nll, tokens=len(test.targets), rank=rank, start=start, **about)
        for (start, rank), nll in losses.items()
    ]


def _scores(kinds, params, test: FinalStates, heads) -> dict[str, float]:
    found = {}
    for (
        name,
        kind,
    ) in kinds.items():  # one by one: a ladder of a large vocabulary is too much at once
        found |= score_heads(
            {name: kind}, {name: params[name]}, test.states, test.targets, batch=heads.batch
        )
    return found


def head_alternatives(reference: str, heads: Heads, how: Frozen, seed: int) -> list[dict]:
    """Other kinds of head on a frozen body, and a full one, all from random parameters."""
    loaded, fit, test, tags = _body(reference, heads, how)
    width, vocab = loaded.model.config.width, loaded.model.config.vocab
    kinds = {name: make_head(name, width, vocab) for name in ("full", *heads.alternatives)}
    own = kinds["full"].size
    rate = heads.alternatives_learning_rate or heads.learning_rate
    rows = []
    for name, nll in _fitted(kinds, fit, test, heads, seed, rate).items():
        size = kinds[name].size
        about = {"head": name, "numbers": size, "size": size / own, "seed": seed, **tags}
        tokens = len(test.targets)
        rows.append(records.row("head_kind", nll, "nats", model=reference, tokens=tokens, **about))
    return rows


def target(config: Saturation, reference: str, context: int, seed: int) -> list[dict]:
    """The rank of next-token distributions of growing shares of the text.

    Its documents are put into an order by seed.
    """
    loaded, about = load_model(config, reference, packed=True), present(config.target)
    tokens = data.store(about.text, loaded.tokenizer, cache=config.cache)
    vocab = loaded.model.config.vocab
    order = np.random.default_rng(seed).permutation(len(tokens))
    pieces = [tokens[i] for i in order]
    ids, ends = np.concatenate(pieces), np.cumsum([len(piece) for piece in pieces])
    found = []
    for share in sorted(about.shares):
        size = max(context + 1, round(share * len(ids)))
        some = np.append(ends[ends < size], size)
        counts = targets.ngram_counts(ids[:size], vocab, context, ends=some, least=about.min_count)
        one = targets.target_rank(counts, about.max_values, "tokens")
        tags = {"kind": "target", "context": context, "share": share, "size": size, "seed": seed}
        make = functools.partial(records.row, model=about.text, tokens=one.tokens, **tags)
        found += [make(**{"contexts": one.contexts, **r}) for r in one.rows()]
        directions = functools.partial(make, unit="directions", contexts=one.contexts)
        if (needed := one.needed(about.error)) is not None:
            found.append(directions("target_rank", needed, error=about.error))
        if len(one.values) == min(present(counts.shape)):  # all singular values are known
            rank = _effective_rank(one.values)
            found.append(directions("target_effective_rank", rank))
    return found


def _effective_rank(values: np.ndarray) -> float:
    """The exponential of the entropy of singular values, as shares of their sum."""
    share = values / values.sum()
    return float(np.exp(-np.sum(share * np.log(np.where(share > 0, share, 1)))))
