"""Recall: learn the new and be pulled back to the old weights, less and less.

Chen et al. 2020, arXiv 2004.12651, "RecAdam".

The objective goes over from the old task, whose loss is taken as a quadratic around the old
weights, to the new one: `lambda(t) loss + (1 - lambda(t)) strength / 2 |theta - theta_0|^2`, with
`lambda(t) = 1 / (1 + exp(-steepness (t - middle)))`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lmdyn.errors import InputError
from lmdyn.types import Tree


class RecallState(NamedTuple):
    """The state of the transform. Made by `recall`."""

    step: jax.Array
    """int32 scalar: updates done"""
    old: Any
    """the parameters that it was made for; None where they were given"""


def recall(
    strength: float, steepness: float, middle: float, old: Tree = None
) -> optax.GradientTransformation:
    """`lambda(t) update + (1 - lambda(t)) strength (theta - theta_0)`, t = 1 for the first update.

    It belongs after the rule and before the learning rate, so that Adam's statistics are of the new
    task alone (the paper's "decoupled" form, its algorithm 1): `optax.chain(optax.scale_by_adam(),
    recall(...), optax.scale_by_learning_rate(rate))`, which `rec_adam` is.

    Args:
      strength: gamma, of the quadratic; times the learning rate, it must stay below 2.
      steepness: k, per update.
      middle: t_0, the update at which both weigh the same.
      old: theta_0; default the parameters that the optimizer's state is made for, which are then
        kept in it.

    Raises:
      InputError: a strength or steepness below 0.

    >>> pull = recall(strength=2.0, steepness=1.0, middle=1.0, old=jnp.array([1.0]))
    >>> updates, _ = pull.update(
    ...     jnp.array([3.0]), pull.init(jnp.array([0.0])), jnp.array([2.0])
    ... )  # (3 + 2 (2 - 1)) / 2
    >>> updates.tolist()
    [2.5]
    """
    for name, value in (("strength", strength), ("steepness", steepness)):
        if not value >= 0:
            raise InputError(f"{name}={value}; it must be at least 0")

    def init(params):
        return RecallState(
            jnp.zeros([], jnp.int32), jax.tree.map(jnp.copy, params) if old is None else None
        )

    def update(updates, state, params=None):
        step = state.step + 1
        new = jax.nn.sigmoid(steepness * (step.astype(jnp.float32) - middle))
        pulled = lambda u, p, o: (new * u + (1 - new) * strength * (p - o)).astype(u.dtype)
        return jax.tree.map(
            pulled, updates, params, state.old if old is None else old
        ), RecallState(step, state.old)

    return optax.GradientTransformation(init, update)


def rec_adam(
    learning_rate: optax.ScalarOrSchedule,
    strength: float = 5000.0,
    steepness: float = 0.01,
    middle: float = 1000.0,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Adam that recalls the old weights; see `recall`.

    Defaults are for a learning rate of about 1e-5 and some thousand steps.

    Args:
      learning_rate: a number, or its schedule.
      strength: gamma, see `recall`.
      steepness: k, see `recall`.
      middle: t_0, see `recall`.
      b1: Adam's decay of the mean.
      b2: Adam's decay of the mean square.
      eps: Adam's epsilon.
      weight_decay: towards zero, as in AdamW, of all parameters.

    >>> params = {"head": {"kernel": jnp.ones([2, 3])}}
    >>> optimizer = rec_adam(1e-5)
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> updates["head"]["kernel"].shape
    (2, 3)
    """
    decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    return optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        recall(strength, steepness, middle),
        *decay,
        optax.scale_by_learning_rate(learning_rate),
    )
