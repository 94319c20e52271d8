"""Dynamic evaluation: the order of scoring and learning, contexts, resets, what adapts, cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmdyn import costs, models, online
from lmdyn.errors import InputError
from lmdyn.models import modules
from lmdyn.models.heads import head_of
from lmdyn.online import lanes
from lmdyn.params import LowRank, flatten, low_rank, partition, select
from tests.helpers import KINDS, assert_close, small, textbook, tokens
from tests.online.helpers import chunked, evaluate

CONTEXTS = [online.none(), online.cache(11), online.cache(3), online.overlap(12), online.overlap(5)]
TEXT = tokens(48)


token_nll = jax.jit(models.token_nll, static_argnums=0)
gradient = jax.jit(
    lambda model, *args: jax.grad(lambda p: models.loss(model, p, *args[1:])[0])(args[0]),
    static_argnums=0,
)


def by_hand(kind, text, rate, chunk, context, swapped=False):
    """Scores and learns chunk by chunk in a Python loop, with plain attention masks and no cache
    code.
    """
    model, params = small(kind)
    nll = []
    for start in range(0, len(text) - 1, chunk):
        stop = min(start + chunk, len(text) - 1)
        begin = start if context.kind == "none" else max(0, stop - context.window)
        inputs, targets = text[None, begin:stop], text[None, begin + 1 : stop + 1]
        weights = np.zeros(targets.shape, np.float32)
        weights[:, start - begin :] = 1 / (stop - start)
        before = token_nll(model, params, inputs, targets)
        params = jax.tree.map(
            lambda p, g: p - rate * g, params, gradient(model, params, inputs, targets, weights)
        )
        scored = token_nll(model, params, inputs, targets) if swapped else before
        nll.append(scored[0, start - begin :])
    return np.concatenate(nll), params


@pytest.mark.parametrize("context", [online.none(), online.overlap(12)])
def test_it_is_score_then_learn(context):
    model, params = small()
    text = TEXT[:33]  # the last chunk is ragged
    wanted, last = by_hand("gated", text, 0.3, 5, context)
    outcome = evaluate(model, params, text, optimizer=optax.sgd(0.3), chunk=5, context=context)
    assert_close(outcome.nll, wanted, 1e-4)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-3), outcome.params, last)
    cheating, _ = by_hand("gated", text, 0.3, 5, context, swapped=True)
    assert np.abs(outcome.nll - cheating).max() > 0.01  # scoring after the update would be seen


@pytest.mark.optimized
@pytest.mark.parametrize("context", CONTEXTS, ids=str)
@pytest.mark.parametrize("reset", ["never", "document"])
def test_rate_zero_equals_static_bit_for_bit(context, reset):
    model, params = small()
    options = dict(chunk=5, context=context, reset=reset, end_of_text=0)
    documents = [TEXT, TEXT[7:20], TEXT[3:33]]
    static = evaluate(model, params, documents, **options)
    still = evaluate(model, params, documents, optimizer=optax.sgd(0.0), **options)
    np.testing.assert_array_equal(still.nll, static.nll)
    jax.tree.map(np.testing.assert_array_equal, still.params, params)


@pytest.mark.parametrize("kind", ["gated", "parallel", "output_norm"])
def test_cache_without_adaptation_is_a_full_forward_over_the_same_reach(kind, monkeypatch):
    model, params = small(kind)
    ids, chunk = TEXT[None], 5
    everything = evaluate(model, params, TEXT, chunk=chunk, context=online.cache(47))
    assert_close(everything.nll, models.token_nll(model, params, ids[:, :-1], ids[:, 1:])[0], 1e-5)

    window = 7  # query t of chunk i sees keys from 7 before the chunk's start on, in every layer
    short = evaluate(model, params, TEXT, chunk=chunk, context=online.cache(window))
    length = len(TEXT) - 1
    begin = np.arange(length) // chunk * chunk - window
    allowed = (np.arange(length)[None] <= np.arange(length)[:, None]) & (
        np.arange(length)[None] >= begin[:, None]
    )

    # The textbook formula with a mask, so that what is tested does not test itself.
    banded = lambda query, key, value, *_, **__: (textbook(query, key, value, allowed[None]), None)
    monkeypatch.setattr(modules, "attend", banded)
    states = models.forward(model, params, ids[:, :-1]).states
    head = head_of(model.config)
    logits = head.logits(head.matrices(params), states[0])
    wanted = -jnp.take_along_axis(jax.nn.log_softmax(logits), ids[0, 1:, None], 1)[:, 0]
    assert_close(short.nll, wanted, 1e-5)


@pytest.mark.parametrize("chunk, window, keep", [(5, 12, 3), (7, 8, 7), (3, 9, 1), (5, 5, 4)])
def test_a_cache_keeps_the_first_tokens(chunk, window, keep):
    """By lists of tokens: at every chunk, the first ones and the last ones of all that came before,
    in order.
    """
    model, params = small()
    found = evaluate(model, params, TEXT, chunk=chunk, context=online.cache(window, keep=keep)).nll
    run = jax.jit(
        lambda inputs, targets, cache, positions: models.loss(
            model,
            params,
            inputs,
            targets,
            jnp.ones(targets.shape),
            cache=cache,
            positions=positions,
        )[1]
    )
    past, wanted = {"key": [], "value": []}, []
    for start in range(0, len(TEXT) - 1, chunk):
        inputs, targets = (
            TEXT[None, start : start + chunk],
            TEXT[None, start + 1 : start + chunk + 1],
        )
        inputs = inputs[:, : targets.shape[1]]
        seen = [i for i in range(start) if i < keep or i >= start - (window - keep)]
        empty = window - len(seen)
        cache = models.new_cache(model, 1, window)
        for name, tokens_so_far in past.items():
            for slot, i in enumerate(seen):
                cache[name] = cache[name].at[:, :, empty + slot].set(tokens_so_far[i])
        places = np.arange(window)
        cache["position"] = jnp.where(places >= empty, places, -1)[None]
        nll, out = run(inputs, targets, cache, window + np.arange(inputs.shape[1])[None])
        for name, tokens_so_far in past.items():
            tokens_so_far += [
                out.cache[name][:, :, window - inputs.shape[1] + i] for i in range(inputs.shape[1])
            ]
        wanted.append(nll[0])
    assert_close(found, np.concatenate(wanted), 1e-5)
    if window < 12:
        plain = evaluate(model, params, TEXT, chunk=chunk, context=online.cache(window)).nll
        assert np.abs(found - plain).max() > 0.01


def test_cache_learns_without_gradient_through_the_past():
    """Three chunks by hand: keys and values of earlier chunks are constants of the parameters that
    made them.
    """
    model, params = small()
    text, chunk, rate, window = tokens(16), 5, 0.3, 11
    found = evaluate(
        model, params, text, optimizer=optax.sgd(rate), chunk=chunk, context=online.cache(window)
    ).nll
    cache, wanted = models.new_cache(model, 1, window), []

    @jax.jit
    def cached(params, inputs, targets, weights, cache):
        def objective(params):
            total, (nll, out) = models.loss(model, params, inputs, targets, weights, cache=cache)
            return total, (nll, out.cache)

        return jax.grad(objective, has_aux=True)(params)

    for start in range(0, 15, chunk):
        inputs, targets = (
            text[None, start : start + chunk],
            text[None, start + 1 : start + chunk + 1],
        )
        frozen = jax.lax.stop_gradient(cache)
        weights = np.full((1, chunk), 1 / chunk, np.float32)
        slope, (nll, cache) = cached(params, inputs, targets, weights, frozen)
        wanted.append(nll[0])
        params = jax.tree.map(lambda p, g: p - rate * g, params, slope)
    assert_close(found, np.concatenate(wanted), 1e-4)


def test_documents_start_afresh_and_order_does_not_matter():
    model, params = small()
    documents = [tokens(23, 1), tokens(9, 2), tokens(31, 3)]
    options = dict(optimizer=optax.adam(0.01), chunk=5, context=online.cache(8), reset="document")
    alone = [evaluate(model, params, [d], **options).nll for d in documents]
    together = evaluate(model, params, documents, **options).nll
    shuffled = evaluate(model, params, documents[::-1], **options).nll
    assert_close(together, np.concatenate(alone), 1e-6)
    assert_close(shuffled, np.concatenate(alone[::-1]), 1e-6)


@pytest.mark.parametrize(
    "selector", ["blocks[1].mlp", "head", "blocks[0:2].attention.query+blocks[2]"]
)
def test_only_what_is_selected_changes(selector):
    model, params = small()
    outcome = evaluate(model, params, TEXT, optimizer=optax.sgd(0.1), chunk=7, adapt=selector)
    chosen = select(params, selector)
    before, after = flatten(params), flatten(outcome.params)
    for path, leaf in before.items():
        layers = chosen.get(path, ())
        if layers is None:
            assert np.abs(after[path] - leaf).max() > 0
            continue
        depth = leaf.shape[0] if path[0] == "blocks" else 1
        for layer in range(depth):
            same = (
                np.array_equal(after[path][layer], leaf[layer])
                if path[0] == "blocks"
                else np.array_equal(after[path], leaf)
            )
            assert same == (layer not in layers), (path, layer)
    everything = partition(params, "all")
    part = partition(params, selector)
    chunks = chunked(TEXT, chunk=7, context=online.none())
    assert costs.evaluation_flops(
        model.config, chunks.sizes(online.none()), part
    ) < costs.evaluation_flops(model.config, chunks.sizes(online.none()), everything)


def test_donated_parameters_give_the_same_numbers():
    model, params = small()
    kept = evaluate(model, params, TEXT, optimizer=optax.sgd(0.1), chunk=5)
    given = evaluate(
        model, jax.tree.map(jnp.copy, params), TEXT, optimizer=optax.sgd(0.1), chunk=5, donate=True
    )
    np.testing.assert_array_equal(given.nll, kept.nll)
    jax.tree.map(np.testing.assert_array_equal, given.params, kept.params)


def test_pieces_with_a_progress_bar_give_the_same_numbers(monkeypatch):
    import importlib

    module = importlib.import_module("lmdyn.online.dynamic_evaluation")
    model, params = small()
    options = dict(optimizer=optax.adam(0.01), chunk=5, context=online.cache(8))
    whole = evaluate(model, params, TEXT[:46], **options).nll
    monkeypatch.setattr(
        module,
        "_pieces",
        lambda parts, flops: [
            jax.tree.map(lambda a, i=i: a[i : i + 3], parts) for i in range(0, 9, 3)
        ],
    )
    np.testing.assert_array_equal(
        evaluate(model, params, TEXT[:46], progress=True, **options).nll, whole
    )


@pytest.mark.parametrize(
    "context", [online.none(), online.cache(128), online.overlap(384)], ids=str
)
@pytest.mark.parametrize(
    "selector",
    [None, "all", "blocks[1:].mlp", "head", low_rank("blocks[1:].mlp", rank=32)],
    ids=str,
)
def test_cost_is_what_the_compiler_counts(context, selector):
    """Within 5% of XLA's own count on the unrolled program, at a width where matrix products
    dominate.
    """
    formula, counted = counts(context, selector, parallel=1)
    assert abs(formula / counted - 1) < 0.05, (formula, counted)


@pytest.mark.parametrize(
    "selector", [None, "blocks[2].attention", low_rank("blocks.mlp", rank=32)], ids=str
)
def test_cost_of_lanes_is_what_the_compiler_counts(selector):
    formula, counted = counts(online.cache(128), selector, parallel=3)
    assert abs(formula / counted - 1) < 0.05, (formula, counted)


def counts(context, selector, parallel):
    """FLOPs of one chunk (a lane) by formula and by the compiler."""
    config = dataclasses.replace(
        KINDS["gated"], width=512, head_width=64, mlp_width=1024, vocab=2048, positions=512
    )
    model = models.LanguageModel(config, models.Compute(unroll=3))
    shapes = models.shapes(config)
    adapters = isinstance(selector, LowRank)
    part = selector.partition(shapes) if adapters else selector and partition(shapes, selector)
    chosen, rest = jax.eval_shape(part.split, shapes) if part else (None, shapes)
    optimizer = optax.sgd(0.1) if part else None
    adaptation = online.Adaptation(model, part, optimizer, context)
    carry = jax.eval_shape(lambda c: online.start(adaptation, c), chosen)
    documents = [tokens(257, seed, vocab=2048) for seed in range(parallel)]
    chunks = chunked(documents, chunk=256, context=context, reset="document")
    core, placed = online.adapt, chunks
    if parallel > 1:
        core, placed = (
            lanes.adapt_lanes,
            lanes.place_chunks(chunks, lanes.schedule(chunks.first, parallel)),
        )
        carry = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((parallel, *leaf.shape), leaf.dtype), carry
        )
    run = lambda rest, carry: core(adaptation, None, rest, carry, placed)
    counted = jax.jit(run).lower(rest, carry).compile().cost_analysis()["flops"]
    return costs.evaluation_flops(config, chunks.sizes(context), part), counted


@pytest.mark.parametrize(
    "kind, options, message",
    [
        ("gated", dict(chunk=0), "chunk=0"),
        ("gated", dict(chunk=9, context=online.overlap(8)), "chunk=9 is longer than window=8"),
        ("gated", dict(context=online.cache(0)), "window=0"),
        ("gated", dict(chunk=5, context=online.cache(8, keep=8)), "keep=8: a cache keeps fewer"),
        ("gated", dict(chunk=5, context=online.cache(8, keep=6)), "no more than chunk=5"),
        ("gated", dict(chunk=5, context=online.cache(8, keep=-1)), "keep=-1"),
        ("gated", dict(chunk=9, context=online.cache(8, keep=2)), "needs chunk<=window"),
        ("learned", dict(context=online.cache(8)), "rotary"),
        (
            "learned",
            dict(context=online.overlap(401), chunk=4),
            "window=401 exceeds the model's 400 positions",
        ),
        ("learned", dict(chunk=401), "chunk=401 exceeds"),
        ("gated", dict(adapt="blocks[3].mlp"), "layer 3"),
        ("learned", dict(adapt="head", chunk=8), "tied"),
        ("gated", dict(adapt="blocks.mpl"), "attention, attention_norm, mlp, mlp_norm"),
        ("gated", dict(reset="documents"), "did you mean 'document'"),
        ("gated", dict(tokens=0), "tokens=0"),
        ("narrow", {}, "token id 60 at position"),
    ],
)
def test_bad_input_is_one_clear_line(kind, options, message):
    model, params = small("gated" if kind == "narrow" else kind)
    if kind == "narrow":
        model = models.LanguageModel(dataclasses.replace(model.config, vocab=60))
    with pytest.raises(InputError, match=message.replace("[", r"\[")) as error:
        evaluate(model, params, TEXT, optimizer=optax.sgd(0.1), **options)
    assert "\n" not in str(error.value)
