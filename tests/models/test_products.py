"""Float32 means float32, and bfloat16 is summed in float32, in every program.

The jaxprs of forward pass, gradient, losses, metrics, online steps, training steps and transforms
are walked: GPUs and TPUs would multiply float32 numbers at a lower precision unless told otherwise,
and a sum of bfloat16 numbers in bfloat16 stops growing at 256 ones.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmdyn import metrics, models, online, training, transforms
from lmdyn.models import attention, products
from lmdyn.models.matrices.base import add_bias
from lmdyn.online import core, lanes
from lmdyn.params import low_rank, partition
from tests.helpers import KINDS, SMALL, batch, small, tokens

HIGHEST = (jax.lax.Precision.HIGHEST,) * 2
SUMS = ("reduce_sum", "cumsum", "reduce_window_sum", "scatter-add", "cumlogsumexp", "psum")
DTYPES = ("float32", "bfloat16")


def jaxprs(value):
    """Those inside an equation's parameters."""
    if isinstance(value, tuple | list):
        for one in value:
            yield from jaxprs(one)
    elif hasattr(value, "jaxpr"):
        yield value.jaxpr
    elif hasattr(value, "eqns"):
        yield value


def equations(jaxpr):
    """Every equation of a program, also inside scans, checkpoints, functions and kernels."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in jaxprs(value):
                yield from equations(inner)


def imprecise(function, *args):
    """Float32 products below full precision and sums in bfloat16; and the number of products."""
    bad, count = [], 0
    for equation in equations(jax.make_jaxpr(function)(*args).jaxpr):
        name, dtypes = equation.primitive.name, [v.aval.dtype for v in equation.invars]
        if name in ("dot_general", "conv_general_dilated"):
            count += 1
            full = all(dtype == jnp.float32 for dtype in dtypes)
            if full and equation.params["precision"] != HIGHEST:
                bad.append(str(equation))
        if name in SUMS and jnp.bfloat16 in dtypes:
            bad.append(str(equation))
    return bad, count


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


def test_the_walk_finds_a_sum_in_bfloat16():
    """JAX sums in float32 where it is asked to, but not where a gradient undoes a broadcast."""
    x, bias = jnp.ones([3, 2], jnp.bfloat16), jnp.ones([2])
    assert not imprecise(jnp.sum, x)[0]
    coarse = lambda bias: jnp.sum(x + bias.astype(x.dtype))
    assert len(imprecise(jax.grad(coarse), bias)[0]) > 0
    assert not imprecise(jax.grad(lambda bias: jnp.sum(add_bias(x, bias))), bias)[0]


def test_products_of_bfloat16_are_summed_in_float32():
    """Ones, more than bfloat16 can count, in the product and in both of its gradients."""
    ones = lambda *shape: jnp.ones(shape, jnp.bfloat16)
    length = 4096

    def objective(x, w):
        return jnp.sum(products.matmul(x, w).astype(jnp.float32))

    assert products.matmul(ones(1, length), ones(length, 1)).item() == length
    assert jax.grad(objective)(ones(2, 3), ones(3, length))[0, 0] == length
    assert jax.grad(objective, 1)(ones(length, 3), ones(3, 2))[0, 0] == length


def model_of(kind="gated", dtype="float32", attention="auto"):
    model, params = small(kind)
    return model.clone(compute=models.Compute(dtype=dtype, attention=attention)), params


def loss(model, b):
    return lambda p: models.loss(model, p, b.inputs, b.targets, b.mask / b.mask.sum())[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_gradient(kind, dtype):
    model, params = model_of(kind, dtype)
    b = batch(2, 9)
    assert_precise(lambda p: models.logits(model, p, b.inputs), params)
    assert_precise(jax.grad(loss(model, b)), params)
    assert_precise(
        jax.grad(lambda p: models.token_nll(model, p, b.inputs, b.targets).sum()), params
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_behind_a_cache_and_in_documents(dtype):
    model, params = model_of(dtype=dtype)
    b, cache = batch(2, 9), models.new_cache(model, 2, 4)

    def objective(p):
        return jnp.sum(models.forward(model, p, b.inputs, cache=cache).states)

    assert_precise(jax.grad(objective), params)
    assert_precise(lambda p: models.logits(model, p, b.inputs, documents=b.inputs // 30), params)


@pytest.mark.parametrize("kernel", ["flash_attention", "splash_attention"])
def test_attention_kernels(kernel):
    """Inside them, forward and backward. (Splash multiplies 16 bits as the device likes.)"""
    numbers = jnp.zeros([2, 9], jnp.int32)

    def objective(x):
        reach = attention.Reach(numbers, numbers)
        return jnp.sum(getattr(attention, kernel)(x, x, x, reach).astype(jnp.float32))

    for dtype in DTYPES if kernel == "flash_attention" else ("float32",):
        assert_precise(jax.grad(objective), jnp.ones([2, 9, 3, 8], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["low_rank:5", "mixture:2", "sigsoftmax", "projected:31"])
def test_other_heads(head, dtype):
    config = dataclasses.replace(SMALL, depth=1, head=head)
    model = models.LanguageModel(config, models.Compute(dtype=dtype))
    assert_precise(jax.grad(loss(model, batch(2, 5))), models.shapes(model.config))


@pytest.mark.parametrize("dtype", DTYPES)
def test_adapters(dtype):
    model, params = model_of(dtype=dtype)
    part = low_rank("blocks.mlp", rank=2).partition(params)
    adapters, rest = part.split(params)
    assert_precise(jax.grad(lambda a: loss(model, batch(2, 5))(part.merge(a, rest))), adapters)
    assert_precise(lambda a: part.join(a, rest), adapters)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_norms(dtype):
    model, params = model_of("learned", dtype)
    b = batch(2, 9)
    norms = functools.partial(metrics.gradient_norms, model)
    assert_precise(lambda p: norms(p, b.inputs, b.targets, b.mask), params)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", metrics.REGISTRY)
def test_every_metric(name, dtype):
    model, params = model_of(dtype=dtype)
    b, metric = batch(2, 9), metrics.REGISTRY[name]()
    observe = lambda p: models.observe(model, p, b.inputs, b.targets, b.mask, metric.taps)

    def measured(p):
        tapped = observe(p)
        return metric.update(metric.init(jax.eval_shape(observe, p)), tapped, b.mask)

    assert_precise(lambda p: (models.logits(model, p, b.inputs), measured(p)), params)


CONTEXTS = {"none": online.none(), "cache": online.cache(8), "overlap": online.overlap(8)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("context", CONTEXTS)
def test_online_steps(context, dtype):
    model, params = model_of("parallel", dtype)
    config = online.OnlineConfig(chunk=4, context=CONTEXTS[context])
    chunks = online.chunk_stream(tokens(13), config)
    part = partition(params, "blocks[1:].mlp+head")
    trainable, rest = part.split(params)
    adaptation = core.Adaptation(model, part, optax.adam(1e-3), context=CONTEXTS[context])
    carry = core.start(adaptation, trainable)
    assert_precise(lambda c: core.adapt(adaptation, None, rest, c, chunks), carry)
    # Documents side by side.
    both = jax.tree.map(lambda x: jnp.stack([x, x]), carry)
    placed = lanes.place_chunks(chunks, np.array([[0, 1], [2, -1]]))
    assert_precise(lambda c: lanes.adapt_lanes(adaptation, None, rest, c, placed), both)


RULES = {
    "adamw": optax.adamw(1e-3),
    "muon": transforms.scale_by_muon(),
    "localized": transforms.layer_rates({"mlp": [1.0, 0.5, 0.0], "attention": [1.0, 1.0, 0.0]}),
    "relocalized": transforms.adjustable_rates(),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_training_steps_and_transforms(rule, dtype):
    model, params = model_of("parallel", dtype)
    step = training.make_step(model, RULES[rule], accumulate=2)
    assert_precise(step, training.start(params, RULES[rule]), batch(4, 9))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_statistics(dtype):
    """Mean square gradients, and profiles while training."""
    model, params = model_of(dtype=dtype)
    found = lambda p: transforms.group_norms(jax.grad(loss(model, batch(2, 9)))(p))
    assert_precise(found, params)
