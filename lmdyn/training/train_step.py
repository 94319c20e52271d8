"""The pure training step: `(state, batch) -> (state, metrics)`.

Shape letters: B rows of a batch, T tokens, A parts that a batch is run in.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lmdyn.data import Batch
from lmdyn.models import LanguageModel, loss
from lmdyn.params import Adapters, Partition
from lmdyn.types import Array, Params


class TrainState(NamedTuple):
    """The state that passes from step to step. Made by `start`.

    Attributes:
      step: int32 scalar, updates done.
      params: what is trained: all parameters, the chosen ones of a `Partition`, or `Adapters`.
      frozen: None, or the rest, as `split` of either returns it.
      optimizer: the state of the optimizer, of the trained parameters alone.
    """

    step: Any
    params: Any
    frozen: Any
    optimizer: Any


def start(
    params: Params,
    optimizer: optax.GradientTransformation,
    part: Partition | Adapters | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
      params: the whole tree.
      optimizer: any optax transformation.
      part: which of them are trained; None trains all.

    >>> state = start({"head": {"kernel": jnp.ones([2, 3])}}, optax.sgd(0.1))
    >>> int(state.step), state.frozen is None
    (0, True)
    """
    chosen, rest = (params, None) if part is None else part.split(params)
    return TrainState(jnp.zeros([], jnp.int32), chosen, rest, optimizer.init(chosen))


def whole(state: TrainState, part: Partition | Adapters | None = None) -> Params:
    """The whole tree of parameters of a state, one stack of blocks.

    >>> whole(start({"head": {"kernel": jnp.ones([2, 3])}}, optax.sgd(0.1)))["head"][
    ...     "kernel"
    ... ].shape
    (2, 3)
    """
    return state.params if part is None else part.join(state.params, state.frozen)


def likelihood(
    model: LanguageModel, params: Params, batch: Batch, weights: Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The usual objective: `sum weights * nll`, so the mean nll for weights that sum to 1.

    Any function of this shape can take its place in `make_step`: it returns what is minimised, and
    a dict of scalars to log, which are added over the parts of a batch.

    Args:
      model: the model, as `lmdyn.load` returns it.
      params: for `lmdyn.models.forward`.
      batch: `[B, T]` arrays.
      weights: `[B, T]` float32.

    >>> from lmdyn import models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> params = models.init(model)
    >>> ids = jnp.arange(10).reshape(2, 5)
    >>> total, logged = likelihood(
    ...     model, params, Batch(ids, ids + 1, jnp.ones([2, 5], bool)), jnp.full([2, 5], 0.1)
    ... )
    >>> logged["loss"] is total, total.shape
    (True, ())
    """
    total, _ = loss(model, params, batch.inputs, batch.targets, weights, documents=batch.documents)
    return total, {"loss": total}


def make_step(
    model: LanguageModel,
    optimizer: optax.GradientTransformation,
    *,
    part: Partition | Adapters | None = None,
    accumulate: int = 1,
    objective: Callable = likelihood,
) -> Callable:
    """The pure step; jit it, with shardings or without, and donate the state.

    Args:
      model: spread over a mesh, or not.
      optimizer: any optax transformation.
      part: which parameters are trained (`lmdyn.transforms.partition`), or low-rank adapters
        (`lmdyn.params.low_rank(...).partition(params)`); None trains all. Below the lowest trained
        block no gradient is computed.
      accumulate: A; the batch is run in A parts whose gradients are added. Every counted token
        weighs the same, however they are spread, so A changes nothing but rounding and memory.
      objective: see `likelihood`.

    Returns:
      `step(state, batch) -> (state, metrics)`; metrics hold `loss` (nats, mean over counted
      tokens), `gradient_norm` (before clipping), `tokens` (counted ones), and what the objective
      adds, all float32 scalars.

    >>> from lmdyn import models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model, optimizer = models.LanguageModel(config), optax.adam(1e-2)
    >>> ids = jnp.arange(12).reshape(2, 6) % 11
    >>> batch = Batch(ids[:, :-1], ids[:, 1:], jnp.ones([2, 5], bool))
    >>> step = jax.jit(make_step(model, optimizer, accumulate=2))
    >>> state, first = step(start(models.init(model), optimizer), batch)
    >>> state, second = step(state, batch)
    >>> bool(second["loss"] < first["loss"]), int(state.step)
    (True, 2)
    """

    def step(state: TrainState, batch: Batch):
        # The mean over all counted tokens of the batch: parts and devices then add up.
        tokens = jnp.sum(batch.mask)
        weight = 1 / jnp.maximum(tokens, 1).astype(jnp.float32)

        def objective_of(chosen, rows: Batch):
            params = chosen if part is None else part.merge(chosen, state.frozen)
            return objective(model, params, rows, rows.mask * weight)

        if accumulate == 1:
            gradients, logged = jax.grad(objective_of, has_aux=True)(state.params, batch)
        else:
            gradients, logged = _accumulated(
                jax.grad(objective_of, has_aux=True), state.params, batch, accumulate
            )
        # One update of what is trained; the rest passes through.
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        metrics = {
            **logged,
            "gradient_norm": optax.tree.norm(gradients),
            "tokens": tokens.astype(jnp.float32),
        }
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, state.frozen, optimizer_state), metrics

    return step


def _accumulated(gradient, params, batch: Batch, parts: int):
    """The sum of `gradient(params, part)` over the parts of a batch, in one scan."""
    # Row b goes to part b % A: where rows are on several devices, each device then works on every
    # part.
    cut = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
    first = jax.tree.map(lambda x: x[0], cut)
    empty = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(gradient, params, first)
    )

    def body(total, rows):
        return jax.tree.map(jnp.add, total, gradient(params, rows)), None

    return jax.lax.scan(body, empty, cut)[0]
