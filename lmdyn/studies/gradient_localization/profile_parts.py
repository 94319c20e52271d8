"""The first parts of the study of gradient localization: the models, what they are asked, and where
each kind of knowledge lights up.

Shape letters: L layers, P probes, B rows of a batch, T tokens.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn import checkpoints, data, metrics, models, records, training, transforms
from lmdyn.data import Batch, Probe, ProbeBatch
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError
from lmdyn.metrics import LayerGradients
from lmdyn.metrics.localization import norms_of
from lmdyn.models.config import ModelConfig
from lmdyn.studies.workers import remembered
from lmdyn.transforms.localization import KINDS as GROUPS
from lmdyn.types import Row, present

if TYPE_CHECKING:
    from lmdyn.studies.gradient_localization.study import GradientLocalization


LEARNED, KEPT = ("updated", "new"), "unchanged"
"""Kinds of facts that the continual pretraining tells, and the kind that it may make a model forget."""
REFERENCE_BATCHES = 16


# --- pretraining
# -----------------------------------------------------------------------------------------------------


def run_folder(config: "GradientLocalization", seed: int) -> Path:
    """Where the model of a seed is pretrained."""
    return Path(config.out) / "runs" / f"seed{seed}"


def pretraining(config: "GradientLocalization", seed: int) -> training.TrainConfig:
    """The run that makes the model of a seed."""
    run = present(config.pretrain)
    sources = tuple(
        dataclasses.replace(s, ref=s.ref.replace("{seed}", str(seed))) for s in run.data.sources
    )
    return dataclasses.replace(
        run,
        data=dataclasses.replace(run.data, sources=sources),
        seed=seed,
        out=str(run_folder(config, seed)),
    )


def pretrain(config: "GradientLocalization", seed: int) -> list[dict]:
    """The pretraining of a seed's model, with what was measured on the way."""
    run = pretraining(config, seed)
    if training.train(run, [], say=lambda text: None).signal is not None:
        raise KeyboardInterrupt
    file = Path(run.out) / "rows.jsonl"
    found = records.read_rows(file) if run.evaluation is not None else []
    trained = records.row(
        f"run:{run.out}",
        "pretraining",
        run.steps,
        "steps",
        step=run.steps,
        seed=seed,
        tokens_trained=run.steps * run.data.batch * run.data.length,
    )
    return [{**row, "seed": seed, "kind": "pretraining"} for row in found] + [trained]


# --- what is asked, and of which facts
# -----------------------------------------------------------------------------------


class Questions(NamedTuple):
    """Probes of a seed, cut in two by entity.

    Attributes:
      traced: `{kind: probes}`, whose gradients make the profile.
      asked: `{kind: probes}`, asked for before, during and after a run.
    """

    traced: dict[str, tuple[Probe, ...]]
    asked: dict[str, tuple[Probe, ...]]


def questions(
    config: "GradientLocalization",
    tokenizer: Tokenizer,
    seed: int,
    architecture: ModelConfig | None = None,
) -> Questions:
    """Reads the probes of a seed and cuts them in two: every second entity makes the profile, the
    others are asked for.

    Raises:
      InputError: no probes of a kind, or of one entity only; a target that does not fit into the
        model.
    """
    found = [
        probe
        for ref in config.probes
        for probe in data.read_probes(ref.replace("{seed}", str(seed)))
    ]
    halves: tuple[dict, dict] = ({}, {})
    for kind in (*LEARNED, KEPT):
        own = [p for p in found if p.kind == kind]
        names = list(dict.fromkeys(p.entity or p.prompt for p in own))
        if len(names) < 4:
            there = sorted({str(p.kind) for p in found})
            raise InputError(
                f"{' '.join(config.probes)} has probes of kind {kind} about {len(names)} entities,"
                " and 4 are needed, two for the profile and two to ask for; its kinds are:"
                f" {', '.join(there)}"
            )
        side = {name: number % 2 for number, name in enumerate(names)}
        for half, chosen in enumerate(halves):
            mine = [p for p in own if side[p.entity or p.prompt] == half]
            most = (config.traced, config.limit)[half]
            picked = np.unique(np.linspace(0, len(mine) - 1, min(most, len(mine))).astype(int))
            chosen[kind] = tuple(mine[i] for i in picked)
    if architecture is not None:
        longest = architecture.positions
        for half in halves:
            for probes in half.values():
                data.encode_probes(
                    probes, tokenizer, longest if architecture.position == "learned" else None
                )
    return Questions(*halves)


class Loaded(NamedTuple):
    """A seed's model and all that it is asked."""

    reference: checkpoints.Reference
    model: models.LanguageModel
    params: Any
    tokenizer: Any
    questions: Questions
    asked: ProbeBatch
    """all that is asked for, kind after kind"""
    old: Sequence[Batch]
    """held-out pretraining text"""


@remembered
def loaded(config: "GradientLocalization", seed: int) -> Loaded:
    """The model of a seed, and what belongs to it."""
    reference = checkpoints.parse(config.model or f"run:{run_folder(config, seed)}")
    found = checkpoints.load(reference, config.compute)
    cut = questions(config, found.tokenizer, seed)
    asked = data.encode_probes([p for own in cut.asked.values() for p in own], found.tokenizer)
    old = list(
        data.batches(
            config.text, found.tokenizer, config.data.length, config.data.batch, config.tokens
        )
    )
    return Loaded(reference, found.model, found.params, found.tokenizer, cut, asked, old)


# --- the profile
# ---------------------------------------------------------------------------------------------------------


def profile(config: "GradientLocalization", seed: int) -> list[dict]:
    """Where each kind of knowledge lights up.

    Rows: `gradient_norm` by `set` (updated, new, unchanged, random), `relative_gradient_norm` by
    `kind`, and as the mean of updated and new (`kind` traced, which restricts training);
    `profile_difference` of updated and new: size, and `p` of the test over entities;
    `batch_gradient_norm` of whole batches of pretraining text, the reference of a running profile.
    """
    here = loaded(config, seed)
    probes = here.questions.traced
    every = data.encode_probes([p for own in probes.values() for p in own], here.tokenizer)
    ends = np.cumsum([len(own) for own in probes.values()])
    encoded = {
        kind: ProbeBatch(*(part[end - len(probes[kind]) : end] for part in every))
        for kind, end in zip(probes, ends, strict=True)
    }
    like = ProbeBatch(
        *(np.concatenate(parts) for parts in zip(*(encoded[kind] for kind in LEARNED), strict=True))
    )
    need = max(config.spans, 50) * int(like.mask.sum(1).max())
    text = data.join(
        data.tokenize(config.reference, here.tokenizer, need), here.tokenizer.end_of_text
    )
    sets = encoded | {"random": data.random_spans(text, like, config.spans, seed)}
    norms = norms_of(here.model, here.params, sets, groups=GROUPS, batch=32)

    rows, about = [], {"step": here.reference.step, "seed": seed}
    make = lambda row, **more: rows.append(records.row(str(here.reference), **about, **row, **more))
    for name, found in norms.items():
        for row in found.rows():
            make(row, set=name)
    ratios = {
        kind: metrics.relative_gradients(norms[kind], norms["random"], seed=seed)
        for kind in encoded
    }
    for kind, ratio in ratios.items():
        for row in ratio.rows():
            make(row, kind=kind)
    for group in GROUPS:
        for layer, r in enumerate(np.mean([ratios[kind][group] for kind in LEARNED], axis=0)):
            make(
                {
                    "metric": "relative_gradient_norm",
                    "site": group,
                    "layer": layer,
                    "value": float(r),
                    "unit": "ratio",
                },
                kind="traced",
            )
    common = shared(probes)
    first, second = (by_entity(norms[kind], probes[kind], common) for kind in LEARNED)
    found = metrics.compare_profiles(first, second, seed=seed)
    make(
        {"metric": "profile_difference", "value": found.size, "unit": "log share"},
        p=found.p,
        entities=[len(first.losses), len(second.losses)],
        matched=common is not None,
    )
    for group, values in found.difference.items():
        for layer, value in enumerate(values):
            make(
                {
                    "metric": "profile_difference",
                    "site": group,
                    "layer": layer,
                    "value": float(value),
                    "unit": "log share",
                }
            )
    for group, values in reference_norms(config, seed).items():
        for layer, value in enumerate(values):
            make(
                {
                    "metric": "batch_gradient_norm",
                    "site": group,
                    "layer": layer,
                    "value": float(value),
                    "unit": "nats",
                },
                set="random",
            )
    return rows


def shared(probes: Mapping[str, Sequence[Probe]]) -> set | None:
    """The attributes that all of the learned kinds are asked for: others would tell kinds apart by
    what is asked. None, which stands for all, where two entities of each kind are not asked for a
    common one (published files of different make).
    """
    common = set.intersection(*({p.attribute for p in probes[kind]} for kind in LEARNED))
    asked = (
        len({p.entity or p.prompt for p in probes[kind] if p.attribute in common})
        for kind in LEARNED
    )
    return common if min(asked) > 1 else None


def by_entity(
    found: LayerGradients, probes: Sequence[Probe], attributes: set | None
) -> LayerGradients:
    """Geometric means of the norms over the probes of each entity, of some attributes (None: all):
    probes of one entity are not independent.

    >>> probes = [
    ...     Probe("a b", 2, 3, entity="x"),
    ...     Probe("a b", 2, 3, entity="y"),
    ...     Probe("c d", 2, 3, entity="x"),
    ... ]
    >>> norms = LayerGradients(
    ...     {"mlp": np.array([[2.0, 3.0, 8.0]])}, {"mlp": (0,)}, 1, np.ones(3), np.ones(3, int)
    ... )
    >>> by_entity(norms, probes, None).norms["mlp"].round(6).tolist()
    [[4.0, 3.0]]
    """
    owners = [
        p.entity or p.prompt if attributes is None or p.attribute in attributes else None
        for p in probes
    ]
    at = [
        np.flatnonzero([owner == name for owner in owners])
        for name in dict.fromkeys(owners)
        if name is not None
    ]
    merged = lambda values: np.stack(
        [np.exp(np.log(np.maximum(values[..., i], 1e-30)).mean(-1)) for i in at], -1
    )
    norms = {group: merged(values) for group, values in found.norms.items()}
    return dataclasses.replace(
        found,
        norms=norms,
        losses=merged(found.losses),
        tokens=np.array([found.tokens[i].sum() for i in at]),
    )


def reference_norms(config: "GradientLocalization", seed: int) -> dict[str, np.ndarray]:
    """`{group: [L]}`: mean norm of the gradient of whole batches of pretraining text, of the
    continual pretraining's shape.
    """
    here = loaded(config, seed)
    stored = data.store(data.documents(config.reference), here.tokenizer, cache=config.cache)
    stream = iter(
        data.mix(
            [(stored, 1.0)],
            data.Packing(config.data.length, config.data.batch, here.tokenizer.end_of_text),
            seed=seed,
        )
    )
    norms = _batch_norms(config, here.model)
    found = [jax.device_get(norms(here.params, next(stream))) for _ in range(REFERENCE_BATCHES)]
    return {group: np.mean([one[group] for one in found], axis=0) for group in GROUPS}


@remembered
def _batch_norms(config, model) -> Callable:
    @jax.jit
    def norms(params, batch: Batch):
        weights = batch.mask / jnp.maximum(jnp.sum(batch.mask), 1).astype(jnp.float32)
        gradient = jax.grad(lambda p: training.likelihood(model, p, batch, weights)[0])(params)
        return transforms.group_norms(gradient, GROUPS)

    return norms


def _by_layer(rows, metric: str, seed: int, **wanted) -> dict[str, tuple[float, ...]]:
    own = [
        r
        for r in rows
        if r["metric"] == metric
        and r["seed"] == seed
        and all(r.get(k) == v for k, v in wanted.items())
    ]
    return {
        group: tuple(
            r["value"]
            for r in sorted((r for r in own if r["site"] == group), key=lambda r: r["layer"])
        )
        for group in GROUPS
    }


def traced(rows: Sequence[Row], seed: int) -> dict[str, tuple[float, ...]]:
    """The profile that restricts a seed's training: `{group: L numbers}`, mean of r of updated and
    of new facts.
    """
    return _by_layer(rows, "relative_gradient_norm", seed, kind="traced")


def batch_norms(rows: Sequence[Row], seed: int) -> dict[str, tuple[float, ...]]:
    """The reference of a seed's running profile."""
    return _by_layer(rows, "batch_gradient_norm", seed)
