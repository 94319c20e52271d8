"""Every family computes what `transformers` computes: logits, and every parameter's gradient."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from lmdyn import models
from lmdyn.checkpoints.formats.folder import read_folder
from lmdyn.models.heads import head_of
from tests.checkpoints.cases import CASES

pytest.importorskip("transformers")


def distance(ours, theirs) -> float:
    """Largest difference, relative to the scale of `theirs`."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def run(config, params, tokens):
    """Logits `[B, T - 1, V]`, and the gradient of the mean next-token loss, in one compilation."""
    model = models.LanguageModel(config, models.Compute(dtype="float32"))
    weights = np.full(tokens[:, 1:].shape, 1 / tokens[:, 1:].size, np.float32)

    def loss(params):
        total, (_, forward) = models.loss(model, params, tokens[:, :-1], tokens[:, 1:], weights)
        head = head_of(model.config)
        logits = jax.vmap(lambda states: head.logits(head.matrices(params), states))
        return total, logits(forward.states)

    quick = {"xla_backend_optimization_level": 0}  # compiling takes longer than running
    gradients, logits = jax.jit(jax.grad(loss, has_aux=True), compiler_options=quick)(params)
    return logits, gradients


@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients_agree_with_transformers(name, reference, record_property):
    expected = reference(name)
    config, params = read_folder(expected.folder)
    logits, gradients = run(config, params, expected.tokens.astype(np.int32))
    far = {"logits": distance(logits, expected.logits[:, :-1])}
    wanted = traverse_util.flatten_dict(read_folder(expected.gradients).params, sep="/")
    found = traverse_util.flatten_dict(gradients, sep="/")
    assert found.keys() == wanted.keys()
    scale = max(np.abs(g).max() for g in wanted.values())
    for path, gradient in wanted.items():
        if (
            np.abs(gradient).max() < 1e-6 * scale
        ):  # a key's bias moves all scores of a query alike: its gradient is rounding
            assert np.abs(found[path]).max() < 1e-5 * scale, path
        else:
            far[path] = distance(found[path], gradient)
    worst = max(far, key=far.get)
    record_property("worst", f"{name}: logits {far['logits']:.1e}, {worst} {far[worst]:.1e}")
    print(f"{name}: logits {far['logits']:.1e}, worst {worst} {far[worst]:.1e}")
    assert far[worst] < 1e-4, (worst, far[worst])
