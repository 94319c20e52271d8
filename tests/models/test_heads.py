"""Heads: definitions written out in NumPy, the fused loss against plain differentiation, rank D and
rank 1, truncation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmdyn.errors import InputError
from lmdyn.models import tiles
from lmdyn.models.heads import (
    FullHead,
    LowRankHead,
    MixtureHead,
    ProjectedHead,
    SigsoftmaxHead,
    output_kernel,
    truncations,
)
from tests.helpers import assert_close, small

D, V, N = 5, 13, 7
KINDS = {
    "full": FullHead(D, V),
    "low_rank": LowRankHead(D, V, 3),
    "mixture": MixtureHead(D, V, 3),
    "sigsoftmax": SigsoftmaxHead(D, V),
    "projected": ProjectedHead(D, V, 9),
}


def softmax(z):
    grown = np.exp(z - z.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def gelu(z):
    return 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))


def log_p(head, matrices, states):
    """Log-probabilities: the full head's logits are not normalised."""
    return jax.nn.log_softmax(head.logits(matrices, states))


def written_out(kind, p, x):
    """The papers' formulas, one component at a time."""
    if kind == "mixture":
        latents = [np.tanh(x @ p["latent"][:, k * D : (k + 1) * D]) for k in range(3)]
        return sum(
            softmax(x @ p["prior"])[:, [k]] * softmax(latents[k] @ p["output"]) for k in range(3)
        )
    if kind == "sigsoftmax":
        z = x @ p["output"]
        score = np.exp(z) / (1 + np.exp(-z))
        return score / score.sum(-1, keepdims=True)
    if kind == "projected":
        return softmax(gelu(x @ p["wide"]) @ p["output"])
    return softmax(x @ (p["kernel"] if kind == "full" else p["down"] @ p["output"]))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    weights = rng.random(N).astype(np.float32)
    weights[3] = 0
    return rng.normal(size=(N, D)).astype(np.float32) * 2, rng.integers(0, V, N), weights


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_the_formula(data, kind):
    params = jax.jit(KINDS[kind].init)(jax.random.key(1))
    found = np.exp(jax.jit(functools.partial(log_p, KINDS[kind]))(params, data[0]))
    wanted = written_out(
        kind,
        {name: np.asarray(p, np.float64) for name, p in params.items()},
        data[0].astype(np.float64),
    )
    assert_close(found, wanted, 1e-5)
    assert_close(found.sum(-1), np.ones(N), 1e-5)
    assert KINDS[kind].size == sum(p.size for p in params.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_fused_loss_and_its_gradient_are_the_plain_ones_in_any_blocks(monkeypatch, data, kind):
    head, (states, targets, weights) = KINDS[kind], data
    params = jax.jit(head.init)(jax.random.key(2))

    def plain(params, states):
        nll = -log_p(head, params, states)[jnp.arange(N), targets]
        return jnp.sum(nll * weights), nll

    fused = lambda params, states: head.weighted_nll(params, states, targets, weights)
    (total, nll), wanted = jax.jit(jax.value_and_grad(plain, (0, 1), has_aux=True))(params, states)
    for bytes_ in (2**27, 4 * V * head.copies * 3):  # one block, and blocks of three tokens
        monkeypatch.setattr(tiles, "TILE_BYTES", bytes_)
        together = jax.jit(
            lambda p, x: (
                jax.value_and_grad(fused, (0, 1), has_aux=True)(p, x),
                fused(p, x)[0],
                head.token_nll(p, x, targets),
            )
        )
        ((found_total, found_nll), found), without_gradient, differentiable = together(
            params, states
        )
        assert_close(found_total, total, 1e-6)
        assert_close(found_nll, nll, 1e-6)
        assert_close(without_gradient, total, 1e-6)
        assert_close(differentiable, nll, 1e-6)
        jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), found, wanted)


@pytest.mark.parametrize(
    "memory, rows", [(0, 682), (60 * 10**9, 7629), (2 * 10**9, 682), (150 * 10**9, 8192)]
)
def test_tiles_grow_with_an_accelerators_memory(monkeypatch, memory, rows):
    """At SmolLM2's vocabulary: the CPU's tile, one of a 60 GB pool, and its limits."""
    monkeypatch.setattr(tiles, "_device_memory", lambda: memory)
    assert tiles.tile_rows(10**6, 49152) == rows
    assert tiles.tile_rows(5, 49152) == 5


@pytest.mark.optimized
def test_memory_is_that_of_one_tile(monkeypatch):
    """2^14 tokens of a vocabulary of 2^12, whose log-probabilities would take 256 MiB, in blocks of
    2^7 tokens.
    """
    head, tokens = MixtureHead(8, 2**12, 2), 2**14

    def gradient(params, states, targets):
        return jax.grad(lambda p: head.weighted_nll(p, states, targets, jnp.ones(tokens))[0])(
            params
        )

    shapes = (
        jax.eval_shape(head.init, jax.random.key(0)),
        jnp.zeros([tokens, 8]),
        jnp.zeros(tokens, int),
    )
    monkeypatch.setattr(tiles, "TILE_BYTES", 2**21 * head.copies)
    used = jax.jit(gradient).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert used < 2**26


@pytest.mark.parametrize("kind", ["gated", "learned"])
def test_rank_D_loses_nothing_and_lower_ranks_are_the_truncated_decomposition(kind):
    """On a model's own head, tied or not, against the full head on the same states, and NumPy's
    decomposition.
    """
    _, params = small(kind)
    kernel = output_kernel(params)
    width, vocab = kernel.shape
    rng = np.random.default_rng(3)
    states, targets = rng.normal(size=(9, width)).astype(np.float32), rng.integers(0, vocab, 9)
    ladder = truncations(kernel, [2, 7, width])
    nll = jax.jit(lambda head, p: head.token_nll(p, states, targets), static_argnums=0)
    whole = nll(LowRankHead(width, vocab, width), ladder[width])
    assert_close(whole, nll(FullHead(width, vocab), {"kernel": kernel}), 1e-5)
    left, singular, right = np.linalg.svd(np.asarray(kernel, np.float64), full_matrices=False)
    for rank in (2, 7):
        product = ladder[rank]["down"].astype(np.float64) @ ladder[rank]["output"]
        assert_close(product, (left[:, :rank] * singular[:rank]) @ right[:rank], 1e-5)


def test_rank_one_on_states_of_one_direction_is_a_unigram_model():
    """Where x A = 1 for every state, `log p` is `log_softmax(B)`: with B = log counts, the unigram
    distribution in closed form.
    """
    counts = np.arange(1, V + 1.0)
    head = LowRankHead(D, V, 1)
    params = {
        "down": np.eye(D, 1, dtype=np.float32),
        "output": np.log(counts)[None].astype(np.float32),
    }
    states = np.concatenate(
        [np.ones([N, 1]), np.random.default_rng(4).normal(size=(N, D - 1))], 1
    ).astype(np.float32)
    assert_close(
        np.exp(jax.jit(functools.partial(log_p, head))(params, states)),
        np.tile(counts / counts.sum(), (N, 1)),
        1e-6,
    )


def test_nonlinear_heads_break_the_bottleneck():
    """The log-probabilities of a linear head have rank D + 1 at most (its logits', and the
    normaliser's); those of the others exceed it.
    """
    states = np.random.default_rng(5).normal(size=(40, D)).astype(np.float32) * 3
    for kind, head in KINDS.items():
        found = jax.jit(functools.partial(log_p, head))(
            jax.jit(head.init)(jax.random.key(6)), states
        )
        spread = np.linalg.svd(np.asarray(found, np.float64), compute_uv=False)
        rank = int(np.sum(spread > 1e-5 * spread[0]))
        assert rank == {"full": D + 1, "low_rank": 3 + 1}.get(kind, rank)
        assert rank > D + 1 or kind in ("full", "low_rank"), kind


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LowRankHead(D, V, 6), "rank=6 of a head \\[5, 13\\]; use 1 to 5"),
        (lambda: LowRankHead(V, D, 0), "use 1 to 5"),
        (lambda: MixtureHead(D, V, 0), "components=0"),
        (lambda: ProjectedHead(D, V, 0), "wide=0"),
    ],
)
def test_impossible_heads_say_why(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("block", [3, 10**9])
@pytest.mark.parametrize("tied", [True, False])
def test_fused_loss_is_the_plain_one(monkeypatch, tied, block):
    monkeypatch.setattr(tiles, "TILE_BYTES", 4 * 61 * block)
    rng = np.random.default_rng(5)
    states, head = (
        rng.normal(size=(11, 7)).astype(np.float32),
        rng.normal(size=(7, 61)).astype(np.float32),
    )
    head, name = (head.T, "embedding") if tied else (head, "kernel")
    targets, weights = rng.integers(0, 61, 11), rng.random(11).astype(np.float32)

    def plain(states, head):
        logits = states @ (head.T if tied else head)
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], 1)[:, 0]
        return 3.0 * jnp.sum(nll * weights), nll

    fused = lambda s, h: (lambda total, nll: (3.0 * total, nll))(
        *FullHead(7, 61).weighted_nll({name: h}, s, targets, weights)
    )
    (total, nll), found = jax.value_and_grad(fused, (0, 1), has_aux=True)(states, head)
    (wanted, plain_nll), gradients = jax.value_and_grad(plain, (0, 1), has_aux=True)(states, head)
    assert_close(total, wanted, 1e-6)
    assert_close(nll, plain_nll, 1e-6)
    for a, b in zip(found, gradients, strict=True):
        assert_close(a, b, 1e-5)
