"""Optimizers as keys of compiled programs: equal where their updates compute the same.

`optax.adam(1e-3)` built anew is another object, with other closures, but the same computation. An
update is traced to its jaxpr, which takes milliseconds, where compiling an evaluation takes many
seconds. Two updates are taken for the same where their jaxprs are: every operation, its parameters,
the shapes and types, and the value of every constant bit for bit.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Hashable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from lmdyn.errors import InputError
from lmdyn.types import Tree

DERIVATIVES = ("jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd")
"""Parameters of operations that say how to differentiate them: nothing differentiates an update."""


@dataclasses.dataclass(frozen=True)
class TracedOptimizer:
    """An optimizer that equals others by what its update computes. Made by `trace_optimizer`.

    Attributes:
      init: the optimizer's.
      update: the optimizer's.
      fingerprint: what is compared.
    """

    init: Callable = dataclasses.field(compare=False)
    update: Callable = dataclasses.field(compare=False)
    fingerprint: Hashable


def trace_optimizer(optimizer: optax.GradientTransformation, trainable: Tree) -> TracedOptimizer:
    """The optimizer, with a fingerprint of its update for parameters of these shapes.

    Args:
      optimizer: any optax transformation.
      trainable: the parameters that it updates, or their shapes.

    Raises:
      InputError: its state has another form after an update than at its start, so that no scan can
        carry it and no reset restore it.

    >>> params = {"w": jax.ShapeDtypeStruct((2, 3), np.float32)}
    >>> trace_optimizer(optax.adam(0.1), params) == trace_optimizer(optax.adam(0.1), params)
    True
    >>> trace_optimizer(optax.adam(0.1), params) == trace_optimizer(optax.adam(0.2), params)
    False
    """
    before = jax.eval_shape(optimizer.init, trainable)
    jaxpr, (_, after) = jax.make_jaxpr(optimizer.update, return_shape=True)(
        trainable, before, trainable
    )
    form = lambda tree: (
        jax.tree.structure(tree),
        [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)],
    )
    if form(before) != form(after):
        raise InputError(
            "the optimizer's state has another form after an update than at its start, so it cannot"
            " be carried over chunks and resets; use one whose update returns a state of the same"
            " shapes and types as init"
        )
    trees = jax.tree.structure((trainable, before))
    return TracedOptimizer(optimizer.init, optimizer.update, (trees, _of_jaxpr(jaxpr)))


def _of_jaxpr(closed: ClosedJaxpr) -> Hashable:
    """A jaxpr as nested tuples: variables by number, constants by value."""
    jaxpr, numbers = closed.jaxpr, {}

    def of_variable(variable: Any) -> Hashable:
        if isinstance(variable, Literal):
            return "literal", variable.aval, _of_value(variable.val)
        return numbers.setdefault(variable, len(numbers)), variable.aval

    def of_equation(equation: Any) -> Hashable:
        context = equation.ctx
        return (
            equation.primitive,
            tuple(of_variable(variable) for variable in equation.invars),
            tuple(
                (name, _of_value(value))
                for name, value in sorted(equation.params.items())
                if name not in DERIVATIVES
            ),
            _of_value((context.compute_type, context.threefry_partitionable, context.xla_metadata)),
            tuple(of_variable(variable) for variable in equation.outvars),
        )

    return (
        tuple(_of_value(constant) for constant in closed.consts),
        tuple(of_variable(variable) for variable in (*jaxpr.constvars, *jaxpr.invars)),
        tuple(of_equation(equation) for equation in jaxpr.eqns),
        tuple(of_variable(variable) for variable in jaxpr.outvars),
    )


def _of_value(value: Any) -> Hashable:
    """A constant, or a parameter of an operation: by value, and by type, since `0.0 == -0.0 == 0`.

    What is neither a number, an array nor a container is compared as Python compares it; what
    Python cannot hash equals only itself. The key holds on to it, so that no other object gets its
    address.
    """
    if isinstance(value, ClosedJaxpr):
        return _of_jaxpr(value)
    if isinstance(value, Jaxpr):
        return _of_jaxpr(ClosedJaxpr(value, ()))
    if isinstance(value, float | complex):
        return type(value), repr(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(cast(Any, value))
        array = np.ascontiguousarray(value)
        return str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()
    if isinstance(value, dict):
        return dict, tuple((_of_value(key), _of_value(item)) for key, item in value.items())
    if isinstance(value, tuple | list):
        return type(value), tuple(_of_value(item) for item in value)
    try:
        hash(value)
    except TypeError:
        return _Itself(value)
    return type(value), value


class _Itself:
    """Equals nothing but the same object's wrapper; holds on to it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
