"""Metrics: closed forms, definitions written out, merging, precision, cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmdyn import metrics, models
from lmdyn.errors import InputError
from lmdyn.metrics import base
from lmdyn.metrics.entropies import CoefficientEntropies
from tests.helpers import KINDS, assert_close, batch, small

EVERYTHING = metrics.build(metrics.REGISTRY)


def values(results):
    """All numbers of all results, by where they stand."""
    return {
        (r["metric"], r["site"], r["layer"]): r["value"]
        for result in results.values()
        for r in result.rows()
    }


@pytest.fixture(scope="module")
def measured():
    model, params = small()
    batches = [batch(8, 9, 1), batch(8, 9, 2, masked=True)]
    return model, params, batches, metrics.measure(EVERYTHING, model, params, batches)


def test_uniform_coefficients_give_log_F_and_one_active_neuron_gives_zero():
    uniform, single = np.full((2, 35), 0.7), np.eye(2, 35)
    assert_close(CoefficientEntropies(uniform, 1).per_layer, [np.log(35)] * 2, 1e-12)
    assert CoefficientEntropies(single, 1).per_layer.tolist() == [0.0, 0.0]
    assert CoefficientEntropies(uniform, 1).normalized.tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("kind", ["gated", "parallel"])
def test_a_model_built_to_have_it_measures_it(kind):
    """All gates and ups equal: every neuron alike, entropy log F. All but one zero: entropy 0."""
    model, params = small(kind)
    alike = jax.tree.map(jnp.copy, params)
    for name in alike["blocks"]["mlp"]:
        if name != "down":
            kernel = alike["blocks"]["mlp"][name]["kernel"]
            alike["blocks"]["mlp"][name] |= {
                "kernel": jnp.broadcast_to(kernel[:, :, :1], kernel.shape)
            }
    result = metrics.measure(metrics.knowledge_entropy(), model, alike, [batch(2, 7)])
    assert_close(result.per_layer, np.full(3, np.log(35)), 1e-6)

    for name in alike["blocks"]["mlp"]:
        if name != "down":
            kernel = alike["blocks"]["mlp"][name]["kernel"]
            alike["blocks"]["mlp"][name] |= {"kernel": kernel.at[:, :, 1:].set(0.0)}
    result = metrics.measure(metrics.knowledge_entropy(), model, alike, [batch(2, 7)])
    assert_close(result.per_layer + 1, np.ones(3), 1e-6)


def test_every_metric_is_its_definition(measured):
    """Written out on full activations, over the counted tokens of both batches together."""
    model, params, batches, found = measured
    keep = lambda x, mask: x
    seen = {
        site: []
        for site in ("mlp.coefficients", "residual", "final", "attention", "logits", "target")
    }
    for b in batches:
        out = models.forward(
            model,
            params,
            b.inputs,
            taps={
                "mlp.coefficients": keep,
                "residual": keep,
                "final": keep,
                "attention.probabilities": keep,
            },
        )
        count = np.asarray(b.mask)
        seen["mlp.coefficients"].append(np.asarray(out.tapped["mlp.coefficients"])[:, count])
        seen["residual"].append(np.asarray(out.tapped["residual"])[:, count])
        seen["final"].append(np.asarray(out.tapped["final"])[count])
        heads = np.asarray(out.tapped["attention.probabilities"])  # [L, B, G, R, T, S]
        seen["attention"].append(heads.reshape(3, 8, 6, 9, 9).transpose(0, 1, 3, 2, 4)[:, count])
        seen["logits"].append(np.asarray(models.logits(model, params, b.inputs))[count])
        seen["target"].append(np.asarray(b.targets)[count])
    seen = {
        site: np.concatenate(parts, 0 if parts[0].ndim < 3 else 1).astype(np.float64)
        for site, parts in seen.items()
    }

    entropy = lambda p: -np.sum(p * np.log(np.where(p > 0, p, 1)), -1)
    mean = np.abs(seen["mlp.coefficients"]).mean(1)
    assert_close(
        found["knowledge_entropy"].per_layer, entropy(mean / mean.sum(-1, keepdims=True)), 1e-6
    )
    assert_close(
        found["attention_entropy"].per_layer, entropy(seen["attention"]).mean((1, 2)), 1e-5
    )

    shifted = seen["logits"] - seen["logits"].max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    assert_close(found["prediction_entropy"].mean, entropy(np.exp(log_p)).mean(), 1e-5)
    target = seen["target"].astype(int)
    assert_close(found["nll"].nll, -log_p[np.arange(len(target)), target].mean(), 1e-6)

    def pairs(x):  # the O(n^2) definition
        unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
        cosine = unit @ unit.T
        return cosine[~np.eye(len(x), dtype=bool)].mean()

    assert_close(found["anisotropy"].residual, [pairs(x) for x in seen["residual"]], 1e-6)
    assert_close(found["anisotropy"].final, pairs(seen["final"]), 1e-6)
    singular = np.linalg.svd(np.asarray(params["head"]["kernel"], np.float64), compute_uv=False)
    share = singular / singular.sum()
    assert_close(
        found["singular_entropy"].singular_entropy, np.sum(share * np.log(share * len(share))), 1e-6
    )
    assert_close(found["singular_entropy"].values, singular, 1e-6)


def test_merging_over_batches_and_devices_changes_nothing(measured):
    model, params, batches, found = measured
    parts = [metrics.accumulate(EVERYTHING, model, params, [b]) for b in batches]
    merged = EVERYTHING.finish(metrics.merge(*parts), params)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    assert mesh.size == 8
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    spread = metrics.measure(EVERYTHING, model, params, batches, sharding=rows)
    run = jax.jit(
        lambda b: models.forward(model, params, b.inputs, taps={"residual": lambda x, mask: x})
    )
    states = np.concatenate(
        [np.asarray(run(b).tapped["residual"])[:, b.mask] for b in batches], 1
    ).astype(np.float64)
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    pairs = [(u @ u.T)[~np.eye(len(u), dtype=bool)].mean() for u in unit]  # the O(n^2) definition
    for other in (merged, spread):
        for place, value in values(found).items():
            assert values(other)[place] == pytest.approx(value, rel=1e-5), place
        np.testing.assert_allclose(other["anisotropy"].residual, pairs, rtol=0, atol=1e-6)


def test_padding_never_counts(measured):
    model, params, batches, found = measured
    changed = [
        b._replace(inputs=np.where(b.mask, b.inputs, 5), targets=np.where(b.mask, b.targets, 7))
        for b in batches
    ]
    empty = batches[0]._replace(mask=np.zeros_like(batches[0].mask))
    again = metrics.measure(EVERYTHING, model, params, [*changed, empty])
    assert values(again) == values(found)


def test_a_running_mean_over_a_billion_tokens_keeps_six_digits():
    """2^18 batches of 4,096 tokens with sums that float32 cannot add: exact mean by closed form."""
    more = (
        jnp.float32(4096 * 0.1234567).astype(jnp.bfloat16).astype(jnp.float32)
    )  # its multiples are exact

    @jax.jit
    def run(total):
        return jax.lax.fori_loop(0, 2**18, lambda i, s: base.add(s, more * (1 + i % 3)), total)

    total = run(base.zeros()).value()
    wanted = float(more) * sum((1 + i % 3) for i in range(3)) / 3 * 2**18
    wanted -= float(more) * (2 * 2**18 - sum(1 + i % 3 for i in range(2**18)))
    assert total == pytest.approx(wanted, rel=1e-9)
    naive = jax.jit(
        lambda: jax.lax.fori_loop(0, 2**18, lambda i, s: s + more * (1 + i % 3), jnp.float32(0))
    )()
    assert float(naive) != pytest.approx(wanted, rel=1e-6)  # the reason for the care


def compiled(metric, depth=3, unroll=1):
    model = models.LanguageModel(
        dataclasses.replace(KINDS["gated"], depth=depth), models.Compute(unroll=unroll)
    )
    b = batch(4, 128)
    observe = lambda params: models.observe(model, params, b.inputs, b.targets, b.mask, metric.taps)
    return jax.jit(observe).lower(models.shapes(model.config)).compile()


def test_combined_metrics_cost_one_forward():
    flops = lambda names: compiled(metrics.build(names), unroll=3).cost_analysis()["flops"]
    one, all_but_spectra = flops("nll"), flops("nll,knowledge_entropy,anisotropy")
    assert all_but_spectra < 1.15 * one
    assert flops("knowledge_entropy") < one  # no head


def test_memory_does_not_grow_with_depth():
    used = lambda depth: compiled(EVERYTHING, depth).memory_analysis().temp_size_in_bytes
    layer = 4 * 128 * 24 * 4  # one [B, T, D] activation, in bytes
    assert used(48) - used(12) < layer


@pytest.mark.parametrize(
    "names, message",
    [
        ("knowlege_entropy", "did you mean 'knowledge_entropy'"),
        ("", "no metric named"),
        ("nll,x", "unknown metric 'x'"),
    ],
)
def test_misspelt_metrics_list_the_right_ones(names, message):
    with pytest.raises(InputError, match=message):
        metrics.build(names)


def test_nothing_to_measure_is_an_error():
    model, params = small()
    with pytest.raises(InputError, match="no batch"):
        metrics.measure(metrics.likelihood(), model, params, [])


def test_span_log_probability_is_the_mean_over_the_span():
    model, params = small()
    b = batch(2, 9)
    span = np.zeros((2, 9), bool)
    span[0, 3:5], span[1, 8] = True, True
    nll = np.asarray(models.token_nll(model, params, b.inputs, b.targets))
    found = metrics.span_log_probability(model, params, b.inputs, b.targets, span)
    assert_close(found, [-nll[0, 3:5].mean(), -nll[1, 8]], 1e-6)


def test_every_metric_describes_the_rows_that_it_makes(measured):
    rows = EVERYTHING.rows(measured[3])
    described = {q.name: q for q in EVERYTHING.quantities}
    assert {r["metric"] for r in rows} == set(described)
    for r in rows:
        quantity = described[r["metric"]]
        assert quantity.title and quantity.caption and quantity.unit == r["unit"]
        assert quantity.site in (None, r["site"])


def test_a_metric_of_numbers_needs_no_class_for_its_result():
    model, params = small()
    quantity = metrics.Quantity("positive", "Positive coefficients", "share", "mlp")
    reduce = lambda c, mask: jnp.sum((c > 0).mean(-1) * mask)
    site = "mlp.coefficients"
    own = base.sums({site: reduce}, lambda sums, n, params: sums[site] / n, quantity)
    both = base.combine(nll=metrics.likelihood(), own=own)
    found = metrics.measure(both, model, params, [batch(2, 7)])
    rows = both.rows(found)[1:]
    assert [(r["metric"], r["site"], r["layer"], r["unit"]) for r in rows] == [
        ("positive", "mlp", layer, "share") for layer in range(3)
    ]
    assert [r["value"] for r in rows] == list(found["own"])
    with pytest.raises(InputError, match="a metric's result, ndarray, has no rows"):
        dataclasses.replace(own, quantities=()).rows(found["own"])
