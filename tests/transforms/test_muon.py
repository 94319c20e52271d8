"""Muon on stacked layers is optax's, applied to every layer's matrix by itself."""

import jax
import numpy as np
import optax
import pytest

from lmdyn import transforms
from lmdyn.training import Optimizer, make_optimizer

SHAPES = {
    "embed": {"embedding": (7, 4)},
    "blocks": {
        "mlp_norm": {"scale": (3, 4)},
        "mlp": {"up": {"kernel": (3, 4, 6), "bias": (3, 6)}, "down": {"kernel": (3, 6, 4)}},
        "attention": {"query": {"a": (3, 4, 2), "b": (3, 2, 4)}},
    },
    "head": {"kernel": (4, 7)},
}
MATRICES = [("mlp", "up", "kernel"), ("mlp", "down", "kernel")]
MATRICES += [("attention", "query", "a"), ("attention", "query", "b")]


def tree(seed):
    rng = np.random.default_rng(seed)
    draw = lambda shape: rng.normal(size=shape).astype(np.float32)
    return jax.tree.map(draw, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def trained(optimizer, params, gradients):
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def matrix(params, path):
    for name in ("blocks", *path):
        params = params[name]
    return params


@pytest.mark.parametrize("consistent_rms", [None, 0.2])
def test_every_layer_is_updated_by_itself(consistent_rms):
    """Kernels by `optax.contrib.muon` on the matrix of each layer, embedding, head, norms and
    biases by the Adam with Nesterov momentum that it gives them.
    """
    rule = transforms.scale_by_muon(consistent_rms=consistent_rms)
    ours = optax.chain(rule, optax.scale_by_learning_rate(0.02))
    start, gradients = tree(0), [tree(seed) for seed in range(1, 5)]
    found = trained(ours, start, gradients)
    theirs = optax.contrib.muon(0.02, consistent_rms=consistent_rms)
    for path in MATRICES:
        layers = lambda params, path=path: dict(enumerate(matrix(params, path)))  # [D, F] each
        wanted = trained(theirs, layers(start), [layers(g) for g in gradients])
        np.testing.assert_allclose(
            matrix(found, path), np.stack(list(wanted.values())), rtol=1e-4, atol=1e-6
        )
    adam = trained(optax.nadam(0.02), start, gradients)
    for path in [("mlp_norm", "scale"), ("mlp", "up", "bias")]:
        np.testing.assert_allclose(matrix(found, path), matrix(adam, path), rtol=1e-5)
    for name in ("embed", "head"):
        for mine, other in zip(*map(jax.tree.leaves, (found[name], adam[name])), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-5)


def test_training_adds_decay_and_the_learning_rate():
    rule = Optimizer("muon", 0.02, "constant", b2=0.999, weight_decay=0.3, decay="kernels")
    start, gradient = tree(0), jax.tree.map(lambda leaf: 0.01 * leaf, tree(1))
    found = trained(make_optimizer(rule, 9), start, [gradient])
    plain = optax.chain(transforms.scale_by_muon(), optax.scale_by_learning_rate(0.02))
    wanted = trained(plain, start, [gradient])
    for name in ("up", "down"):
        kernel = start["blocks"]["mlp"][name]["kernel"]
        np.testing.assert_allclose(
            found["blocks"]["mlp"][name]["kernel"],
            wanted["blocks"]["mlp"][name]["kernel"] - 0.02 * 0.3 * kernel,
            rtol=1e-5,
            atol=1e-7,
        )
    np.testing.assert_allclose(found["embed"]["embedding"], wanted["embed"]["embedding"], rtol=1e-5)
