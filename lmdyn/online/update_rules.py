"""Update rules whose learning rate is part of their state, and rules that wait for k gradients.

make = learning_rate_as_state(optax.sgd)
make(0.01), make(0.1)                               # two optimizers, one compiled program
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from lmdyn.types import Tree


class LearningRateState(NamedTuple):
    """The state of an optimizer. Made by `learning_rate_as_state`.

    Attributes:
      learning_rate: a float32 scalar.
      state: the inner optimizer's own.
    """

    learning_rate: jax.Array
    state: Any


def learning_rate_as_state(rule: Callable) -> Callable:
    """A function `learning rate -> optimizer`, all of which share one compiled program.

    Args:
      rule: `learning rate -> optax.GradientTransformation`; the learning rate may be a traced
        scalar, so it is multiplied with, never compared.

    Returns:
      A function of a float. The optimizers' states are `LearningRateState`.

    >>> fast = learning_rate_as_state(optax.sgd)(2.0)
    >>> updates, _ = fast.update({"w": jnp.ones(2)}, fast.init({"w": jnp.zeros(2)}))
    >>> updates["w"].tolist()
    [-2.0, -2.0]
    """

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        updates, inner = rule(state.learning_rate).update(updates, state.state, params)
        return updates, LearningRateState(state.learning_rate, inner)

    def make(learning_rate: float) -> optax.GradientTransformation:
        def init(params: Tree) -> LearningRateState:
            inner = rule(learning_rate).init(params)
            return LearningRateState(jnp.asarray(learning_rate, jnp.float32), inner)

        return optax.GradientTransformation(init, update)

    return make


def every(optimizer: optax.GradientTransformation, k: int) -> optax.GradientTransformation:
    """An update by the mean of k gradients, after every k-th; nothing in between.

    Args:
      optimizer: what turns the mean gradient into an update.
      k: gradients per update.

    >>> rule = every(optax.sgd(1.0), 2)
    >>> state = rule.init({"w": jnp.zeros([])})
    >>> for gradient in (1.0, 3.0):
    ...     updates, state = rule.update({"w": jnp.float32(gradient)}, state)
    ...     print(float(updates["w"]))
    0.0
    -2.0
    """
    steps = optax.MultiSteps(optimizer, k)
    return optax.GradientTransformation(steps.init, cast(Any, steps.update))
