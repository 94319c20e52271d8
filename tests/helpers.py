"""Small models and texts that several tests share; odd sizes, so that a transposed axis fails."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn import models

SMALL = models.ModelConfig(
    vocab=61, width=24, depth=3, heads=6, kv_heads=2, head_width=6, mlp_width=35, positions=400
)
KINDS = {
    "gated": SMALL,
    "parallel": models.ModelConfig(
        vocab=61,
        width=24,
        depth=3,
        heads=3,
        head_width=8,
        mlp_width=35,
        positions=400,
        parallel=True,
        gated=False,
        activation="gelu",
        norm="layer",
        norm_bias=True,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        rotary_share=0.5,
    ),
    "learned": models.ModelConfig(
        vocab=61,
        width=24,
        depth=3,
        heads=3,
        head_width=8,
        mlp_width=35,
        positions=400,
        position="learned",
        gated=False,
        activation="gelu_tanh",
        norm="layer",
        norm_bias=True,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        tied_head=True,
    ),
    "output_norm": models.ModelConfig(
        vocab=61,
        width=24,
        depth=3,
        heads=6,
        kv_heads=3,
        head_width=4,
        mlp_width=35,
        positions=400,
        norm_place="output",
        query_key_norm="all",
    ),
}


@functools.cache
def small(kind: str = "gated", scale: float = 6.0):
    """A model and random parameters, larger than at initialisation so that layers differ."""
    model = models.LanguageModel(KINDS[kind])
    params = models.init(model, seed=3)
    matrices = lambda path, leaf: leaf * scale if path[-1].key in ("kernel", "embedding") else leaf
    return model, jax.tree_util.tree_map_with_path(matrices, params)


def tokens(length: int, seed: int = 0, vocab: int = 61) -> np.ndarray:
    """Token ids `[length]` with some order in them, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, vocab, length)
    ids[1::2] = (ids[::2][: length // 2] * 3 + 1) % vocab
    return ids.astype(np.int32)


def batch(rows: int, length: int, seed: int = 0, masked: bool = False):
    """A `Batch` of random tokens; with `masked`, some do not count."""
    from lmdyn.data import Batch

    stream = tokens(rows * length + 1, seed)
    inputs, targets = stream[:-1].reshape(rows, length), stream[1:].reshape(rows, length)
    mask = np.ones((rows, length), bool)
    if masked:
        mask[-1, length // 2 :] = False
    return Batch(inputs, targets, mask)


def assert_close(found, wanted, tolerance: float):
    """Largest difference, relative to the largest wanted magnitude."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    gap, scale = np.abs(found - wanted).max(), np.abs(wanted).max()
    assert gap <= tolerance * scale, f"differs by {gap:.3g} at a scale of {scale:.3g}"


jit_logits = jax.jit(models.logits, static_argnums=0)


def textbook(query, key, value, allowed):
    """Attention by its formula, with all scores at once: `softmax(q k) v` of `[B, T, H, K]`; which
    keys a query may see is `[B or 1, T, S]`.
    """
    share = query.shape[2] // key.shape[2]
    key, value = (jnp.repeat(x, share, 2) for x in (key, value))
    scores = jnp.einsum("bthk,bshk->bhts", query, key, precision="highest")
    weights = jax.nn.softmax(jnp.where(allowed[:, None], scores, -jnp.inf), -1)
    return jnp.einsum("bhts,bshk->bthk", weights, value, precision="highest")
