"""Equal optimizers share a compiled program; different ones never do."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmdyn import online, transforms
from lmdyn.online.traced_updates import trace_optimizer
from lmdyn.params import low_rank
from tests.helpers import small, tokens
from tests.online.helpers import evaluate

PARAMS = {"a": jnp.ones([2, 3]), "b": jnp.ones([4])}
COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def counted():
    """A list that gets an entry for every program that is compiled meanwhile."""
    found = []
    listener = lambda event, seconds, **_: found.append(seconds) if event == COMPILED else None
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


def rms_rule(scale):
    """A rule with an array in its closure."""
    weights = jax.tree.map(lambda leaf: scale * jnp.arange(leaf.size).reshape(leaf.shape), PARAMS)
    return optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, weights))


def masked(name):
    return optax.masked(optax.scale(0.5), {key: key == name for key in PARAMS})


def scheduled(boundary, factor=0.1):
    return optax.sgd(optax.piecewise_constant_schedule(0.1, {boundary: factor}))


def looked_up(table):
    table = np.asarray(table, np.float32)
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u: u * table.sum(), updates))


MAKE = {
    "adam": lambda: optax.adam(1e-3),
    "a schedule": lambda: optax.adamw(optax.cosine_decay_schedule(1e-3, 100), weight_decay=0.1),
    "a chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)),
    "a mask": lambda: masked("a"),
    "an array": lambda: rms_rule(2.0),
    "every second": lambda: online.every(optax.adam(1e-3), 2),
    "any learning rate": lambda: online.learning_rate_as_state(optax.adam)(1e-3),
    "steps of conditions": lambda: optax.apply_if_finite(optax.sgd(0.1), 3),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_what_is_built_anew_is_equal(make):
    one, two = trace_optimizer(make(), PARAMS), trace_optimizer(make(), PARAMS)
    assert one == two and hash(one) == hash(two)


@pytest.mark.parametrize(
    "one, two",
    [
        (optax.adam(1e-3), optax.adam(1.000001e-3)),
        (optax.adam(1e-3), optax.adam(1e-3, b1=0.0)),
        (optax.adam(1e-3), optax.adam(1e-3, nesterov=True)),
        (optax.adam(1e-3), online.every(optax.adam(1e-3), 1)),
        (online.every(optax.sgd(0.1), 2), online.every(optax.sgd(0.1), 3)),
        (optax.scale(0.0), optax.scale(-0.0)),
        (masked("a"), masked("b")),
        (scheduled(10), scheduled(11)),
        (scheduled(10), scheduled(10, 0.2)),
        (rms_rule(2.0), rms_rule(3.0)),
        (looked_up([1, 2]), looked_up([1, 3])),
        (optax.clip(1.0), optax.clip(2.0)),
        (optax.sign_sgd(0.1), optax.sgd(0.1)),
    ],
    ids=[
        "learning rate",
        "momentum",
        "branch",
        "state",
        "every",
        "sign of zero",
        "mask",
        "boundary",
        "factor",
        "jax array",
        "numpy array",
        "clip",
        "rule",
    ],
)
def test_what_differs_anywhere_is_different(one, two):
    assert trace_optimizer(one, PARAMS) != trace_optimizer(two, PARAMS)


def test_a_global_that_changed_is_seen():
    """Closures alone would not tell: both functions have the same code and no closure."""
    source = "def update(u, s, p=None): return jax.tree.map(lambda x: x * FACTOR, u), s"
    made = []
    for factor in (1.0, 2.0):
        scope = {"jax": jax, "FACTOR": factor}
        exec(source, scope)
        made.append(optax.GradientTransformation(lambda p: (), scope["update"]))
    assert trace_optimizer(made[0], PARAMS) != trace_optimizer(made[1], PARAMS)


@pytest.mark.parametrize(
    "options",
    [
        dict(optimizer=lambda: optax.adam(1e-3)),
        dict(optimizer=lambda: optax.adam(1e-3), every=2, guard=50.0),
        dict(
            optimizer=lambda: optax.adam(1e-3),
            adapt=low_rank("blocks.mlp", rank=2),
            reset="document",
            parallel=2,
        ),
        dict(
            optimizer=lambda: optax.sgd(0.1),
            adapt=transforms.localized({"mlp": [1.0, 2.0, 3.0]}, "scale", ("mlp",)),
        ),
    ],
    ids=["plain", "every", "lanes", "localized"],
)
def test_the_natural_call_compiles_once(options):
    """As in a notebook: the same cell, run again."""
    (model, params), text = small(), [tokens(21), tokens(31, seed=1)]
    options = dict(chunk=5, end_of_text=0) | options
    make = options.pop("optimizer")
    first = evaluate(model, params, text, optimizer=make(), **options)
    with counted() as compiled:
        again = evaluate(model, params, text, optimizer=make(), **options)
    assert not compiled
    np.testing.assert_array_equal(again.nll, first.nll)
    with counted() as compiled:
        other = evaluate(model, params, text, optimizer=optax.sgd(0.3), **options)
    assert compiled  # another rule is another program, and the count counts
    assert np.abs(other.nll - first.nll).max() > 1e-3


def test_a_rule_in_the_middle_of_others_is_not_taken_for_another():
    """Same structure, another constant: each gets its own numbers, in whatever order."""
    model, params = small()
    run = lambda rate: evaluate(model, params, tokens(21), optimizer=optax.sgd(rate), chunk=5).nll
    slow, fast, again = run(0.1), run(0.5), run(0.1)
    np.testing.assert_array_equal(slow, again)
    assert np.abs(slow - fast).max() > 1e-3
