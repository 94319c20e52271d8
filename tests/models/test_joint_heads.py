"""Heads of other kinds inside a whole model: the same numbers as the head alone on the model's
states, everywhere a model is used.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmdyn import data, metrics, models, online, training
from lmdyn.checkpoints import hf_config
from lmdyn.errors import InputError
from lmdyn.metrics import probe_scores
from lmdyn.models.heads import Head, head_of, make_head, project
from tests.helpers import SMALL, assert_close, batch

KINDS = ("low_rank:5", "mixture:2", "sigsoftmax", "projected:31")


@pytest.fixture(scope="module", params=KINDS)
def made(request):
    model = models.LanguageModel(dataclasses.replace(SMALL, depth=2, head=request.param))
    matrices = lambda path, leaf: leaf * 4 if path[-1].key in ("kernel", "embedding") else leaf
    return model, jax.tree_util.tree_map_with_path(matrices, models.init(model, seed=1))


def written_out(model, params, inputs):
    """`log p` from the model's states by the papers' formulas, in float64."""
    from tests.models.test_heads import gelu, softmax

    x = np.asarray(models.forward(model, params, inputs).states, np.float64)
    p = {name: np.asarray(part["kernel"], np.float64) for name, part in params["head"].items()}
    kind, width = model.config.head.partition(":")[0], x.shape[-1]
    if kind == "low_rank":
        return np.log(softmax(x @ p["down"] @ p["output"]))
    if kind == "projected":
        return np.log(softmax(gelu(x @ p["wide"]) @ p["output"]))
    if kind == "sigsoftmax":
        z = x @ p["output"]
        return np.log(softmax(z - np.log1p(np.exp(-z))))
    parts = [
        softmax(np.tanh(x @ p["latent"][:, k * width : (k + 1) * width]) @ p["output"])
        for k in range(2)
    ]
    return np.log(sum(softmax(x @ p["prior"])[..., [k]] * parts[k] for k in range(2)))


def test_every_use_of_a_model_sees_its_head(made):
    model, params = made
    b = batch(3, 7, masked=True)
    log_p = written_out(model, params, b.inputs)
    nll = -np.take_along_axis(log_p, b.targets[..., None], -1)[..., 0]
    weights = b.mask / b.mask.sum()
    uses = jax.jit(
        lambda p: (
            models.loss(model, p, b.inputs, b.targets, weights)[:2],
            models.token_nll(model, p, b.inputs, b.targets),
            models.logits(model, p, b.inputs),
        )
    )
    (total, (each, _)), differentiable, logits = uses(params)
    assert_close(total, (nll * weights).sum(), 1e-5)
    assert_close(each, nll, 1e-5)
    assert_close(differentiable, nll, 1e-5)
    assert_close(logits, log_p, 1e-5)
    metric = metrics.combine(nll=metrics.likelihood(), entropy=metrics.prediction_entropy())
    found = metrics.measure(metric, model, params, [b])
    assert found["nll"].nll == pytest.approx(nll[b.mask].mean(), rel=1e-5)
    assert found["entropy"].mean == pytest.approx(
        -(np.exp(log_p) * log_p).sum(-1)[b.mask].mean(), rel=1e-5
    )
    probes = data.ProbeBatch(b.inputs, b.targets, b.mask & (np.arange(7) > 1), b.mask)
    inside = [n[span].mean() for n, span in zip(nll, probes.span, strict=True)]
    assert_close(
        probe_scores.score_probes(model, params, probes).log_probability, np.negative(inside), 1e-5
    )


def test_a_head_is_trained_with_its_body(made):
    model, params = made
    if model.config.head not in ("mixture:2", "projected:31"):
        pytest.skip(
            "two kinds will do: the gradients of all are held against plain ones in test_heads"
        )
    b = batch(4, 9)
    state = training.start(params, optimizer := optax.adam(1e-2))
    step = jax.jit(training.make_step(model, optimizer))
    state, first = step(state, b)
    moved = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), state.params, params)
    assert (
        all(change > 0 for change in jax.tree.leaves(moved["head"]))
        and moved["embed"]["embedding"] > 0
    )
    for _ in range(5):
        state, last = step(state, b)
    assert last["loss"] < first["loss"]


def test_online_evaluation_scores_with_the_head():
    model = models.LanguageModel(dataclasses.replace(SMALL, depth=2, head="mixture:2"))
    params = models.init(model, seed=1)
    ids = batch(1, 21).inputs[0]
    docs = [ids[:11], ids[11:]]
    plain = online.OnlineConfig(chunk=5, reset="document")
    alone = online.evaluate(model, params, docs, config=plain)
    lanes = online.evaluate(
        model, params, docs, optax.sgd(0.0), dataclasses.replace(plain, adapt="blocks", parallel=2)
    )
    assert_close(lanes.nll, alone.nll, 1e-5)


def test_sizes_are_those_of_the_parameters(made):
    model, params = made
    assert head_of(model.config).size == sum(leaf.size for leaf in jax.tree.leaves(params["head"]))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(head="mixture:2", tied_head=True),
            "matrices of its own, which the embedding cannot stand for; it needs tied_head=False",
        ),
        (dict(head="low_rank:25"), "rank=25 of a head \\[24, 61\\]; use 1 to 24"),
        (dict(head="mixture"), "write mixture:N"),
        (dict(head="mixture:0"), "write mixture:N"),
        (dict(head="full:3"), "write 'full' alone"),
        (dict(head="mixed:3"), "head 'mixed'"),
        (dict(head="math.sqrt"), "not a subclass of lmdyn.models.heads.Head"),
        (dict(head="tests.models.nothing.Own"), "there is no module 'tests.models.nothing'"),
    ],
)
def test_impossible_heads_say_why(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SMALL, **change)


def test_what_needs_one_matrix_refuses_another_head(made):
    model, params = made
    with pytest.raises(InputError, match="needs a full head"):
        head_of(model.config).single_matrix(params)
    with pytest.raises(InputError, match="head="):
        hf_config.write_config(model.config)


class Sharpened(Head):
    """A head of one's own: twice the full head's logits."""

    shapes = property(lambda self: {"output": (self.width, self.vocab)})

    def logits(self, matrices, states):
        return jax.nn.log_softmax(2 * project(states, matrices["output"]))


def test_a_head_of_ones_own_is_named_by_its_dotted_name():
    name = f"{__name__}.Sharpened"
    own = models.LanguageModel(dataclasses.replace(SMALL, depth=1, head=name))
    assert make_head(name, 24, 61) == Sharpened(24, 61)
    params, b = models.init(own, seed=1), batch(2, 5)
    full = models.LanguageModel(dataclasses.replace(SMALL, depth=1))
    doubled = {**params, "head": {"kernel": 2 * params["head"]["output"]["kernel"]}}
    step = lambda model, p: models.loss(model, p, b.inputs, b.targets, b.mask / b.mask.sum())[0]
    found = jax.jit(jax.grad(lambda p: step(own, p)))(params)
    wanted = jax.jit(jax.grad(lambda p: step(full, p)))(doubled)
    assert_close(found["embed"]["embedding"], wanted["embed"]["embedding"], 1e-5)
    assert_close(found["head"]["output"]["kernel"], 2 * wanted["head"]["kernel"], 1e-5)
