"""Where the gradient of each kind of knowledge is large: a part of the study.

Shape letters: L layers, P probes, B rows of a batch, T tokens.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn import data, metrics, records, training, transforms
from lmdyn.data import Batch, Probe, ProbeBatch
from lmdyn.metrics import LayerGradients
from lmdyn.metrics.gradients import NORM_UNIT
from lmdyn.metrics.localization import norms_of
from lmdyn.studies.claims import where
from lmdyn.studies.gradient_localization.config import GradientLocalization
from lmdyn.studies.gradient_localization.questions import LEARNED, Subject, load_subject
from lmdyn.studies.workers import remembered
from lmdyn.training.prepare import packing
from lmdyn.transforms.localization import PROFILE_GROUPS
from lmdyn.types import Rows

REFERENCE_BATCHES = 16


def profile(config: GradientLocalization, seed: int) -> list[dict]:
    """Where the gradient of each kind of knowledge is large.

    Rows: `gradient_norm` by `set` (updated, new, unchanged, random), `relative_gradient_norm` by
    `kind`, and as the mean of updated and new (`kind` traced, which restricts training);
    `profile_difference` of updated and new: size, and `p` of the test over entities;
    `batch_gradient_norm` of whole batches of pretraining text, the reference of a running profile.
    """
    subject = load_subject(config, seed)
    sets = _probe_sets(config, subject, seed)
    norms = norms_of(subject.model, subject.params, sets, groups=PROFILE_GROUPS, batch=32)
    make = functools.partial(
        records.row, model=str(subject.reference), step=subject.reference.step, seed=seed
    )
    rows = [make(**row, set=name) for name, found in norms.items() for row in found.rows()]
    # relative to random spans, by kind, and the mean that restricts training
    ratios = {
        kind: metrics.relative_gradients(norms[kind], norms["random"], seed=seed)
        for kind in subject.questions.traced
    }
    rows += [make(**row, kind=kind) for kind, ratio in ratios.items() for row in ratio.rows()]
    by_layer = functools.partial(_by_layer_rows, make)
    traced = {
        group: np.mean([ratios[kind][group] for kind in LEARNED], axis=0)
        for group in PROFILE_GROUPS
    }
    rows += by_layer("relative_gradient_norm", "ratio", traced, kind="traced")
    # whether updated and new facts differ, tested over entities
    probes = subject.questions.traced
    common = shared_attributes(probes)
    first, second = (by_entity(norms[kind], probes[kind], common) for kind in LEARNED)
    found = metrics.compare_profiles(first, second, seed=seed)
    rows.append(
        make(
            "profile_difference",
            found.size,
            "log share",
            p=found.p,
            entities=[len(first.losses), len(second.losses)],
            matched=common is not None,
        )
    )
    rows += by_layer("profile_difference", "log share", found.difference)
    batches = _reference_norms(config, subject, seed)
    return rows + by_layer("batch_gradient_norm", NORM_UNIT, batches, set="random")


def _by_layer_rows(make: Callable, metric: str, unit: str, values: Mapping, **tags) -> list[dict]:
    """A row for each layer of each group; `values`: `{group: [L]}`."""
    return [
        make(metric, value, unit, site=group, layer=layer, **tags)
        for group, own in values.items()
        for layer, value in enumerate(own)
    ]


def _probe_sets(config, subject: Subject, seed: int) -> dict[str, ProbeBatch]:
    """The traced probes by kind, and random spans of pretraining text of the same lengths."""
    probes = subject.questions.traced
    every = data.encode_probes([p for own in probes.values() for p in own], subject.tokenizer)
    ends = np.cumsum([len(own) for own in probes.values()])
    encoded = {
        kind: ProbeBatch(*(part[end - len(probes[kind]) : end] for part in every))
        for kind, end in zip(probes, ends, strict=True)
    }
    like = ProbeBatch(
        *(np.concatenate(parts) for parts in zip(*(encoded[kind] for kind in LEARNED), strict=True))
    )
    need = max(config.spans, 50) * int(like.mask.sum(1).max())
    tokens = data.tokenize(config.reference, subject.tokenizer, need)
    text = data.join(tokens, subject.tokenizer.end_of_text)
    random = data.random_spans(text, like, config.spans, seed, subject.tokenizer.first_token)
    return encoded | {"random": random}


def shared_attributes(probes: Mapping[str, Sequence[Probe]]) -> set | None:
    """The attributes that all of the learned kinds are asked for.

    Others would tell kinds apart by what is asked. None, which stands for all, where two
    entities of each kind are not asked for a common one (published files of different make).
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
    """Geometric means of the norms over the probes of each entity.

    Probes of one entity are not independent. `attributes`: only probes of some; None takes all.

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


def _reference_norms(config, subject: Subject, seed: int) -> dict[str, np.ndarray]:
    """`{group: [L]}`: mean norm of the gradient of whole batches of pretraining text.

    The batches have the continual pretraining's shape.
    """
    stored = data.store(data.documents(config.reference), subject.tokenizer, cache=config.cache)
    stream = iter(data.mix([(stored, 1.0)], packing(config.data, subject.tokenizer), seed=seed))
    norms = _batch_norms(config, subject.model)
    found = [jax.device_get(norms(subject.params, next(stream))) for _ in range(REFERENCE_BATCHES)]
    return {group: np.mean([one[group] for one in found], axis=0) for group in PROFILE_GROUPS}


@remembered
def _batch_norms(config, model) -> Callable:
    @jax.jit
    def norms(params, batch: Batch):
        weights = batch.mask / jnp.maximum(jnp.sum(batch.mask), 1).astype(jnp.float32)
        gradient = jax.grad(lambda p: training.likelihood(model, p, batch, weights)[0])(params)
        return transforms.group_norms(gradient, PROFILE_GROUPS)

    return norms


def _by_group(rows: Rows, metric: str, **wanted) -> dict[str, tuple[float, ...]]:
    """`{group: L numbers}` of a metric's rows."""
    return {
        group: tuple(
            r["value"]
            for r in sorted(where(rows, metric, site=group, **wanted), key=lambda r: r["layer"])
        )
        for group in PROFILE_GROUPS
    }


def training_profile(rows: Rows, seed: int) -> dict[str, tuple[float, ...]]:
    """The profile that restricts a seed's training: `{group: L numbers}`.

    The mean of r of updated and of new facts.
    """
    return _by_group(rows, "relative_gradient_norm", seed=seed, kind="traced")


def reference_profile(rows: Rows, seed: int) -> dict[str, tuple[float, ...]]:
    """The reference of a seed's running profile: `{group: L numbers}`, nats."""
    return _by_group(rows, "batch_gradient_norm", seed=seed)
