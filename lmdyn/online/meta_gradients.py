"""A starting point that is good to adapt from: the gradient of the nll of a few chunks, each scored
before it is learned from, with respect to the parameters that the first of them met (Finn et al.
2017, arXiv 1703.03400; for dynamic evaluation of language models).

`full` differentiates through the updates. `first` takes every update as a constant, so that the
gradient is the sum of those that online adaptation makes anyway (Finn et al. 2017, section 5.2), at
a third of the cost. Shape letters: K chunks, C predictions a chunk.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lmdyn.errors import choose
from lmdyn.models import LanguageModel, loss
from lmdyn.online.streams import Stream
from lmdyn.types import Params

ORDERS = ("first", "full")


class Slope(NamedTuple):
    """What `meta_gradient` returns: the mean nll of the chunks in nats, its gradient, and the
    parameters after the last update.
    """

    nll: jax.Array
    gradient: Any
    after: Any


def meta_gradient(
    model: LanguageModel, params: Params, chunks: Stream, *, rate: float, order: str = "first"
) -> Slope:
    """The gradient of online nll under plain gradient descent, with respect to where it began.
    Pure: jit it with `model`, `order` static.

    Args:
      params: all of them adapt.
      chunks: K chunks without a context (`online.stream(..., context=none())`), of one document.
      rate: of the updates between chunks: each is by the gradient of the chunk's mean nll.
      order: `first` or `full`.

    Raises:
      InputError: an unknown order.

    >>> import numpy as np
    >>> from lmdyn import models, online
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> chunks = online.stream(np.arange(13) % 11, chunk=4, context=online.none())
    >>> found = meta_gradient(model, models.init(model), chunks, rate=0.1, order="full")
    >>> found.nll.shape, found.gradient["head"]["kernel"].shape
    ((), (6, 11))
    """
    choose("order", order, ORDERS)
    counts = chunks.mask.sum(1).astype(jnp.float32)
    shares = counts / jnp.maximum(counts.sum(), 1)

    def nll(params, chunk: Stream):
        weights = chunk.mask.astype(jnp.float32)[None] / jnp.maximum(chunk.mask.sum(), 1)
        return loss(model, params, chunk.inputs[None], chunk.targets[None], weights)[0]

    descend = lambda params, slope: jax.tree.map(lambda p, g: p - rate * g, params, slope)

    def unrolled(params):
        def step(now, given):
            chunk, share = given
            value, slope = jax.value_and_grad(nll)(now, chunk)
            return descend(now, slope), share * value

        after, values = jax.lax.scan(step, params, (chunks, shares))
        return values.sum(), after

    if order == "full":
        (total, after), gradient = jax.value_and_grad(unrolled, has_aux=True)(params)
        return Slope(total, gradient, after)

    def step(carry, given):
        now, summed = carry
        chunk, share = given
        value, slope = jax.value_and_grad(nll)(now, chunk)
        return (
            descend(now, slope),
            jax.tree.map(lambda s, g: s + share * g, summed, slope),
        ), share * value

    (after, gradient), values = jax.lax.scan(
        step, (params, jax.tree.map(jnp.zeros_like, params)), (chunks, shares)
    )
    return Slope(values.sum(), gradient, after)
