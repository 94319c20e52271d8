"""What a training step minimises.

Any function `(model, params, batch, weights) -> (scalar, logged)` can take the place of the
likelihood (`lmdyn.training.likelihood`); a config names one by the function that makes it, see
`lmdyn.training.Objective`.

Shape letters: B rows, T tokens, L layers, F MLP width.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lmdyn import names
from lmdyn.data import Batch
from lmdyn.errors import InputError
from lmdyn.metrics.base import token_sum
from lmdyn.models import LanguageModel, loss
from lmdyn.training.config import Objective


def entropy_bonus(weight: float) -> Callable:
    """The likelihood, less `weight` times the knowledge entropy of the batch.

    A bonus for drawing on many memory vectors.

    The entropy is that of `lmdyn.metrics.knowledge_entropy` over the batch's counted tokens, as a
    share of its ceiling: the mean over layers of `H / log F`, between 0 and 1. It is read from the
    same tap, so the step costs hardly more. The step's `loss` stays the mean nll;
    `knowledge_entropy_share` is logged beside it. In a batch that is run in parts, each part has
    its own entropy.

    Args:
      weight: nats that a share of 1 is worth. Kim et al. 2024 show that entropy decays; this asks
        what holding it up does.

    Raises:
      InputError: a weight that is not a finite number.

    >>> from lmdyn import models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> ids, ones = jnp.ones([1, 4], jnp.int32), jnp.ones([1, 4], bool)
    >>> total, logged = entropy_bonus(0.5)(
    ...     model, models.init(model), Batch(ids, ids, ones), ones / 4
    ... )
    >>> bool(jnp.isclose(total, logged["loss"] - 0.5 * logged["knowledge_entropy_share"]))
    True
    """
    if not math.isfinite(weight):
        raise InputError(f"weight={weight} of an entropy bonus; it must be a finite number")

    def sizes(coefficients, mask):
        return token_sum(jnp.abs(coefficients), mask)

    def objective(model: LanguageModel, params, batch: Batch, weights):
        taps = {"mlp.coefficients": sizes}
        nll, (_, out) = loss(
            model,
            params,
            batch.inputs,
            batch.targets,
            weights,
            documents=batch.documents,
            mask=batch.mask,
            taps=taps,
        )
        summed = out.tapped["mlp.coefficients"]  # [L, F]
        share = summed / jnp.maximum(summed.sum(-1, keepdims=True), jnp.finfo(jnp.float32).tiny)
        entropy = jnp.mean(jnp.sum(jax.scipy.special.entr(share), -1)) / math.log(summed.shape[-1])
        entropy = (
            entropy * weights.sum()
        )  # 1, or a part's share of the batch: parts then add up to a mean
        return nll - weight * entropy, {"loss": nll, "knowledge_entropy_share": entropy}

    return objective


OBJECTIVES = {"entropy_bonus": entropy_bonus}
"""Objectives by a short name; each entry makes one."""


def make(choice: Objective | None) -> Callable:
    """The objective that a config names, of `OBJECTIVES` or dotted; the likelihood for None.

    Raises:
      InputError: there is no such function, or it does not take these arguments.

    >>> (make(None).__name__, make(Objective("entropy_bonus", {"weight": 0.1})).__name__)
    ('likelihood', 'objective')
    """
    from lmdyn.training.train_step import likelihood

    if choice is None:
        return likelihood
    return names.make(choice.name, choice.arguments, OBJECTIVES, "objective")
