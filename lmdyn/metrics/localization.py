"""Which layers kinds of knowledge light up, from probes and a text to rows.

The whole measurement of Fernandez et al. 2024, arXiv 2411.04448.

Probes are grouped by kind. Each kind has a relative profile, and each pair of kinds a test
of whether they are in different places.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lmdyn import data, records
from lmdyn.data import Probe, ProbeBatch
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError
from lmdyn.metrics.gradients import NORM_UNIT, LayerGradients, layer_gradients
from lmdyn.metrics.relative import (
    ProfileDifference,
    RelativeGradients,
    compare_profiles,
    relative_gradients,
)
from lmdyn.models.modules import LanguageModel
from lmdyn.records import Quantity
from lmdyn.types import Params

QUANTITIES = (
    Quantity(
        "gradient_norm",
        "Gradient norm",
        NORM_UNIT,
        caption=(
            "Norm of the gradient of a sequence's own loss (mean nll over its span, in nats) with"
            " respect to a layer's weights; mean over sequences. Large layers have large norms:"
            " compare kinds within a layer, not layers."
        ),
        rank=-1,
    ),
    Quantity(
        "relative_gradient_norm",
        "Relative gradient norm",
        "ratio",
        caption=(
            "Mean gradient norm of the probes over that of random spans of the text, by layer:"
            " above 1, a layer responds to the probes more than to text. Fernandez et al. 2024."
        ),
        fields={"low": "Lower end of the interval", "high": "Upper end of the interval"},
    ),
    Quantity(
        "profile_difference",
        "Difference of profiles",
        "log share",
        caption="How far two kinds' profiles of relative gradient norms differ.",
        fields={"p": "p"},
    ),
)
"""What `Localization.rows` holds, in words."""

UNKNOWN = "all"
"""What probes without a kind are called."""


def by_kind(probes: Iterable[Probe], limit: int | None = None) -> dict[str, tuple[Probe, ...]]:
    """Probes by their kind, in the order of their first appearance.

    Args:
      probes: of any kinds.
      limit: at most this many per kind, spread evenly.

    Raises:
      InputError: no probes, or a kind with fewer than two, of which no interval can be made.

    >>> {
    ...     kind: len(found)
    ...     for kind, found in by_kind([data.Probe("a b", 2, 3, "new")] * 5, limit=3).items()
    ... }
    {'new': 3}
    """
    found: dict[str, list[Probe]] = {}
    for probe in probes:
        found.setdefault(probe.kind or UNKNOWN, []).append(probe)
    if not found:
        raise InputError("there are no probes; give at least two of a kind")
    for kind, own in found.items():
        if min(len(own), limit or len(own)) < 2:
            raise InputError(
                f"{min(len(own), limit or len(own))} probe of kind {kind}; an interval over"
                " sequences needs at least 2"
            )
    picked = lambda own: np.unique(
        np.linspace(0, len(own) - 1, min(limit or len(own), len(own))).astype(int)
    )
    return {kind: tuple(own[i] for i in picked(own)) for kind, own in found.items()}


class Sequences(NamedTuple):
    """What a localization measures. Made by `sequences`."""

    probes: dict[str, ProbeBatch]
    """by kind, all of one length T"""
    random: ProbeBatch
    """random spans of a text, likewise"""


def sequences(
    kinds: Mapping[str, Sequence[Probe]],
    text: str | Sequence[str],
    tokenizer: Tokenizer,
    spans: int,
    *,
    length: int | None = None,
    tokens: int | None = None,
    seed: int = 0,
) -> Sequences:
    """Probes as token ids, by kind, and random spans of a text.

    The spans are like all the probes in length and place.

    Args:
      kinds: from `by_kind`.
      text: a text reference, or a sequence of str.
      tokenizer: the model's.
      spans: how many.
      length: T, see `lmdyn.data.encode_probes`.
      tokens: how much of the text is used; all of it if None.
      seed: of the places.

    Raises:
      InputError: a target that is cut off, a text shorter than the longest probe.

    >>> kinds = {"new": [data.Probe("one two", 4, 7)], "updated": [data.Probe("a bc", 2, 4)]}
    >>> encoded, random = sequences(
    ...     kinds, ["some other text"], data.tokenizers.byte_tokenizer(), spans=5
    ... )
    >>> encoded["new"].inputs.shape, random.inputs.shape  # all of one length
    ((1, 6), (5, 6))
    """
    every = data.encode_probes(
        [probe for own in kinds.values() for probe in own], tokenizer, length
    )
    ends = np.cumsum([len(own) for own in kinds.values()])[:-1]
    cut = [np.split(array, ends) for array in every]
    encoded = {kind: ProbeBatch(*(part[i] for part in cut)) for i, kind in enumerate(kinds)}
    stream = data.join(data.tokenize(text, tokenizer, tokens), tokenizer.end_of_text)[
        : None if tokens is None else tokens + 1
    ]
    random = data.random_spans(stream, every, spans, seed, tokenizer.first_token)
    return Sequences(encoded, random)


def norms_of(
    model: LanguageModel,
    params: Params,
    sets: Mapping[str, ProbeBatch],
    *,
    groups: Iterable[str] = ("attention", "mlp"),
    batch: int = 16,
    progress: bool = False,
) -> dict[str, LayerGradients]:
    """`layer_gradients` of several sets of sequences of one length T, in one compiled program.

    Args:
      model: the model, as `lmdyn.load` returns it.
      params: the model's parameters.
      sets: `{name: sequences}`, all of T tokens.
      groups: names of `lmdyn.params.GROUPS`, or selectors.
      batch: sequences of one pass, at most.
      progress: show a bar on standard error.

    Raises:
      InputError: as `layer_gradients`.

    >>> from lmdyn import models
    >>> config = models.ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> kinds = {"new": [data.Probe("one two", 4, 7)], "updated": [data.Probe("a bc", 2, 4)]}
    >>> encoded, random = sequences(
    ...     kinds, ["some other text"], data.tokenizers.byte_tokenizer(), spans=5
    ... )
    >>> found = norms_of(model, models.init(model), {**encoded, "random": random})
    >>> found["new"].norms["mlp"].shape, found["random"].norms["mlp"].shape  # [L, sequences]
    ((2, 1), (2, 5))
    """
    joined = ProbeBatch(*(np.concatenate(parts) for parts in zip(*sets.values(), strict=True)))
    found = layer_gradients(model, params, joined, groups=groups, batch=batch, progress=progress)
    ends = np.cumsum([len(one.inputs) for one in sets.values()])
    return {
        name: found.of(slice(end - len(one.inputs), end))
        for (name, one), end in zip(sets.items(), ends, strict=True)
    }


@dataclasses.dataclass(frozen=True)
class Localization:
    """Where each kind of knowledge is localized. Made by `locate`.

    Attributes:
      norms: `{kind: LayerGradients}`, and those of the random spans as `reference`.
      reference: of the random spans.
      relative: `{kind: RelativeGradients}`.
      differences: `{(kind, kind): ProfileDifference}`, of each two kinds.
    """

    norms: Mapping[str, LayerGradients]
    reference: LayerGradients
    relative: Mapping[str, RelativeGradients]
    differences: Mapping[tuple[str, str], ProfileDifference]

    def rows(self) -> list[dict[str, Any]]:
        """`gradient_norm`, `relative_gradient_norm` and `profile_difference`.

        The first has `set` (probe or reference) and `kind`, the second `kind`, the third `kinds`:
        its size with `p`, and by group and layer.
        """
        found = [
            {**row, "set": "probe", "kind": kind}
            for kind, norms in self.norms.items()
            for row in norms.rows()
        ]
        found += [{**row, "set": "reference", "kind": None} for row in self.reference.rows()]
        found += [
            {**row, "kind": kind} for kind, ratio in self.relative.items() for row in ratio.rows()
        ]
        for kinds, difference in self.differences.items():
            found.append(
                records.row(
                    "profile_difference",
                    difference.size,
                    "log share",
                    p=difference.p,
                    kinds=list(kinds),
                )
            )
            found += [
                records.row(
                    "profile_difference", value, "log share", group, layer, kinds=list(kinds)
                )
                for group, values in difference.difference.items()
                for layer, value in zip(
                    self.reference.layers[group] or (None,), np.atleast_1d(values), strict=True
                )
            ]
        return found


def locate(
    model: LanguageModel,
    params: Params,
    measured: Sequences,
    *,
    groups: Iterable[str] = ("attention", "mlp"),
    batch: int = 16,
    resamples: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> Localization:
    """Gradient norms of every probe and random span, relative profiles, and tests between kinds.

    Args:
      model: the model, as `lmdyn.load` returns it.
      params: the model's parameters.
      measured: from `sequences`.
      groups: see `layer_gradients`.
      batch: see `layer_gradients`.
      resamples: of the bootstrap and the permutations.
      seed: of bootstrap and permutations.
      progress: show a bar on standard error.

    Raises:
      InputError: as `layer_gradients`, `relative_gradients` and `compare_profiles`.

    >>> from lmdyn import models
    >>> config = models.ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> kinds = {"new": [data.Probe("one two", 4, 7), data.Probe("a bc", 2, 4)]}
    >>> measured = sequences(
    ...     kinds, ["some other text"], data.tokenizers.byte_tokenizer(), spans=5
    ... )
    >>> found = locate(model, models.init(model), measured, resamples=10)
    >>> found.relative["new"]["mlp"].shape, len(found.differences)
    ((2,), 0)
    """
    probes, random = measured
    sets: dict[Any, ProbeBatch] = {("probe", kind): one for kind, one in probes.items()} | {
        "reference": random
    }
    found = norms_of(model, params, sets, groups=groups, batch=batch, progress=progress)
    reference = found.pop("reference")
    norms = {kind: one for (_, kind), one in found.items()}
    relative = {
        kind: relative_gradients(one, reference, resamples=resamples, seed=seed)
        for kind, one in norms.items()
    }
    pairs = itertools.combinations(norms, 2)
    differences = {
        pair: compare_profiles(*(norms[kind] for kind in pair), permutations=resamples, seed=seed)
        for pair in pairs
    }
    return Localization(norms, reference, relative, differences)
