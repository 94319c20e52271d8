"""Update rules whose rate is part of their state, so that one compiled program serves every rate;
and rules that wait.

make = at_any_rate(optax.sgd)
make(0.01), make(0.1)                                   # two optimizers, one program
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lmdyn.types import Tree


class Rated(NamedTuple):
    """The state of an optimizer of `at_any_rate`: its rate, a float32 scalar, and the rule's own
    state.
    """

    rate: jax.Array
    state: Any


def never(params: Tree) -> Tree:
    """Stands for the `init` of an optimizer of which only `update` is used."""
    raise AssertionError("only the update of this optimizer is used")


@functools.lru_cache(maxsize=128)
def at_any_rate(rule: Callable) -> Callable:
    """`rate -> optimizer`, all of which share one update function.

    Args:
      rule: `rate -> optax.GradientTransformation`; the rate may be a traced scalar, so it is
        multiplied with, never compared.

    Returns:
      A function of a float. The optimizers' states are `Rated`. The same rule gives the same
      function again.

    >>> make = at_any_rate(optax.sgd)
    >>> slow, fast = make(0.5), make(2.0)
    >>> slow.update is fast.update
    True
    >>> updates, _ = fast.update({"w": jnp.ones(2)}, fast.init({"w": jnp.zeros(2)}))
    >>> updates["w"].tolist()
    [-2.0, -2.0]
    """

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        updates, inner = rule(state.rate).update(updates, state.state, params)
        return updates, Rated(state.rate, inner)

    def make(rate: float) -> optax.GradientTransformation:
        init = lambda params: Rated(jnp.asarray(rate, jnp.float32), rule(rate).init(params))
        return optax.GradientTransformation(init, update)

    return make


def every(optimizer: optax.GradientTransformation, k: int) -> optax.GradientTransformation:
    """An update by the mean of k gradients, after every k-th; nothing in between.

    >>> rule = every(optax.sgd(1.0), 2)
    >>> state = rule.init({"w": jnp.zeros([])})
    >>> for gradient in (1.0, 3.0):
    ...     updates, state = rule.update({"w": jnp.float32(gradient)}, state)
    ...     print(float(updates["w"]))
    0.0
    -2.0
    """
    return optax.GradientTransformation(
        optax.MultiSteps(optimizer, k).init, _every(optimizer.update, k)
    )


@functools.lru_cache(maxsize=64)
def _every(update: Callable, k: int) -> Any:
    return optax.MultiSteps(optax.GradientTransformation(never, update), k).update
