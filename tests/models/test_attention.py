"""Attention kernels against the textbook formula, with every kind of reach, forward and gradient.

GPU and TPU kernels run in Pallas' interpreter here; tests marked `gpu` run them on the device.
"""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmdyn.models import attention
from lmdyn.models.attention import choice
from lmdyn.models.attention.choice import Call
from tests.helpers import assert_close, textbook

INTERPRETED = {
    "blocked": choice.KERNELS["blocked"],
    "flash": functools.partial(attention.flash_attention, interpret=True),
    "splash": functools.partial(attention.splash_attention, interpret=True),
}


def may_see(length, past, reach):
    """`[B or 1, T, S]` booleans, by the definition of a reach, pair by pair."""
    batch = 1 if reach.query_segment is None else len(reach.query_segment)
    allowed = np.zeros((batch, length, length + past), bool)
    for b, t, s in np.ndindex(*allowed.shape):
        back = t + past - s
        same = batch == 1 and reach.query_segment is None
        same = same or reach.query_segment[b, t] == reach.key_segment[b, s]
        allowed[b, t, s] = back >= 0 and (reach.window is None or back < reach.window) and same
    return allowed


def segments(lengths):
    """`[B, S]` numbers of documents, -1 for what is no text, from their lengths by row."""
    rows = [np.repeat([n for n, _ in row], [size for _, size in row]) for row in lengths]
    return np.stack(rows).astype(np.int32)


# What queries see: name -> T, S - T, H, G, K, segments of the S keys, window.
PACKED = segments([[(0, 3), (1, 140), (2, 7)], [(0, 133), (1, 17)]])
EMPTY = segments([[(0, 9), (-1, 30), (0, 111)], [(-1, 39), (0, 111)]])
CASES = {
    "causal, grouped heads": (150, 0, 6, 2, 5, None, None),
    "packed documents": (150, 0, 4, 2, 16, PACKED, None),
    "window": (150, 0, 2, 2, 8, None, 20),
    "cache with empty places": (90, 60, 3, 1, 8, EMPTY, None),
    "all together": (90, 60, 6, 2, 5, PACKED, 33),
    "one query": (1, 9, 3, 3, 8, None, None),
}


def arrays_of(case, dtype=np.float32):
    """Queries, keys, values, weights of the outputs in a sum, and the reach."""
    length, past, heads, groups, width, of_keys, window = CASES[case]
    rng = np.random.default_rng(length)
    query, weights = rng.normal(size=(2, 2, length, heads, width))
    key, value = rng.normal(size=(2, 2, length + past, groups, width))
    both = (None, None) if of_keys is None else (of_keys[:, past:], of_keys)
    arrays = [jnp.asarray(x, dtype) for x in (query * width**-0.5, key, value)]
    return arrays, weights.astype(np.float32), attention.Reach(*both, window)


def with_gradient(function, arrays, weights):
    """The outputs, and the gradients of their weighted sum."""

    def objective(*arrays):
        output = function(*arrays).astype(jnp.float32)
        return jnp.sum(output * weights), output

    gradients, output = jax.jit(jax.grad(objective, (0, 1, 2), has_aux=True))(*arrays)
    return output, *gradients


@functools.cache
def wanted(case):
    arrays, weights, reach = arrays_of(case)
    allowed = may_see(arrays[0].shape[1], arrays[1].shape[1] - arrays[0].shape[1], reach)
    return with_gradient(lambda *a: textbook(*a, allowed), arrays, weights)


@pytest.mark.parametrize("kernel", INTERPRETED)
@pytest.mark.parametrize("case", CASES)
def test_kernels_are_the_textbook_formula(case, kernel):
    arrays, weights, reach = arrays_of(case)
    found = with_gradient(lambda *a: INTERPRETED[kernel](*a, reach), arrays, weights)
    for one, other in zip(found, wanted(case), strict=True):
        assert_close(one, other, 1e-5)


@pytest.mark.parametrize("kernel", ["flash", "splash"])
def test_kernels_in_bfloat16_and_for_many_rows_at_once(kernel):
    """Within the rounding of 8 bits; `vmap` is what documents side by side do."""
    case = "packed documents"
    arrays, weights, reach = arrays_of(case, jnp.bfloat16)
    rows = [x[:, None] for x in (*arrays, reach.query_segment, reach.key_segment)]

    def function(query, key, value):
        one = lambda q, k, v, a, b: INTERPRETED[kernel](q, k, v, attention.Reach(a, b))
        return jax.vmap(one)(query[:, None], key[:, None], value[:, None], *rows[3:])[:, 0]

    found = with_gradient(function, arrays, weights)
    for one, other in zip(found, wanted(case), strict=True):
        gap = np.abs(np.asarray(one, np.float32) - other)
        assert gap.max() < 0.02 * np.abs(other).max()


@pytest.mark.parametrize("past", [0, 300])
def test_attention_rounds_alike_with_and_without_a_gradient(past):
    """Bit for bit, at a size where the compiler has something to fuse: else a rate of zero would
    not equal static.
    """
    rng = np.random.default_rng(0)
    query = rng.normal(size=(1, 512, 9, 64)).astype(np.float32)
    key, value = rng.normal(size=(2, 1, 512 + past, 3, 64)).astype(np.float32)

    def objective(*arrays):
        out = attention.blocked_attention(*arrays)[0]
        return jnp.sum(out * out), out

    plain = jax.jit(lambda *arrays: objective(*arrays)[1])(query, key, value)
    _, beside_gradient = jax.jit(jax.grad(objective, (0, 1, 2), has_aux=True))(query, key, value)
    np.testing.assert_array_equal(beside_gradient, plain)


def programs(kernel, dtype, length=512, past=0, segmented=True):
    """A gradient through a kernel, and the shapes that it is lowered for."""
    of = lambda *shape: jax.ShapeDtypeStruct(shape, dtype)
    key = of(2, length + past, 2, 64)
    numbers = jax.ShapeDtypeStruct((2, length + past), jnp.int32)

    def objective(query, key, value, numbers):
        reach = attention.Reach(numbers[:, past:], numbers) if segmented else attention.CAUSAL
        return jnp.sum(choice.KERNELS[kernel](query, key, value, reach).astype(jnp.float32))

    return jax.value_and_grad(objective, (0, 1, 2)), (of(2, length, 6, 64), key, key, numbers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kernel, platform", [("flash", "cuda"), ("splash", "tpu")])
def test_kernels_lower_for_their_device_and_store_no_square(kernel, platform, dtype):
    function, shapes = programs(kernel, dtype)
    lowered = jax.jit(function).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
    calls = {"cuda": "__gpu$xla.gpu.triton", "tpu": "tpu_custom_call"}[platform]
    assert lowered.count(calls) == 3, "one forward, two backward"
    assert "512x512x" not in lowered


def test_blocks_meet_no_key_that_nobody_sees():
    """With a window, products are with 128 queries and the window before them."""
    program = lambda reach: (
        jax.jit(lambda q, k: attention.blocked_attention(q, k, k, reach)[0])
        .lower(jnp.ones([1, 1024, 1, 4]), jnp.ones([1, 1024, 1, 4]))
        .as_text()
    )
    assert "128x1024x" in program(attention.CAUSAL)
    windowed = program(attention.Reach(window=33))
    assert "128x160x" in windowed and "128x1024x" not in windowed


GPU = Call("gpu", "bfloat16", width=64, share=3, queries=512)
TPU = GPU._replace(platform="tpu")


@pytest.mark.parametrize(
    "call, kernel, why",
    [
        (GPU, "cudnn", ""),
        (GPU._replace(window=100), "cudnn", ""),
        (GPU._replace(segmented=True), "flash", "not cudnn: it knows no documents"),
        (GPU._replace(past=60), "flash", "not cudnn: it has no keys before the queries"),
        (GPU._replace(dtype="float32"), "flash", "not cudnn: it has no float32"),
        (GPU._replace(tapped=True), "blocked", "not flash: a tap reads probabilities"),
        (TPU, "splash", ""),
        (TPU._replace(dtype="float32", past=60, segmented=True, window=9), "splash", ""),
        (TPU._replace(queries=32), "blocked", "32 queries are less than its tile of 128"),
        (GPU._replace(platform="cpu"), "blocked", ""),
    ],
)
def test_the_fastest_kernel_that_fits_is_chosen_and_the_log_says_why(call, kernel, why, caplog):
    choice._log_once.cache_clear()
    caplog.set_level(logging.INFO, "lmdyn")
    assert [choice.choose_kernel("auto", call) for _ in range(2)] == [kernel] * 2
    [record] = caplog.records  # once
    assert f": {kernel}" in record.message and why in record.message
    slower = kernel == "blocked" and call.platform != "cpu" and not call.tapped
    assert record.levelname == ("WARNING" if slower else "INFO")


def test_a_kernel_that_fails_or_errs_on_the_device_is_not_used(monkeypatch, caplog):
    """As on a GPU without cuDNN, or with one that sees across documents."""
    choice._log_once.cache_clear(), choice._trial.cache_clear()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    across = lambda query, key, value, reach: choice.KERNELS["blocked"](
        query, key, value, attention.CAUSAL
    )
    monkeypatch.setitem(choice.KERNELS, "flash", across)
    assert choice.choose_kernel("auto", GPU) == "flash"
    assert choice.choose_kernel("auto", GPU._replace(segmented=True)) == "blocked"
    first, second = (record.message for record in caplog.records)
    assert "not cudnn: it failed in a trial (" in first
    assert "not flash: it was off by" in second
    choice._trial.cache_clear()


def test_a_kernel_that_is_asked_for_is_taken_where_it_fits():
    assert choice.choose_kernel("flash", GPU) == "flash"
    assert choice.choose_kernel("blocked", GPU) == "blocked"
    assert choice.choose_kernel("splash", GPU) == "cudnn"


def test_kernels_run_on_each_device_s_own_rows_and_heads():
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "tensor"))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data",)))
    arrays, weights, reach = arrays_of("packed documents")
    double = lambda x: jnp.concatenate([x, x])
    arrays, reach = [double(x) for x in arrays], jax.tree.map(double, reach)
    seen = []

    def kernel(query, key, value, reach):
        seen.append((query.shape, key.shape, reach.key_segment.shape))
        return choice.KERNELS["blocked"](query, key, value, reach)

    function = lambda *a: choice._divided(kernel, a, reach, rows)
    found = with_gradient(function, arrays, np.concatenate([weights, weights]))
    assert set(seen) == {((1, 150, 2, 16), (1, 150, 1, 16), (1, 150))}
    for one, other in zip(found, wanted("packed documents"), strict=True):
        assert_close(one[:2], other, 1e-5)


on_a_gpu = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("kernel", ["cudnn", "flash"])
@pytest.mark.parametrize("case", CASES)
def test_kernels_on_a_gpu(case, kernel, dtype):
    arrays, weights, reach = arrays_of(case, dtype)
    past = arrays[1].shape[1] - arrays[0].shape[1]
    if kernel == "cudnn" and (reach.key_segment is not None or past or dtype == "float32"):
        pytest.skip("cuDNN is not chosen for this")
    found = with_gradient(lambda *a: choice.KERNELS[kernel](*a, reach), arrays, weights)
    for one, other in zip(found, wanted(case), strict=True):
        gap = np.abs(np.asarray(one, np.float32) - other).max()
        assert gap < (0.02 if dtype == "bfloat16" else 1e-5) * np.abs(other).max()


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("segmented", [False, True])
def test_the_choice_on_a_gpu(segmented):
    call = GPU._replace(segmented=segmented)
    assert choice.choose_kernel("auto", call) == ("flash" if segmented else "cudnn")
