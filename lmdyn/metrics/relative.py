"""Relative gradient norms: where a kind of knowledge is, and whether two kinds differ.

Compared with text at large (Fernandez et al. 2024, arXiv 2411.04448).

Shape letters: P probes, l layers of a group, N resamples or permutations, G groups and their
layers, one below the other.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from lmdyn import records
from lmdyn.errors import InputError
from lmdyn.metrics.gradients import LayerGradients


@dataclasses.dataclass(frozen=True)
class RelativeGradients(Mapping):
    """`{group: r}`, and confidence intervals. Made by `relative_gradients`.

    `lmdyn.transforms.localize` takes it as it is.

    Attributes:
      ratio: `{group: [l] or []}` float64, `r = mean g(probe) / mean g(reference)`.
      low: the lower end of the interval, likewise.
      high: the upper end.
      layers: `{group: l layer indices, or None}`.
      level: of the interval.
      sequences: how many probe sequences, and how many reference sequences.
    """

    ratio: Mapping[str, np.ndarray]
    low: Mapping[str, np.ndarray]
    high: Mapping[str, np.ndarray]
    layers: Mapping[str, tuple[int, ...] | None]
    level: float
    sequences: tuple[int, int]

    def __getitem__(self, group: str) -> np.ndarray:
        return self.ratio[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ratio)

    def __len__(self) -> int:
        return len(self.ratio)

    def rows(self) -> list[dict[str, Any]]:
        """`relative_gradient_norm` of each group and layer; its interval as `low` and `high`."""
        more = {
            "level": self.level,
            "sequences": self.sequences[0],
            "reference_sequences": self.sequences[1],
        }
        numbers = lambda group: (
            np.atleast_1d(part[group]) for part in (self.ratio, self.low, self.high)
        )
        return [
            records.row(
                "relative_gradient_norm", r, "ratio", group, layer, low=low, high=high, **more
            )
            for group in self.ratio
            for layer, r, low, high in zip(
                self.layers[group] or (None,), *numbers(group), strict=True
            )
        ]


def relative_gradients(
    probe: LayerGradients,
    reference: LayerGradients,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> RelativeGradients:
    """Mean norm over probes by mean norm over references, for every group and layer.

    The interval is a percentile bootstrap over sequences (Efron 1979): probes and references are
    drawn anew, with replacement and apart from each other; all groups and layers of a draw see the
    same sequences.

    Args:
      probe: from `layer_gradients`.
      reference: of the same model and groups, usually of random spans of pretraining text.
      resamples: N draws.
      level: of the interval.
      seed: of the draws.

    Raises:
      InputError: models of different depth, different groups, fewer than 2 sequences, a norm that
        is not finite, a reference whose mean norm is 0, a level outside 0 to 1, fewer than 1
        resample.

    >>> norms = lambda *values: LayerGradients(
    ...     {"mlp": np.array([values])},
    ...     {"mlp": (0,)},
    ...     1,
    ...     np.ones(len(values)),
    ...     np.ones(len(values), int),
    ... )
    >>> found = relative_gradients(norms(3.0, 5.0, 4.0), norms(2.0, 2.0))
    >>> (
    ...     found["mlp"].tolist(),
    ...     bool(1.5 <= found.low["mlp"][0] < 2.0 < found.high["mlp"][0] <= 2.5),
    ... )
    ([2.0], True)
    """
    _check_alike(probe, reference, "probe", "reference")
    if not 0 < level < 1:
        raise InputError(f"level={level}; it must lie between 0 and 1, such as 0.95")
    if resamples < 1:
        raise InputError(
            f"resamples={resamples}; at least 1 is needed, and some 1,000 for an interval"
        )
    rng = np.random.default_rng(seed)
    upper, lower = _stacked(probe, "probe"), _stacked(reference, "reference")
    if not (lower.mean(1) > 0).all():
        raise InputError(
            f"the reference's mean norm is 0 in {_place(reference, lower.mean(1) > 0)}; a ratio"
            " needs gradients there"
        )
    # Resampled references may all be zero where some are; such a draw says nothing.
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = _means(upper, resamples, rng) / _means(lower, resamples, rng)
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    ratio, low, high = (
        _unstacked(values, probe) for values in (upper.mean(1) / lower.mean(1), low, high)
    )
    return RelativeGradients(
        ratio, low, high, probe.layers, level, (upper.shape[1], lower.shape[1])
    )


class ProfileDifference(NamedTuple):
    """How two gradient profiles differ. Made by `compare_profiles`."""

    difference: dict[str, np.ndarray]
    """`{group: [l] or []}`: how much more (above 0) of a sequence's gradient is there in the
    first kind than in the second: the difference of mean log shares, so log 2 is twice as much"""
    size: float
    """root mean square of the difference, over groups and layers"""
    p: float
    """the share of relabellings whose difference is at least as large; 1 / (N + 1) at least"""


def compare_profiles(
    first: LayerGradients, second: LayerGradients, *, permutations: int = 2000, seed: int = 0
) -> ProfileDifference:
    """Whether two kinds of knowledge are in different places: a permutation test over sequences.

    A sequence's profile is the log of its norms, less their mean: how its gradient is shared out,
    whatever its size. If kinds do not matter, any sequence may belong to either kind; so labels are
    drawn anew. (The reference of a relative profile would divide both kinds alike, and is not
    needed.)

    Args:
      first: from `layer_gradients`.
      second: of the same model and groups.
      permutations: N.
      seed: of the permutations.

    Raises:
      InputError: models of different depth, different groups, fewer than 2 sequences, norms that
        are not finite or are 0, fewer than 1 permutation.

    >>> norms = lambda low, high: LayerGradients(
    ...     {"mlp": np.array([low, high])}, {"mlp": (0, 1)}, 2, np.ones(5), np.ones(5, int)
    ... )
    >>> early = norms([2.0, 2.1, 4.0, 1.9, 2.0], [1.0, 1.0, 2.0, 1.0, 1.0])
    >>> late = norms([1.0, 1.0, 1.0, 0.5, 1.0], [2.0, 2.2, 2.1, 1.0, 1.9])
    >>> found = compare_profiles(early, late)
    >>> found.difference["mlp"].round(1).tolist(), found.p < 0.05
    ([0.7, -0.7], True)
    """
    _check_alike(first, second, "first", "second")
    if permutations < 1:
        raise InputError(
            f"permutations={permutations}; at least 1 is needed, and some 1,000 for a small p"
        )
    # Log shares: each sequence's log norms by group and layer, less their mean over these.
    shares = []
    for found, which in ((first, "first"), (second, "second")):
        norms = _stacked(found, which)
        if not (norms > 0).all():
            raise InputError(
                f"the {which}'s norms are 0 in {_place(found, np.all(norms > 0, axis=1))}; leave"
                " out that group, or the sequences without a gradient"
            )
        logs = np.log(norms)
        shares.append(logs - logs.mean(0))
    count, both = shares[0].shape[1], np.concatenate(shares, 1)
    rest = both.shape[1] - count

    def sizes(members):
        """Of differences `[n, G]`, for `[n, P]` booleans: which sequences are of the first kind."""
        difference = np.where(members, 1 / count, -1 / rest) @ both.T
        return difference, np.sqrt(np.mean(np.square(difference), -1))

    # How often sequences relabelled at random differ as much, a few million labels at a time.
    labels = np.arange(count + rest) < count
    (difference,), (size,) = sizes(labels[None])
    rng, step, at_least = np.random.default_rng(seed), max(1, 2**22 // len(labels)), 0
    for start in range(0, permutations, step):
        drawn = rng.permuted(np.tile(labels, (min(step, permutations - start), 1)), axis=1)
        at_least += int(
            np.sum(sizes(drawn)[1] >= size * (1 - 1e-12))
        )  # the labels themselves, drawn again, are as large
    return ProfileDifference(
        _unstacked(difference, first), float(size), (at_least + 1) / (permutations + 1)
    )


def _check_alike(first, second, name: str, other: str) -> None:
    if first.depth != second.depth:
        raise InputError(
            f"the {name}'s norms are of {first.depth} layers and the {other}'s of {second.depth};"
            " measure both on one model"
        )
    if first.layers != second.layers:
        raise InputError(
            f"the {name}'s groups are {', '.join(first.layers)} and the {other}'s"
            f" {', '.join(second.layers)}; measure the same groups"
        )


def _stacked(found: LayerGradients, which: str) -> np.ndarray:
    """Norms of all groups and layers, one below the other: `[G, P]`."""
    norms = np.concatenate([np.atleast_2d(norms) for norms in found.norms.values()])
    if norms.shape[1] < 2:
        raise InputError(
            f"the {which} has {norms.shape[1]} sequence; an interval over sequences needs at"
            " least 2"
        )
    if not np.isfinite(norms).all():
        raise InputError(
            f"the {which}'s norms are not finite in"
            f" {_place(found, np.all(np.isfinite(norms), axis=1))}; look for NaN or infinity in the"
            " model"
        )
    return norms


def _unstacked(values: np.ndarray, like: LayerGradients) -> dict[str, np.ndarray]:
    sizes = [1 if layers is None else len(layers) for layers in like.layers.values()]
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return {
        group: part if layers is not None else part[0]
        for (group, layers), part in zip(like.layers.items(), parts, strict=True)
    }


def _place(found: LayerGradients, fine: np.ndarray) -> str:
    """Where the first thing that is not fine stands."""
    places = [
        group if layer is None else f"{group} of layer {layer}"
        for group, layers in found.layers.items()
        for layer in layers or (None,)
    ]
    return places[int(np.flatnonzero(~fine)[0])]


def _means(norms: np.ndarray, resamples: int, rng) -> np.ndarray:
    """Means over resampled sequences, `[N, G]`.

    How often each is drawn, times the norms, in one product per block.
    """
    count = norms.shape[1]
    size = max(1, 2**22 // count)  # draws at once: 32 MB of counts
    drawn = [
        rng.multinomial(count, np.full(count, 1 / count), size=min(size, resamples - start))
        @ norms.T
        for start in range(0, resamples, size)
    ]
    return np.concatenate(drawn) / count
