"""The pure step: parts of a batch add up, what is frozen stays, documents stay apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmdyn import models
from lmdyn.data import Batch
from lmdyn.params import partition
from lmdyn.training import Optimizer, make_optimizer, make_step, start, whole
from tests import helpers


def run(model, params, batches, optimizer, **options):
    part = options.pop("part", None)
    step = jax.jit(make_step(model, optimizer, part=part, **options))
    state, losses = start(params, optimizer, part), []
    for batch in batches:
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return state, losses


def test_loss_and_update_are_those_of_the_definition():
    model, params = helpers.small()
    batch = helpers.batch(4, 9, masked=True)
    rate = 0.1

    def mean(params):
        nll = models.token_nll(model, params, batch.inputs, batch.targets)
        return jnp.sum(nll * batch.mask) / batch.mask.sum()

    wanted = jax.tree.map(lambda p, g: p - rate * g, params, jax.jit(jax.grad(mean))(params))
    state, losses = run(model, params, [batch], optax.sgd(rate))
    assert abs(losses[0] - float(mean(params))) < 1e-5
    assert int(state.step) == 1
    jax.tree.map(lambda a, b: helpers.assert_close(a, b, 1e-5), state.params, wanted)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_changes_rounding_only(parts):
    model, params = helpers.small()
    batches = [helpers.batch(4, 9, seed, masked=True) for seed in range(3)]
    optimizer = make_optimizer(Optimizer(learning_rate=1e-2, warmup=2), 10)
    once, losses = run(model, params, batches, optimizer)
    again, parted = run(model, params, batches, optimizer, accumulate=parts)
    np.testing.assert_allclose(parted, losses, rtol=1e-5)
    jax.tree.map(
        lambda a, b: helpers.assert_close(a, b, 1e-4), again.params, once.params
    )  # Adam divides by small numbers


def test_what_is_frozen_stays_bit_for_bit_and_has_no_state():
    model, params = helpers.small()
    part = partition(params, "blocks[1:].mlp+final_norm")
    optimizer = optax.adam(1e-2)
    state, _ = run(
        model, params, [helpers.batch(2, 9, seed) for seed in range(3)], optimizer, part=part
    )
    after = whole(state, part)
    chosen, _ = part.split(jax.tree.map(lambda a, b: np.asarray(a) == np.asarray(b), after, params))
    _, kept = part.split(jax.tree.map(lambda a, b: np.asarray(a) == np.asarray(b), after, params))
    assert all(np.all(same) for same in jax.tree.leaves(kept))
    assert not any(np.all(same) for same in jax.tree.leaves(chosen))
    trained = sum(leaf.size for leaf in jax.tree.leaves(part.split(params)[0]))
    assert (
        sum(np.size(leaf) for leaf in jax.tree.leaves(state.optimizer)) == 2 * trained + 1
    )  # two moments and a count


def test_documents_do_not_see_one_another():
    model, params = helpers.small()
    ids = helpers.tokens(13)
    batch = Batch(
        ids[None, :-1],
        ids[None, 1:],
        np.ones([1, 12], bool),
        np.repeat([0, 1], [5, 7])[None].astype(np.int32),
    )
    other = ids.copy()
    other[:5] = (other[:5] + 1) % 61  # another first document
    changed = batch._replace(inputs=other[None, :-1])
    nll = jax.jit(
        lambda p, b: models.token_nll(model, p, b.inputs, b.targets, documents=b.documents),
        static_argnums=(),
    )
    assert np.array_equal(
        np.asarray(nll(params, batch))[0, 5:], np.asarray(nll(params, changed))[0, 5:]
    )
    loose = jax.jit(lambda p, b: models.token_nll(model, p, b.inputs, b.targets))
    assert not np.allclose(
        np.asarray(loose(params, batch))[0, 5:], np.asarray(loose(params, changed))[0, 5:]
    )
    # and the step trains on exactly that
    mean = float(np.mean(np.asarray(nll(params, batch))))
    assert abs(run(model, params, [batch], optax.sgd(0.0))[1][0] - mean) < 1e-5


def test_an_objective_of_ones_own():
    model, params = helpers.small()

    def with_penalty(model, params, batch, weights):
        total, _ = models.loss(model, params, batch.inputs, batch.targets, weights)
        size = jnp.sum(params["final_norm"]["scale"] ** 2)
        return total + 0.5 * size * weights.sum(), {"loss": total, "size": size * weights.sum()}

    step = jax.jit(make_step(model, optax.sgd(0.1), objective=with_penalty, accumulate=2))
    state, metrics = step(start(params, optax.sgd(0.1)), helpers.batch(4, 9))
    assert abs(float(metrics["size"]) - 24) < 1e-4
    assert np.all(np.abs(np.asarray(state.params["final_norm"]["scale"])) < 1)


@functools.cache
def bfloat16():
    model, params = helpers.small()
    return models.LanguageModel(model.config, models.Compute(dtype="bfloat16")), params


def test_bfloat16_has_float32_masters():
    model, params = bfloat16()
    optimizer = make_optimizer(Optimizer(learning_rate=1e-4, warmup=0, schedule="constant"), 10)
    batches = [helpers.batch(2, 9, seed) for seed in range(3)]
    state, losses = run(model, params, batches, optimizer)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.float32.dtype}
    _, wanted = run(helpers.small()[0], params, batches, optimizer)
    np.testing.assert_allclose(losses, wanted, rtol=0.02)  # bfloat16 has 8 bits
    # updates of 1e-4 on weights of about 1 are lost in bfloat16 and kept in float32
    moved = jax.tree.leaves(
        jax.tree.map(
            lambda a, b: float(np.mean(np.asarray(a) != np.asarray(b))), state.params, params
        )
    )
    assert np.mean(moved) > 0.9


@pytest.mark.parametrize("remat", ["mlp", "attention", "dots", "full", "offload"])
def test_remat_changes_rounding_only(remat):
    model, params = helpers.small()
    other = models.LanguageModel(model.config, models.Compute(remat=remat))
    batches = [helpers.batch(2, 9, seed) for seed in range(2)]
    once, losses = run(model, params, batches, optax.sgd(0.1))
    again, same = run(other, params, batches, optax.sgd(0.1))
    np.testing.assert_allclose(same, losses, rtol=1e-5)
    jax.tree.map(lambda a, b: helpers.assert_close(a, b, 1e-5), again.params, once.params)
