"""Knowledge entropy and its controls; natural logarithms.

Kim et al. 2024, arXiv 2410.01380; docs/methods.md#knowledge-entropy.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn import records
from lmdyn.metrics import base
from lmdyn.records import Quantity
from lmdyn.types import ArrayLike

KNOWLEDGE = Quantity(
    "knowledge_entropy",
    "Knowledge entropy",
    "nats",
    "mlp",
    "How evenly each layer's MLP spreads its coefficients over its memory vectors: the entropy of"
    " their mean sizes over the text, in nats. The ceiling is log F, reached when all F"
    " coefficients are equally large; a lower value means that fewer vectors do the work. The whole"
    " model's is the sum over layers. Kim et al. 2024.",
    fields={"normalized": "Share of the ceiling"},
    rank=1,
)
ATTENTION = Quantity(
    "attention_entropy",
    "Attention entropy",
    "nats",
    "attention",
    "Mean entropy of the attention distributions over heads and queries, in nats: low means that a"
    " token attends to few others. Kim et al. 2024.",
)
PREDICTION = Quantity(
    "prediction_entropy",
    "Prediction entropy",
    "nats",
    "head",
    "Mean entropy of the next-token distribution, in nats: low means that the model is sure."
    " Kim et al. 2024.",
)


def entropy(weights: ArrayLike) -> np.ndarray:
    """Entropy in nats of non-negative weights, normalised over the last axis, in float64.

    >>> [round(float(h), 4) for h in entropy([[1, 1, 1, 1], [0, 3, 0, 0]])]  # log 4, and 0
    [1.3863, 0.0]
    """
    weights = np.asarray(weights, np.float64)
    share = weights / weights.sum(-1, keepdims=True)
    return 0.0 - np.sum(share * np.log(np.where(share > 0, share, 1.0)), -1)


@dataclasses.dataclass(frozen=True)
class CoefficientEntropies:
    """How many memory vectors the MLPs draw on.

    Attributes:
      coefficients: `[L, F]` float64, `C_i = mean |c_i|` over tokens.
      tokens: how many tokens the means are over.

    >>> found = CoefficientEntropies(
    ...     np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 3.0, 0.0, 0.0]]), tokens=7.0
    ... )
    >>> (
    ...     found.per_layer.round(4).tolist(),
    ...     found.normalized.round(4).tolist(),
    ... )  # all four alike, and one alone
    ([1.3863, 0.0], [1.0, 0.0])
    """

    coefficients: np.ndarray
    tokens: float

    @property
    def per_layer(self) -> np.ndarray:
        """`[L]` nats: `H = -sum p log p` with `p = C / sum C`; between 0 and log F."""
        return entropy(self.coefficients)

    @property
    def total(self) -> float:
        """The model's knowledge entropy: the sum over layers, in nats."""
        return float(self.per_layer.sum())

    @property
    def normalized(self) -> np.ndarray:
        """`[L]`, `H / log F`, so that widths compare."""
        return self.per_layer / np.log(self.coefficients.shape[-1])

    def rows(self) -> list[dict[str, Any]]:
        """`knowledge_entropy` of each MLP and of the model; `normalized`: share of the ceiling."""
        share = self.normalized
        layers = [
            records.row("knowledge_entropy", h, "nats", "mlp", layer, normalized=share[layer])
            for layer, h in enumerate(self.per_layer)
        ]
        return [
            *layers,
            records.row("knowledge_entropy", self.total, "nats", "mlp", normalized=share.mean()),
        ]


def knowledge_entropy() -> base.Metric:
    """Knowledge entropy of the MLPs; reads site `mlp.coefficients` and needs no output head.

    Row i of `down` is a memory vector and `c_i = act(x gate)_i (x up)_i` (or `act(x up + b)_i`) its
    coefficient. Mean of `|c_i|` over all counted tokens first, then normalised, then entropy (Kim
    et al. 2024, section 3.1). The result keeps the coefficients for `lmdyn.transforms`.

    >>> import lmdyn.models as models, numpy as np
    >>> from lmdyn.metrics import measure
    >>> from lmdyn.data import Batch
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> ones = np.ones([1, 5], np.int32)
    >>> result = measure(
    ...     knowledge_entropy(), model, models.init(model), [Batch(ones, ones, ones > 0)]
    ... )
    >>> result.coefficients.shape, bool((result.per_layer < np.log(10)).all())
    ((2, 10), True)
    """

    def reduce(coefficients, mask):
        return base.token_sum(jnp.abs(coefficients), mask)

    def finish(sums, count, params):
        return CoefficientEntropies(sums["mlp.coefficients"] / count, count)

    return base.sums({"mlp.coefficients": reduce}, finish, KNOWLEDGE)


@dataclasses.dataclass(frozen=True)
class AttentionEntropy:
    """Entropy of the attention distribution. Made by `attention_entropy`.

    Attributes:
      per_layer: `[L]` nats, mean over heads and counted queries.
    """

    per_layer: np.ndarray

    @property
    def mean(self) -> float:
        """Mean over layers, in nats."""
        return float(self.per_layer.mean())

    def rows(self) -> list[dict[str, Any]]:
        """`attention_entropy` of each layer, and their mean."""
        layers = [
            records.row("attention_entropy", h, "nats", "attention", layer)
            for layer, h in enumerate(self.per_layer)
        ]
        return [*layers, records.row("attention_entropy", self.mean, "nats", "attention")]


def attention_entropy() -> base.Metric:
    """Mean entropy of the attention distribution, over heads and queries, per layer.

    Kim et al. 2024, appendix; reads site `attention.probabilities`.

    >>> from lmdyn import data, metrics, models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> batches = data.windows(np.arange(9), length=4, batch=2)
    >>> found = metrics.measure(metrics.attention_entropy(), model, models.init(model), batches)
    >>> (
    ...     found.per_layer.shape,
    ...     bool((found.per_layer <= np.log(4)).all()),
    ... )  # a token sees 4 tokens at most
    ((2,), True)
    """

    def reduce(probabilities, mask):  # [B, G, R, q, S], [B, q]
        heads = probabilities.shape[1] * probabilities.shape[2]
        entropies = jax.scipy.special.entr(probabilities).sum(-1)
        return jnp.sum(jnp.where(mask[:, None, None], entropies, 0.0)) / heads

    def finish(sums, count, params):
        return AttentionEntropy(sums["attention.probabilities"] / count)

    return base.sums({"attention.probabilities": reduce}, finish, ATTENTION)


@dataclasses.dataclass(frozen=True)
class PredictionEntropy:
    """Entropy of the next-token distribution. Made by `prediction_entropy`.

    Attributes:
      mean: over counted tokens, in nats.
    """

    mean: float

    def rows(self) -> list[dict[str, Any]]:
        """One row, `prediction_entropy`."""
        return [records.row("prediction_entropy", self.mean, "nats", "head")]


def prediction_entropy() -> base.Metric:
    """Mean entropy of the next-token distribution; reads site `log_probabilities`.

    Kim et al. 2024, appendix.

    >>> from lmdyn import data, metrics, models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> batches = data.windows(np.arange(9), length=4, batch=2)
    >>> found = metrics.measure(
    ...     metrics.prediction_entropy(), model, models.init(model), batches
    ... )
    >>> bool(0 < found.mean <= np.log(11))
    True
    """

    def reduce(log_probabilities, mask):  # [n, V], [n]
        entropies = -jnp.sum(jnp.exp(log_probabilities) * log_probabilities, -1)
        return jnp.sum(jnp.where(mask, entropies, 0.0))

    def finish(sums, count, params):
        return PredictionEntropy(float(sums["log_probabilities"]) / count)

    return base.sums({"log_probabilities": reduce}, finish, PREDICTION)
