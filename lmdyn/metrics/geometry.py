"""Geometry of representations.

Godey et al. 2024, arXiv 2404.07647; docs/methods.md#anisotropy.
"""

import dataclasses
from typing import Any

import numpy as np

from lmdyn import records
from lmdyn.metrics import base
from lmdyn.models.ops import unit
from lmdyn.records import Quantity

ANISOTROPY = Quantity(
    "anisotropy",
    "Anisotropy",
    "cosine",
    caption=(
        "Mean cosine similarity between the representations of all pairs of tokens, by depth: after"
        " so many blocks (0 is the embedding). 0 means directions spread evenly, 1 that all point"
        " the same way. After the last norm: what the head reads. Godey et al. 2024."
    ),
    axis="depth",
    rank=1,
)


@dataclasses.dataclass(frozen=True)
class Anisotropy:
    """Mean cosine similarity over all pairs of token representations. Made by `anisotropy`.

    Attributes:
      residual: `[L + 1]`, the residual stream after 0 to L blocks.
      final: after the last norm, what the head reads.
    """

    residual: np.ndarray
    final: float

    def rows(self) -> list[dict[str, Any]]:
        """`anisotropy` after each number of blocks, and after the last norm."""
        depths = [
            records.row("anisotropy", a, "cosine", "residual", layer)
            for layer, a in enumerate(self.residual)
        ]
        return [*depths, records.row("anisotropy", self.final, "cosine", "final")]


def mean_cosine(sum_of_units: np.ndarray, count: float) -> np.ndarray:
    """Mean cosine over all pairs of n unit vectors: `(|sum u|^2 - n) / (n^2 - n)`.

    It takes their sum alone, so it costs O(n D) and not O(n^2 D).

    Args:
      sum_of_units: `[..., D]`.
      count: n, at least 2; else NaN.

    >>> float(mean_cosine([1.0, 1.0], 2))  # two orthogonal vectors
    0.0
    """
    square = np.sum(np.asarray(sum_of_units, np.float64) ** 2, -1)
    return (
        (square - count) / (count * count - count) if count > 1 else np.full(square.shape, np.nan)
    )


def anisotropy() -> base.Metric:
    """Anisotropy at every depth, in O(n D); reads sites `residual` and `final`.

    >>> from lmdyn import data, metrics, models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> batches = data.windows(np.arange(9), length=4, batch=2)
    >>> found = metrics.measure(metrics.anisotropy(), model, models.init(model), batches)
    >>> (
    ...     found.residual.shape,
    ...     -1 <= found.final <= 1,
    ... )  # after 0, 1 and 2 blocks, and after the last norm
    ((3,), True)
    """

    def reduce(x, mask):
        return base.token_sum(unit(x), mask)

    def finish(sums, count, params):
        return Anisotropy(
            mean_cosine(sums["residual"], count), float(mean_cosine(sums["final"], count))
        )

    return base.sums({"residual": reduce, "final": reduce}, finish, ANISOTROPY)
