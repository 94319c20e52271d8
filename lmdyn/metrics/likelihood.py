"""Likelihood of text: nll, perplexity, bits per byte, span log-probability.

Definitions: docs/methods.md#likelihood.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from lmdyn import records
from lmdyn.metrics import base
from lmdyn.models.loss import token_nll
from lmdyn.models.modules import LanguageModel
from lmdyn.records import Quantity
from lmdyn.types import Array, Params

NLL = Quantity(
    "nll",
    "Negative log-likelihood",
    "nats",
    caption=(
        "Mean negative log-likelihood of the text's tokens, in nats per token: lower is better."
    ),
    fields={"perplexity": "Perplexity", "bits_per_byte": "Bits per byte"},
)


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Mean negative log-likelihood of the counted tokens.

    Attributes:
      nll: nats per token.
      tokens: how many tokens were predicted.

    >>> Likelihood(nll=0.0, tokens=6).rows()[0]["perplexity"]
    1.0
    """

    nll: float
    tokens: float

    @property
    def perplexity(self) -> float:
        """`exp(nll)`, at most `exp(700)`, about the largest number there is."""
        return math.exp(min(self.nll, 700.0))

    def bits_per_byte(self, text_bytes: int) -> float:
        """Summed nll in bits, a byte of the predicted text's UTF-8.

        >>> Likelihood(nll=math.log(2), tokens=6).bits_per_byte(12)
        0.5
        """
        return self.nll * self.tokens / math.log(2) / text_bytes

    def rows(self) -> list[dict[str, Any]]:
        """One row, `nll`, with the `perplexity`."""
        return [records.row("nll", self.nll, "nats", perplexity=self.perplexity)]


def likelihood() -> base.Metric:
    """Mean nll of the targets, in nats; reads site `nll`.

    >>> from lmdyn import data, metrics, models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> batches = data.windows(jax.device_get(jnp.arange(9)), length=4, batch=2)
    >>> found = metrics.measure(metrics.likelihood(), model, models.init(model), batches)
    >>> found.tokens, math.isclose(found.perplexity, math.exp(found.nll))
    (8.0, True)
    """

    def finish(sums, count, params):
        return Likelihood(float(sums["nll"]) / count, count)

    return base.sums({"nll": lambda nll, mask: jnp.sum(jnp.where(mask, nll, 0.0))}, finish, NLL)


def span_log_probability(
    model: LanguageModel, params: Params, inputs: Array, targets: Array, span: Array
) -> jax.Array:
    """Mean `log p` over the targets of a marked span, given all before it.

    Chang et al. 2024, `l(q)`.

    Args:
      model: the model, as `lmdyn.load` returns it.
      params: the model's parameters.
      inputs: `[B, T]` integers.
      targets: `[B, T]` integers.
      span: `[B, T]` booleans over targets.

    Returns:
      `[B]` float32 nats; NaN for a sequence whose span is empty.

    >>> from lmdyn import models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> params = models.init(model)
    >>> ids, span = (
    ...     jnp.arange(10).reshape(2, 5),
    ...     jnp.array([[False, False, True, True, True], [False, True, False, False, False]]),
    ... )
    >>> span_log_probability(model, params, ids, ids + 1, span).shape
    (2,)
    """
    nll = token_nll(model, params, inputs, targets)
    return -jnp.sum(jnp.where(span, nll, 0.0), 1) / jnp.sum(span, 1)
