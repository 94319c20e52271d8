"""Starting points that are good to adapt from: gradients through online adaptation.

The gradient of the nll of a few chunks, each scored before it is learned from, with respect to the
parameters that the first of them met (Finn et al. 2017, arXiv 1703.03400; for dynamic evaluation of
language models). `full` differentiates through the updates. `first` takes every update as a
constant, so that the gradient is the sum of those that online adaptation makes anyway (Finn et al.
2017, section 5.2), at a third of the cost. Shape letters: K chunks, C predictions of a chunk.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lmdyn.errors import choose
from lmdyn.models import LanguageModel, loss
from lmdyn.online.streams import ChunkStream
from lmdyn.types import Params

ORDERS = ("first", "full")


class MetaGradient(NamedTuple):
    """The gradient through a sequence of updates. Made by `meta_gradient`.

    Attributes:
      nll: mean nll of the chunks, in nats.
      gradient: its gradient with respect to the starting parameters.
      after: the parameters after the last update.
    """

    nll: jax.Array
    gradient: Any
    after: Any


def meta_gradient(
    model: LanguageModel,
    params: Params,
    chunks: ChunkStream,
    *,
    learning_rate: float,
    order: str = "first",
) -> MetaGradient:
    """The gradient of online nll under plain gradient descent, with respect to where it began.

    Pure: jit it with `model`, `order` static.

    Args:
      model: the model.
      params: all of them adapt.
      chunks: K chunks without a context (`online.chunk_stream`), of one document.
      learning_rate: of the updates between chunks, each by the gradient of the chunk's mean nll.
      order: `first` or `full`.

    Raises:
      InputError: an unknown order.

    >>> import numpy as np
    >>> from lmdyn import models, online
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> chunks = online.chunk_stream(np.arange(13) % 11, online.OnlineConfig(chunk=4))
    >>> found = meta_gradient(
    ...     model, models.init(model), chunks, learning_rate=0.1, order="full"
    ... )
    >>> found.nll.shape, found.gradient["head"]["kernel"].shape
    ((), (6, 11))
    """
    choose("order", order, ORDERS)
    counts_K = chunks.mask.sum(1).astype(jnp.float32)
    shares_K = counts_K / jnp.maximum(counts_K.sum(), 1)

    def nll(params, chunk: ChunkStream):
        weights_1C = chunk.mask.astype(jnp.float32)[None] / jnp.maximum(chunk.mask.sum(), 1)
        return loss(model, params, chunk.inputs[None], chunk.targets[None], weights_1C)[0]

    def descend(params, gradient):
        return jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient)

    def unrolled(params):
        def step(now, given):
            chunk, share = given
            value, gradient = jax.value_and_grad(nll)(now, chunk)
            return descend(now, gradient), share * value

        after, values_K = jax.lax.scan(step, params, (chunks, shares_K))
        return values_K.sum(), after

    if order == "full":  # through the updates: second derivatives
        (total, after), gradient = jax.value_and_grad(unrolled, has_aux=True)(params)
        return MetaGradient(total, gradient, after)

    def step(carry, given):  # the updates are constants: a weighted sum of gradients
        now, summed = carry
        chunk, share = given
        value, gradient = jax.value_and_grad(nll)(now, chunk)
        summed = jax.tree.map(lambda s, g: s + share * g, summed, gradient)
        return (descend(now, gradient), summed), share * value

    zeros = jax.tree.map(jnp.zeros_like, params)
    (after, gradient), values_K = jax.lax.scan(step, (params, zeros), (chunks, shares_K))
    return MetaGradient(values_K.sum(), gradient, after)
