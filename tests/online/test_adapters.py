"""Low-rank adapters learn online as they do in PyTorch, and in training steps; the body stays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from lmdyn import online, training
from lmdyn.params import low_rank
from tests import helpers
from tests.helpers import assert_close, small, tokens
from tests.online import reference
from tests.online.helpers import evaluate

TEXT = tokens(20 * 7 + 1)


def test_adamw_on_adapters_is_that_of_pytorch_chunk_by_chunk():
    model, params = small()
    where = low_rank("blocks[1:].mlp", rank=3, scale=2.0, seed=5)
    found = evaluate(
        model, params, TEXT, optimizer=optax.adamw(0.01, weight_decay=0.1), chunk=7, adapt=where
    )

    theirs = reference.llama()
    fresh = where.partition(params).init(params)["blocks"]["mlp"]
    for layer in (1, 2):
        mlp = theirs.model.layers[layer].mlp
        for name, leaf in fresh.items():
            beside = reference.LowRank(
                getattr(mlp, f"{name}_proj"), leaf["a"][layer - 1], leaf["b"][layer - 1], 2.0
            )
            setattr(mlp, f"{name}_proj", beside)
    trained = [p for name, p in theirs.named_parameters() if name.endswith((".a", ".b"))]
    optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.1)
    static = reference.online(theirs, TEXT, 7, lambda: None)
    wanted = reference.online(theirs, TEXT, 7, optimizer.step)
    assert len(trained) == 12
    assert np.abs(wanted - static)[-70:].max() > 0.1  # it learns something
    assert_close(found.nll, wanted, 1e-4)
    for name in fresh:
        for side in ("a", "b"):
            last = [
                getattr(getattr(theirs.model.layers[i].mlp, f"{name}_proj"), side).detach().numpy()
                for i in (1, 2)
            ]
            assert_close(found.adapted["blocks"]["mlp"][name][side], last, 1e-4)
    merged = evaluate(model, found.params, TEXT, chunk=7)
    assert_close(merged.nll, reference.online(theirs, TEXT, 7, lambda: None), 1e-4)


@pytest.mark.optimized
@pytest.mark.parametrize("context", [online.none(), online.cache(11), online.overlap(12)], ids=str)
def test_rate_zero_equals_static_bit_for_bit(context):
    model, params = small()
    options = dict(chunk=5, context=context, reset="document")
    documents = [TEXT[:33], TEXT[40:60]]
    static = evaluate(model, params, documents, **options)
    where = low_rank("blocks.attention+blocks.mlp", rank=2)
    still = evaluate(model, params, documents, optimizer=optax.sgd(0.0), adapt=where, **options)
    np.testing.assert_array_equal(still.nll, static.nll)
    jax.tree.map(np.testing.assert_array_equal, still.params, params)


def test_a_training_step_trains_adapters_alone():
    model, params = small()
    part = low_rank("blocks[0,2].attention", rank=2).partition(params)
    optimizer = optax.adam(0.01)
    batches = [helpers.batch(2, 9, seed) for seed in range(3)]
    step = jax.jit(training.make_step(model, optimizer, part=part, accumulate=2))
    state = training.start(params, optimizer, part)
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert (
        sum(np.size(leaf) for leaf in jax.tree.leaves(state.optimizer)) == 2 * trained + 1
    )  # two moments and a count

    def objective(leaves, batch):  # with merged matrices, written out for the two layers
        attention = params["blocks"]["attention"]
        merged = {
            name: {
                "kernel": attention[name]["kernel"].at[jnp.array([0, 2])].add(leaf["a"] @ leaf["b"])
            }
            for name, leaf in leaves["blocks"]["attention"].items()
        }
        whole = {**params, "blocks": {**params["blocks"], "attention": merged}}
        return training.train_step.likelihood(model, whole, batch, batch.mask / batch.mask.sum())[0]

    slope, wanted = jax.jit(jax.grad(objective)), state.params
    moments = optimizer.init(wanted)
    for batch in batches:
        state, _ = step(state, batch)
        updates, moments = optimizer.update(slope(wanted, batch), moments)
        wanted = optax.apply_updates(wanted, updates)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), state.params, wanted)
    after = training.whole(state, part)
    moved = (
        after["blocks"]["attention"]["query"]["kernel"]
        != params["blocks"]["attention"]["query"]["kernel"]
    )
    assert moved.any((1, 2)).tolist() == [True, False, True]
    jax.tree.map(np.testing.assert_array_equal, after["blocks"]["mlp"], params["blocks"]["mlp"])
