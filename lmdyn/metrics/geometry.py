"""Geometry of representations and of the head (Godey et al. 2024, arXiv 2404.07647; METHODS section 4)."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from lmdyn.metrics import base
from lmdyn.metrics.entropies import entropy
from lmdyn.models import heads
from lmdyn.models.ops import unit


@dataclasses.dataclass(frozen=True)
class Anisotropy:
    """Mean cosine similarity over all pairs of token representations.

    Attributes:
      residual: `[L + 1]`, the residual stream after 0 to L blocks.
      final: after the last norm, what the head reads.
    """

    residual: np.ndarray
    final: float

    def rows(self):
        depths = [base.row("anisotropy", a, "cosine", "residual", layer) for layer, a in enumerate(self.residual)]
        return [*depths, base.row("anisotropy", self.final, "cosine", "final")]


def mean_cosine(sum_of_units, count: float) -> np.ndarray:
    """`(|sum u|^2 - n) / (n^2 - n)`: the mean cosine over all pairs of n unit vectors, from their sum alone.

    Args:
      sum_of_units: `[..., D]`.
      count: n, at least 2; else NaN.

    >>> float(mean_cosine([1.0, 1.0], 2))     # two orthogonal vectors
    0.0
    """
    square = np.sum(np.asarray(sum_of_units, np.float64) ** 2, -1)
    return (square - count) / (count * count - count) if count > 1 else np.full(square.shape, np.nan)


def anisotropy() -> base.Metric:
    """Anisotropy at every depth, in O(n D); reads sites `residual` and `final`."""

    def reduce(x, mask):
        return jnp.einsum("bt,btd->d", mask.astype(jnp.float32), unit(x))

    def finish(sums, count, params):
        return Anisotropy(mean_cosine(sums["residual"], count), float(mean_cosine(sums["final"], count)))

    return base.sums({"residual": reduce, "final": reduce}, finish)


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Singular values of the output head.

    Attributes:
      values: `[R]` float64, largest first, R = min(D, V).
    """

    values: np.ndarray

    @property
    def singular_entropy(self) -> float:
        """`KL(q || uniform) = sum q log(q R)` in nats, `q = s / sum s`; 0 is flat (Godey et al. 2024, section 5.2)."""
        return float(np.log(len(self.values)) - entropy(self.values))

    @property
    def effective_rank(self) -> float:
        """`exp(entropy of q)`, between 1 and R."""
        return float(np.exp(entropy(self.values)))

    def rows(self):
        return [base.row("singular_entropy", self.singular_entropy, "nats", "head", effective_rank=self.effective_rank)]


def singular_values(matrix) -> np.ndarray:
    """Singular values, largest first, in float64, by the eigenvalues of the smaller Gram matrix.

    Squaring costs half the digits of the *smallest* values: one below 1e-8 of the largest is noise.

    Args:
      matrix: `[M, N]`.

    >>> singular_values([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]]).tolist()
    [4.0, 3.0]
    """
    matrix = np.asarray(matrix)
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    gram = np.zeros((tall.shape[1], tall.shape[1]))
    for start in range(0, tall.shape[0], 4096):  # a float64 copy of the whole would double the memory
        rows = np.asarray(tall[start : start + 4096], np.float64)
        gram += rows.T @ rows
    return np.sqrt(np.clip(np.linalg.eigvalsh(gram)[::-1], 0.0, None))


def singular_entropy() -> base.Metric:
    """Singular entropy and effective rank of the output head; reads parameters only, so it costs no forward pass."""
    return base.sums({}, lambda sums, count, params: Spectrum(singular_values(heads.matrix(params)[0])))
