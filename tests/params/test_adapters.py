"""Adapters change nothing at first, and stand beside arrays and quantised matrices alike."""

import jax
import numpy as np
import pytest

from lmdyn import models
from lmdyn.errors import InputError
from lmdyn.models.matrices import dense
from lmdyn.models.matrices.quantized import from_bytes
from lmdyn.params import flatten, low_rank, unflatten
from tests.helpers import assert_close, jit_logits, small, tokens

IDS = tokens(22).reshape(2, 11)


def random_like(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 4, tree)


MIXED = "blocks[0,2].attention.query+blocks[1:].mlp.down"


@pytest.mark.optimized
@pytest.mark.parametrize(
    "kind, selector", [("gated", "blocks.mlp"), ("gated", MIXED), ("parallel", "blocks.mlp")]
)
def test_fresh_adapters_change_no_bit(kind, selector):
    model, params = small(kind)
    part = low_rank(selector, rank=3).partition(params)
    adapters, rest = part.split(params)
    # `rest` holds the same parameters in the same stacks, without adapters: another cut is another
    # program, and rounds otherwise
    np.testing.assert_array_equal(
        jit_logits(model, part.merge(adapters, rest), IDS), jit_logits(model, rest, IDS)
    )
    jax.tree.map(np.testing.assert_array_equal, part.join(adapters, rest), params)


@pytest.mark.parametrize("kind", ["gated", "parallel"])
@pytest.mark.parametrize("selector", ["all", MIXED])
def test_kept_apart_and_merged_are_the_sum_of_the_definition(kind, selector):
    model, params = small(kind)
    part = low_rank(selector, rank=3, scale=0.5).partition(params)
    adapters, rest = part.split(params)
    adapters = random_like(adapters)
    wanted = {path: np.array(leaf) for path, leaf in flatten(params).items()}
    beside = flatten(adapters)
    for path, layers in part.chosen.items():
        for i, layer in enumerate(layers):
            wanted[path][layer] += 0.5 * beside[(*path[:-1], "a")][i] @ beside[(*path[:-1], "b")][i]
    joined = part.join(adapters, rest)
    for path, leaf in flatten(joined).items():
        np.testing.assert_allclose(leaf, wanted[path], rtol=1e-5, atol=1e-6)
    found = jit_logits(model, part.merge(adapters, rest), IDS)
    assert_close(found, jit_logits(model, unflatten(wanted), IDS), 1e-5)
    assert np.abs(found - jit_logits(model, params, IDS)).max() > 0.1


def test_a_layers_adapter_depends_on_seed_and_place_alone():
    _, params = small()
    init = lambda selector, seed: (
        low_rank(selector, rank=2, seed=seed).partition(params).init(params)["blocks"]["mlp"]
    )
    every, one, other = init("blocks.mlp", 0), init("blocks[2].mlp.up", 0), init("blocks.mlp", 1)
    np.testing.assert_array_equal(one["up"]["a"][0], every["up"]["a"][2])
    assert np.abs(every["up"]["a"] - other["up"]["a"]).min() > 0
    assert np.abs(every["up"]["a"][0] - every["up"]["a"][1]).min() > 0
    wide = low_rank(rank=24).partition(params).init(params)["blocks"]["mlp"]["down"]["a"]
    assert abs(np.std(wide) * 35**0.5 - 1) < 0.05  # so that x A is about as large as x


def test_beside_a_quantised_body():
    config = models.ModelConfig(
        vocab=13, width=64, depth=3, heads=2, head_width=32, mlp_width=96, positions=32
    )
    model, rng = models.LanguageModel(config), np.random.default_rng(0)
    params = models.init(model)
    packed = flatten(params)
    for path, leaf in packed.items():
        if path[0] == "blocks" and path[-1] == "kernel":
            _, rows, columns = leaf.shape
            blocks = np.zeros([3, columns, rows // 32, 34], np.uint8)
            blocks[..., :2] = np.array([0.01], np.float16).view(np.uint8)
            blocks[..., 2:] = rng.integers(0, 256, blocks[..., 2:].shape)
            packed[path] = from_bytes(blocks.reshape(3, columns, -1), "Q8_0")
    dense_leaves = {path: dense(leaf) for path, leaf in packed.items()}
    where, ids = low_rank("blocks[1:].mlp", rank=5), IDS % 13
    part, plain = (where.partition(unflatten(leaves)) for leaves in (packed, dense_leaves))
    assert part == plain
    adapters, rest = part.split(unflatten(packed))
    adapters = random_like(adapters)
    whole = plain.join(adapters, plain.split(unflatten(dense_leaves))[1])
    assert_close(
        jit_logits(model, part.merge(adapters, rest), ids), jit_logits(model, whole, ids), 1e-5
    )
    joined = part.join(adapters, rest)
    assert isinstance(joined["blocks"]["attention"]["query"]["kernel"], models.QuantizedMatrix)
    np.testing.assert_allclose(
        joined["blocks"]["mlp"]["up"]["kernel"], whole["blocks"]["mlp"]["up"]["kernel"], rtol=1e-6
    )

    objective = lambda adapters: models.loss(
        model, part.merge(adapters, rest), ids, ids, np.full(ids.shape, 1 / 22, np.float32)
    )[0]
    slope = jax.jit(jax.grad(objective))(adapters)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize(
    "selector, rank, message",
    [
        ("blocks.mlp", 0, "rank=0"),
        (
            "blocks.mlp",
            25,
            "rank=25 exceeds the smaller side of blocks.mlp.down.kernel, 35 by 24; use rank<=24",
        ),
        (
            "head",
            2,
            (
                "selector 'head' holds no matrix that an adapter can stand beside; there are"
                " blocks.attention.key"
            ),
        ),
        ("blocks.mlp_norm", 2, "holds no matrix"),
        ("blocks.mpl", 2, "matches nothing"),
    ],
)
def test_bad_input_is_one_clear_line(selector, rank, message):
    _, params = small()
    with pytest.raises(InputError) as error:
        low_rank(selector, rank=rank).partition(params)
    assert message in str(error.value) and "\n" not in str(error.value)
