"""Heads on a frozen body: a step written out, closed forms, heads side by side, states on disk."""

import jax
import numpy as np
import optax
import pytest

from lmdyn import data, models
from lmdyn.errors import InputError
from lmdyn.models.heads import FullHead, LowRankHead, MixtureHead, output_kernel, truncations
from lmdyn.training import final_states as module
from lmdyn.training.final_states import final_states
from lmdyn.training.head_fits import fit_heads, score_heads
from tests.helpers import assert_close, small, tokens

D, V, N = 5, 11, 40


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """A model, its parameters, a text whose last batch is ragged, and the states of that text."""
    model, params = small()
    batches = data.windows(tokens(101), length=9, batch=4)
    return (
        model,
        params,
        batches,
        final_states(model, params, batches, cache=tmp_path_factory.mktemp("states")),
    )


def some(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N, D)).astype(np.float32), rng.integers(0, V, N)


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def test_one_step_is_gradient_descent_written_out():
    states, targets = some()
    kernel = np.random.default_rng(1).normal(size=(D, V)).astype(np.float32)
    found = fit_heads(
        {"full": FullHead(D, V)},
        states,
        targets,
        steps=1,
        batch=N,
        params={"full": {"kernel": kernel}},
        optimizer=optax.sgd(0.5),
    )
    log_p = log_softmax(states.astype(np.float64) @ kernel)
    slope = states.T @ (np.exp(log_p) - np.eye(V)[targets]) / N
    assert_close(found.params["full"]["kernel"], kernel - 0.5 * slope, 1e-5)
    assert_close(found.losses["full"], [-log_p[np.arange(N), targets].mean()], 1e-6)


def test_rank_one_on_equal_states_learns_the_unigram_distribution():
    """The closed form: the best nll is the entropy of the targets. A bound that no head beats, and
    that rank 1 reaches.
    """
    _, targets = some()
    share = np.bincount(targets, minlength=V) / N
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1)))
    states = np.tile(np.float32([1, -1, 0.5, 0, 2]), (N, 1))
    ladder = {rank: LowRankHead(D, V, rank) for rank in (1, 4)}
    found = fit_heads(ladder, states, targets, steps=400, batch=N, optimizer=optax.adam(0.1))
    scores = score_heads(ladder, found.params, states, targets, batch=7)
    assert scores[1] == pytest.approx(entropy, abs=2e-3)
    assert scores[4] == pytest.approx(entropy, abs=2e-3)
    assert min(scores.values()) >= entropy - 1e-6


def test_heads_do_not_depend_on_their_company():
    states, targets = some()
    kinds = {"low": LowRankHead(D, V, 2), "mixture": MixtureHead(D, V, 2)}
    run = lambda kinds: fit_heads(kinds, states, targets, steps=7, batch=9, seed=3)
    together, alone = run(kinds), run({"low": kinds["low"]})
    assert_close(together.losses["low"], alone.losses["low"], 1e-6)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), together.params["low"], alone.params["low"])
    again = run(kinds)
    assert again.losses["mixture"].tolist() == together.losses["mixture"].tolist()


def test_every_token_is_seen_once_before_any_comes_again():
    """With a rate of 0 the losses of the 4 batches of an epoch have the mean of all tokens,
    whatever their order.
    """
    states, targets = some()
    head = {"full": FullHead(D, V)}
    found = fit_heads(head, states, targets, steps=8, batch=10, optimizer=optax.sgd(0.0))
    whole = score_heads(head, found.params, states, targets, batch=16)["full"]
    assert_close(found.losses["full"].reshape(2, 4).mean(1), [whole, whole], 1e-5)
    assert np.ptp(found.losses["full"]) > 0


def test_a_ladder_starts_from_the_truncated_head_of_a_model_and_rank_D_loses_nothing(cached):
    """Against the model's own likelihood on the same text. Every rank learns from there, and a
    higher one more.
    """
    model, params, batches, kept = cached
    kernel = output_kernel(params)
    width, vocab = kernel.shape
    starts = truncations(kernel, [2, 8, width])
    ladder = {rank: LowRankHead(width, vocab, rank) for rank in starts}
    before = score_heads(ladder, starts, kept.states, kept.targets, batch=32)
    nll = jax.jit(models.token_nll, static_argnums=0)
    own = np.concatenate(
        [np.asarray(nll(model, params, b.inputs, b.targets))[b.mask] for b in batches]
    )
    assert before[width] == pytest.approx(own.mean(), rel=1e-5)
    found = fit_heads(
        ladder,
        kept.states,
        kept.targets,
        steps=60,
        batch=50,
        params=starts,
        optimizer=optax.adam(1e-2),
    )
    after = score_heads(ladder, found.params, kept.states, kept.targets, batch=32)
    assert all(after[rank] < before[rank] for rank in ladder)
    assert after[2] > after[8] > after[width]


def test_states_are_those_of_the_model_and_are_computed_once(cached, monkeypatch, tmp_path):
    model, params, batches, kept = cached
    run = jax.jit(lambda params, inputs: models.forward(model, params, inputs).states)
    wanted = np.concatenate([np.asarray(run(params, b.inputs))[b.mask] for b in batches])
    assert isinstance(kept.states, np.memmap)
    np.testing.assert_array_equal(kept.states, wanted)
    np.testing.assert_array_equal(
        kept.targets, np.concatenate([b.targets[b.mask] for b in batches])
    )

    first = final_states(model, params, batches, cache=tmp_path)
    calls = []
    fill = module._fill
    monkeypatch.setattr(module, "_fill", lambda *args: (calls.append(1), fill(*args)))
    other_head = {**params, "head": {"kernel": params["head"]["kernel"] * 2}}
    for same in (params, other_head):
        np.testing.assert_array_equal(
            final_states(model, same, batches, cache=tmp_path).states, wanted
        )
    assert not calls
    other_body = {
        **params,
        "final_norm": jax.tree.map(lambda scale: scale * 2, params["final_norm"]),
    }
    other_text = data.windows(tokens(101, seed=1), length=9, batch=4)
    shorter = data.windows(tokens(101), length=8, batch=4)
    digests = {
        final_states(model, p, b, cache=tmp_path).digest
        for p, b in [(other_body, batches), (params, other_text), (params, shorter)]
    }
    assert len(calls) == len(digests | {first.digest}) - 1 == 3

    for name, damage in [
        ("states.npy", lambda path: path.write_bytes(path.read_bytes()[:-9])),
        ("about.json", lambda path: path.unlink()),
    ]:
        damage(tmp_path / first.digest[:32] / name)
        np.testing.assert_array_equal(
            final_states(model, params, batches, cache=tmp_path).states, wanted
        )
    assert len(calls) == 5


def test_a_cache_that_cannot_be_written_says_so(cached, tmp_path):
    model, params, batches, _ = cached
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot keep .* GB of states in .*file"):
        final_states(model, params, batches, cache=tmp_path / "file")


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(kinds={}), "no head to train"),
        (dict(steps=0), "steps=0"),
        (dict(batch=N + 1), "batches of 41"),
        (dict(targets=np.zeros(3, int)), "40 states and 3 targets"),
        (dict(targets=np.full(N, V)), "target 11 is outside the vocabulary of 11"),
        (
            dict(optimizer=optax.sgd(np.inf)),
            "the loss of head 'full' is .*; lower the optimizer's learning rate",
        ),
    ],
)
def test_bad_input_says_why(change, message):
    states, targets = some()
    with pytest.raises(InputError, match=message):
        fit_heads(
            **{
                "kinds": {"full": FullHead(D, V)},
                "states": states,
                "targets": targets,
                "steps": 9,
                "batch": 8,
                **change,
            }
        )
