"""The forward pass: caches, documents, cut stacks, taps, the fused loss, compile time."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmdyn import models
from lmdyn.errors import InputError
from lmdyn.models.heads import head_of
from lmdyn.params import flatten, partition
from tests.helpers import KINDS, assert_close, jit_logits, small, tokens


@pytest.mark.parametrize("kind", KINDS)
def test_cached_continuation_equals_the_full_forward(kind):
    model, params = small(kind)
    ids = tokens(21)[None]
    full = jit_logits(model, params, ids)
    cache, found, head = models.new_cache(model, 1, 21), [], head_of(model.config)
    run = jax.jit(lambda p, part, cache: models.forward(model, p, part, cache=cache))
    for part in (ids[:, :9], ids[:, 9:10], ids[:, 10:]):
        out = run(params, part, cache)
        cache = out.cache
        found.append(head.logits(head.matrices(params), out.states[0])[None])
    assert_close(jnp.concatenate(found, 1), full, 1e-5)


def test_a_short_cache_forgets():
    model, params = small()
    ids = tokens(21)[None]
    cache = models.forward(model, params, ids[:, :20], cache=models.new_cache(model, 1, 4)).cache
    assert cache["position"].tolist() == [[16, 17, 18, 19]]


def test_documents_do_not_see_each_other():
    model, params = small()
    first, second = tokens(9, 1), tokens(8, 2)
    alone = models.logits(model, params, second[None])
    documents = np.array([[0] * 9 + [1] * 8])
    together = models.logits(
        model, params, np.concatenate([first, second])[None], documents=documents
    )
    assert_close(together[:, 9:], alone, 1e-5)  # rotary positions are relative


@pytest.mark.parametrize(
    "selector", ["all", "head", "blocks[1].mlp", "blocks[0]+blocks[2].attention.query", "embed"]
)
def test_cut_stacks_give_the_same_loss_and_gradient(selector):
    model, params = small()
    inputs, targets = tokens(13)[None, :-1], tokens(13)[None, 1:]
    weights = np.full(targets.shape, 1 / targets.size, np.float32)
    part = partition(params, selector)
    chosen, rest = part.split(params)
    loss = lambda p: models.loss(model, p, inputs, targets, weights)[0]
    whole, wanted = jax.jit(jax.value_and_grad(loss))(params)
    cut, found = jax.jit(jax.value_and_grad(lambda c, r: loss(part.merge(c, r))))(chosen, rest)
    assert_close(cut, whole, 1e-6)
    for path, gradient in flatten(found).items():
        layers = part.chosen[path]
        full = flatten(wanted)[path]
        assert_close(gradient, full if layers is None else full[np.array(layers)], 1e-4)
    for path, leaf in flatten(part.join(chosen, rest)).items():
        np.testing.assert_array_equal(leaf, flatten(params)[path])


def test_the_gradient_of_token_nll_is_that_of_the_loss():
    model, params = small()
    inputs, targets = tokens(13)[None, :-1], tokens(13)[None, 1:]
    weights = np.full(targets.shape, 1 / targets.size, np.float32)
    fused = jax.jit(jax.grad(lambda p: models.loss(model, p, inputs, targets, weights)[0]))(params)
    plain = jax.jit(jax.grad(lambda p: models.token_nll(model, p, inputs, targets).mean()))(params)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), fused, plain)


def test_taps_give_every_layer_and_cost_no_head():
    model, params = small()
    ids = tokens(8)[None]
    keep = lambda x, mask: x
    out = models.forward(
        model, params, ids, taps={"residual": keep, "mlp.coefficients": keep, "final": keep}
    )
    assert out.tapped["residual"].shape == (4, 1, 8, 24)
    assert out.tapped["mlp.coefficients"].shape == (3, 1, 8, 35)
    np.testing.assert_array_equal(out.tapped["final"], out.states)
    count = {"mlp.coefficients": lambda c, mask: jnp.sum(c)}
    compiled = (
        jax.jit(lambda p: models.observe(model, p, ids, ids, ids > -1, count))
        .lower(params)
        .compile()
    )
    assert ",61]" not in compiled.as_text()  # nothing of the shape of logits


def test_an_unknown_site_lists_the_known():
    model, params = small()
    with pytest.raises(InputError, match=r"did you mean 'mlp\.coefficients'"):
        models.forward(model, params, tokens(3)[None], taps={"mlp.coeficients": lambda x, m: x})


def test_bfloat16_stays_within_its_rounding():
    model, params = small()
    ids = tokens(31)[None]
    exact = models.logits(model, params, ids)
    rough = models.logits(
        models.LanguageModel(model.config, models.Compute(dtype="bfloat16")), params, ids
    )
    gap = np.sqrt(np.mean((np.asarray(rough) - exact) ** 2) / np.mean(np.square(exact)))
    assert 0 < gap < 3 * 2**-8 * np.sqrt(model.config.depth * 2), (
        gap
    )  # 8 bits, about 3 roundings a sublayer


@pytest.mark.parametrize("compute", [models.Compute(unroll=3), models.Compute(remat="full")])
def test_how_it_runs_does_not_change_what_it_computes(compute):
    model, params = small()
    inputs, targets = tokens(140)[None, :-1], tokens(140)[None, 1:]
    weights = np.full(targets.shape, 1 / targets.size, np.float32)
    run = lambda m: jax.jit(
        jax.value_and_grad(lambda p: models.loss(m, p, inputs, targets, weights)[0])
    )(params)
    wanted, found = run(model), run(models.LanguageModel(model.config, compute))
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), found, wanted)


def test_compile_time_does_not_grow_with_depth():
    import dataclasses

    def seconds(depth):
        model = models.LanguageModel(dataclasses.replace(KINDS["gated"], depth=depth))
        ids = jax.ShapeDtypeStruct((1, 16), jnp.int32)
        objective = lambda p, i: jnp.sum(models.logits(model, p, i))
        start = time.perf_counter()
        jax.jit(jax.grad(objective)).lower(models.shapes(model.config), ids).compile()
        return time.perf_counter() - start

    jax.config.update("jax_enable_compilation_cache", False)
    try:
        seconds(2)  # first use of everything
        deep, shallow = min(seconds(48), seconds(47)), min(seconds(6), seconds(5))
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert deep < 1.5 * shallow, (deep, shallow)


@pytest.mark.parametrize(
    "change, word",
    [
        ({"kv_heads": 4}, "kv_heads=4"),
        ({"depth": 0}, "depth=0"),
        ({"norm": "batch"}, "batch"),
        ({"head_width": 5}, "rotary"),
    ],
)
def test_impossible_configs_are_refused(change, word):
    import dataclasses

    with pytest.raises(InputError, match=word):
        dataclasses.replace(KINDS["gated"], **change)
