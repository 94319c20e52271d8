"""The detector of changes, on planted ones; what an alarm and the guard do to an evaluation."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmdyn import models, online
from lmdyn.errors import InputError
from lmdyn.online import change_detection
from lmdyn.params import flatten
from tests.helpers import assert_close, small, tokens
from tests.online.helpers import evaluate


@functools.cache
def alarms(rule):
    one = lambda xs: jax.lax.scan(
        lambda state, x: change_detection.update_cusum(rule, state, x),
        change_detection.start_cusum(),
        xs,
    )[1]
    return jax.jit(jax.vmap(one))


def by_hand(rule, excess):
    """The definition in float64, one chunk after another."""
    past, risen, found = [], 0.0, []
    for x in excess:
        if len(past) >= rule.warmup:
            risen = max(0.0, risen + (x - np.mean(past)) / np.std(past, ddof=1) - rule.slack)
        past.append(x)
        found.append(risen > rule.threshold)
        if found[-1]:
            past, risen = [], 0.0
    return found


@pytest.mark.parametrize(
    "rule", [online.ChangeDetector(), online.ChangeDetector(threshold=3.0, slack=0.25, warmup=5)]
)
def test_alarms_are_those_of_the_definition(rule):
    rng = np.random.default_rng(0)
    excess = rng.normal(-0.2, 0.3, (6, 200))
    excess[:, 90:] += np.linspace(0.1, 2.0, 6)[:, None]
    found = np.asarray(alarms(rule)(excess.astype(np.float32)))
    wanted = [by_hand(rule, row) for row in excess]
    assert found.sum() > 3
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("noise, apart", [("normal", 8000), ("heavy", 3000)])
def test_false_alarms_are_rare_and_changes_are_found_soon(noise, apart):
    """2,000 streams of 500 chunks: a change after 100, by 1, 2 or 4 deviations."""
    rng = np.random.default_rng(1)
    draw = (
        rng.normal(size=(2000, 500))
        if noise == "normal"
        else rng.standard_t(6, (2000, 500)) / 1.5**0.5
    )
    rule = online.ChangeDetector()
    rate = float(np.mean(alarms(rule)(draw.astype(np.float32))))
    assert (
        rate < 1 / apart
    )  # measured: 1 in 15,900, and 1 in 5,300 for Student's t with 6 degrees of freedom
    for rise, delay in (
        (1, 17),
        (2, 7),
        (4, 3),
    ):  # Siegmund's formula, for a known mean: 17, 5.9 and 2.6 chunks
        shifted = draw.copy()
        shifted[:, 100:] += rise
        found = np.asarray(alarms(rule)(shifted.astype(np.float32)))
        clean = ~found[:, :100].any(1)
        after = found[clean, 100:]
        assert after[:, :200].any(1).mean() > 0.95
        assert np.median(after.argmax(1)) + 1 <= delay


def test_an_excess_that_never_varies_gives_no_alarm():
    assert not alarms(online.ChangeDetector())(jnp.zeros([1, 300])).any()


CHUNK = 5
TEXT = np.concatenate([(tokens(121) * 2) % 61, tokens(120, seed=4)])
PLAIN = dict(chunk=CHUNK, adapt="blocks.mlp")


@functools.cache
def static():
    return evaluate(*small(), TEXT, chunk=CHUNK)


def test_at_an_alarm_the_model_begins_again():
    model, params = small()
    options = dict(optimizer=optax.adam(0.003), **PLAIN)
    found = evaluate(
        model, params, TEXT, reset=online.ChangeDetector(threshold=3.0, warmup=6), **options
    )
    assert found.resets
    cuts = [0, *found.resets, len(TEXT) - 1]
    pieces = [TEXT[a : b + 1] for a, b in itertools.pairwise(cuts)]
    assert_close(found.nll, evaluate(model, params, pieces, reset="document", **options).nll, 1e-5)
    plain = evaluate(model, params, TEXT, **options)
    assert np.abs(found.nll - plain.nll).max() > 0.1
    # the alarms are those of the detector on the excess, taken from outside
    excess = (found.nll - static().nll).reshape(-1, CHUNK).mean(1)
    alarm = np.asarray(
        alarms(online.ChangeDetector(threshold=3.0, warmup=6))(excess[None].astype(np.float32))
    )[0]
    assert tuple((np.flatnonzero(alarm) + 1) * CHUNK) == found.resets
    assert abs(found.flops - plain.flops - static().flops) < 1


def test_a_decayed_copy_lies_between():
    model, params = small()
    options = dict(optimizer=optax.adam(0.003), static=static().nll, **PLAIN)
    rule = functools.partial(online.ChangeDetector, threshold=3.0, warmup=6)
    first = evaluate(model, params, TEXT, reset=rule(), **options).resets[0]
    at = {"tokens": first, "static": static().nll[:first]}
    after = evaluate(model, params, TEXT, reset=rule(back=0.25), **options | at)
    before = evaluate(
        model, params, TEXT[: first - CHUNK + 1], optimizer=options["optimizer"], **PLAIN
    )
    assert after.resets == (first,)
    for path, leaf in flatten(after.adapted).items():
        old, prior = flatten(before.adapted)[path], flatten(params)[path]
        assert_close(leaf - prior, 0.75 * (old - prior), 1e-4)


@pytest.mark.parametrize(
    "rate, context", [(3.0, online.none()), (1e30, online.none()), (1e30, online.cache(8))]
)
def test_the_guard_stops_what_diverges(rate, context):
    model, params = small()
    options = dict(optimizer=optax.sgd(rate), context=context, chunk=CHUNK, adapt="head+blocks.mlp")
    still = evaluate(model, params, TEXT, chunk=CHUNK, context=context)
    loose = evaluate(model, params, TEXT, **options)
    assert not loose.mean < still.mean + 1  # it diverges, or is not a number
    found = evaluate(model, params, TEXT, guard=10.0, **options)
    assert np.isfinite(found.nll).all()
    np.testing.assert_array_equal(found.nll[found.stopped :], still.nll[found.stopped :])
    lost = np.cumsum(found.nll - still.nll)
    assert (lost[: found.stopped - CHUNK : CHUNK] <= 10).all()
    assert lost[-1] == lost[found.stopped - 1]
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


def test_the_guard_leaves_the_others_alone():
    model, params = small()
    options = dict(optimizer=optax.sgd(0.1), **PLAIN)
    found = evaluate(model, params, TEXT, guard=10.0, **options)
    assert found.stopped is None
    assert_close(found.nll, evaluate(model, params, TEXT, **options).nll, 1e-6)


def test_several_steps_a_chunk_and_one_every_few_chunks():
    model, params = small()
    text, weights = TEXT[:31], np.full((1, CHUNK), 1 / CHUNK, np.float32)

    @jax.jit
    def step(params, inputs, targets):
        def objective(params):
            total, (nll, _) = models.loss(model, params, inputs, targets, weights)
            return total, nll[0]

        return jax.grad(objective, has_aux=True)(params)

    def by_hand(steps, every):
        now, held, wanted = params, [], []
        for start in range(0, 30, CHUNK):
            piece = text[None, start : start + CHUNK + 1]
            for number in range(steps):
                slope, nll = step(now, piece[:, :-1], piece[:, 1:])
                held.append(slope)
                if number == 0:
                    wanted.append(nll)
                if len(held) == every:
                    now = jax.tree.map(lambda p, *slopes: p - 0.2 * sum(slopes) / every, now, *held)
                    held = []
        return np.concatenate(wanted)

    run = functools.partial(evaluate, model, params, chunk=CHUNK)
    twice = run(text, optimizer=optax.sgd(0.2), steps=2)
    assert_close(twice.nll, by_hand(2, 1), 1e-4)
    assert twice.flops == 2 * run(text, optimizer=optax.sgd(0.2)).flops
    assert_close(run(text, optimizer=optax.sgd(0.2), every=2).nll, by_hand(1, 2), 1e-4)
    lanes = dict(optimizer=optax.sgd(0.2), steps=2, reset="document")
    assert_close(
        run([text, text[:17]], parallel=2, **lanes).nll, run([text, text[:17]], **lanes).nll, 1e-5
    )


GROWING = optax.GradientTransformation(
    lambda params: (), lambda updates, state, params=None: (updates, (*state, params))
)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(reset="change"), "unknown reset 'change'"),
        (dict(steps=0), "steps=0"),
        (dict(guard=-1.0), "guard=-1.0"),
        (dict(guard=1.0, static=np.zeros(3)), "static has shape"),
        (dict(guard=1.0, parallel=2, reset="document"), "no guard"),
        (dict(optimizer=GROWING), "state has another form"),
    ],
)
def test_bad_input_is_one_clear_line(options, message):
    with pytest.raises(InputError, match=message) as error:
        evaluate(*small(), TEXT, **dict(optimizer=optax.sgd(0.1), chunk=CHUNK) | options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [dict(threshold=0.0), dict(slack=-1.0), dict(warmup=1), dict(back=0.0), dict(back=1.5)],
)
def test_a_rule_that_makes_no_sense_is_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        online.ChangeDetector(**options)
