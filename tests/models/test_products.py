"""Float32 means float32: no program multiplies float32 numbers at a lower precision.

GPUs and TPUs would; the jaxprs of forward, gradient, losses and metrics are walked for products.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from lmdyn import metrics, models
from lmdyn.models import products
from lmdyn.params import low_rank
from tests.helpers import KINDS, SMALL, batch, small

HIGHEST = (jax.lax.Precision.HIGHEST,) * 2


def jaxprs(value):
    """Those inside an equation's parameters."""
    if isinstance(value, tuple | list):
        for one in value:
            yield from jaxprs(one)
    elif hasattr(value, "jaxpr"):
        yield value.jaxpr
    elif hasattr(value, "eqns"):
        yield value


def dots(jaxpr):
    """Every product of a program, also inside scans, checkpoints and functions."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for value in equation.params.values():
            for inner in jaxprs(value):
                yield from dots(inner)


def imprecise(function, *args):
    """The float32 products without full precision; and how many float32 products there are."""
    found = [
        equation
        for equation in dots(jax.make_jaxpr(function)(*args).jaxpr)
        if any(operand.aval.dtype == jnp.float32 for operand in equation.invars)
    ]
    return [str(one) for one in found if one.params["precision"] != HIGHEST], len(found)


def assert_precise(function, *args):
    bad, count = imprecise(function, *args)
    assert count and not bad, "\n".join(bad)


def test_the_walk_finds_a_product_anywhere():
    """Inside a scan inside a jitted function, in the gradient too; and it tells the good ones."""
    w = jnp.ones([2, 2])

    def function(multiply, x):
        return jax.jit(lambda x: jax.lax.scan(lambda c, _: (multiply(c, w), None), x, None, 3))(x)

    plain = lambda x: function(jnp.matmul, x)[0].sum()
    assert [len(imprecise(f, w)[0]) for f in (plain, jax.grad(plain))] == [1, 2]
    full = lambda x: function(products.matmul, x)[0].sum()
    assert_precise(full, w)
    assert_precise(jax.grad(full), w)
    with jax.default_matmul_precision("tensorfloat32"):
        assert imprecise(full, w)[0], "who asks for TF32 gets it"


def loss(model, b):
    return lambda p: models.loss(model, p, b.inputs, b.targets, b.mask / b.mask.sum())[0]


@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_gradient(kind):
    model, params = small(kind)
    b = batch(2, 9)
    assert_precise(lambda p: models.logits(model, p, b.inputs), params)
    assert_precise(jax.grad(loss(model, b)), params)
    assert_precise(
        jax.grad(lambda p: models.token_nll(model, p, b.inputs, b.targets).sum()), params
    )


@pytest.mark.parametrize("attention", ["blocked", "xla"])
def test_attention_behind_a_cache_and_by_every_kernel(attention):
    model = models.LanguageModel(SMALL, models.Compute(attention=attention))
    params, b = small()[1], batch(2, 9)
    cache = models.new_cache(model, 2, 4)

    def objective(p):
        return jnp.sum(models.forward(model, p, b.inputs, cache=cache).states)

    assert_precise(jax.grad(objective), params)
    assert_precise(lambda p: models.logits(model, p, b.inputs, documents=b.inputs // 30), params)


@pytest.mark.parametrize("head", ["low_rank:5", "mixture:2", "sigsoftmax", "projected:31"])
def test_other_heads(head):
    model = models.LanguageModel(dataclasses.replace(SMALL, depth=1, head=head))
    assert_precise(jax.grad(loss(model, batch(2, 5))), models.shapes(model.config))


def test_adapters():
    model, params = small()
    part = low_rank("blocks.mlp", rank=2).partition(params)
    adapters, rest = part.split(params)
    assert_precise(jax.grad(lambda a: loss(model, batch(2, 5))(part.merge(a, rest))), adapters)
    assert_precise(lambda a: part.join(a, rest), adapters)


def test_gradient_norms():
    model, params = small("learned")
    b = batch(2, 9)
    norms = functools.partial(metrics.gradient_norms, model)
    assert_precise(lambda p: norms(p, b.inputs, b.targets, b.mask), params)


@pytest.mark.parametrize("name", metrics.REGISTRY)
def test_every_metric(name):
    model, params = small()
    b, taps = batch(2, 9), metrics.REGISTRY[name]().taps
    bad, _ = imprecise(
        lambda p: models.observe(model, p, b.inputs, b.targets, b.mask, taps), params
    )
    assert not bad, "\n".join(bad)
