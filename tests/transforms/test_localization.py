"""Updates by layer: what is frozen keeps its bits and costs nothing, equal rates change nothing,
other depths are refused.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmdyn import models, transforms
from lmdyn.errors import InputError
from lmdyn.params import flatten, partition, select
from lmdyn.training import make_step, start, whole
from tests.helpers import batch, small

PROFILE = {"attention": [0.5, 1.4, 0.9], "mlp": [0.7, 0.8, 2.0]}  # mean 1.05
MASK = {"attention": [False, True, False], "mlp": [False, False, True]}
TRAINED = "blocks[1].attention+blocks[2].mlp"


def trees(seed: int):
    """Random numbers in the shape of a small model's parameters, some of them -0.0."""
    _, params = small("parallel")
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(
            np.where(rng.random(leaf.shape) < 0.1, -0.0, rng.normal(size=leaf.shape)), jnp.float32
        ),
        params,
    )


def updated(optimizer, steps: int, params):
    """After some steps on random gradients."""
    gradients = trees(1)

    @jax.jit
    def run(params, state):
        def step(_, carry):
            updates, state = optimizer.update(gradients, carry[1], carry[0])
            return optax.apply_updates(carry[0], updates), state

        return jax.lax.fori_loop(0, steps, step, (params, state))[0]

    return flatten(run(params, optimizer.init(params)))


def chosen(selector: str):
    """`{path: [L] or one boolean}`: which layers a selector names."""
    _, params = small("parallel")
    named = select(params, selector) if selector else {}
    return {
        path: (
            np.isin(np.arange(len(leaf)), named.get(path, ()))
            if path[0] == "blocks"
            else np.array(path in named)
        )
        for path, leaf in flatten(params).items()
    }


def bits(leaf):
    return np.asarray(leaf).view(np.uint32)


@pytest.mark.parametrize(
    "last, moved",
    [
        (
            transforms.layer_mask(MASK),
            TRAINED + "+embed+head+final_norm+blocks.attention_norm+blocks.mlp_norm",
        ),
        (transforms.layer_mask([True, False, True]), "blocks[0,2]+embed+head+final_norm"),
        (
            transforms.layer_mask({"embed": False, "blocks.mlp.up": [True] * 3}),
            "blocks+head+final_norm",
        ),
        (transforms.localize(PROFILE), TRAINED),
        (transforms.localize({**PROFILE, "embed": 9.0}, groups=["embed", "mlp"]), "embed"),
    ],
)
def test_what_is_frozen_keeps_every_bit_for_a_hundred_steps(last, moved):
    before = trees(0)
    after = updated(optax.chain(optax.adamw(1e-2, weight_decay=0.1), last), 100, before)
    for path, on in chosen(moved).items():
        same = np.array(bits(after[path]) == bits(flatten(before)[path]))
        same = same.reshape(len(on), -1) if on.ndim else same.reshape(1, -1)
        assert same[~np.atleast_1d(on)].all(), path
        assert not same[np.atleast_1d(on)].all(1).any(), path


def test_a_mask_before_weight_decay_does_not_freeze():
    before = trees(0)
    mask = transforms.layer_mask([False] * 3)
    after = updated(optax.chain(mask, optax.adamw(1e-2, weight_decay=0.1)), 100, before)
    path = ("blocks", "mlp", "up", "kernel")
    np.testing.assert_allclose(after[path], flatten(before)[path] * (1 - 1e-3) ** 100, rtol=1e-5)


def test_rates_multiply_updates():
    found = updated(
        optax.chain(
            optax.sgd(1.0),
            transforms.layer_rates(
                {"mlp": [0.5, 0.0, 2.0], "blocks": [1.0, 3.0, 0.5], "head": 0.25}
            ),
        ),
        1,
        trees(0),
    )
    before, gradient = flatten(trees(0)), flatten(trees(1))
    for path, by_layer in {
        ("blocks", "mlp", "up", "bias"): [0.5, 0.0, 1.0],
        ("blocks", "attention", "key", "kernel"): [1.0, 3.0, 0.5],
    }.items():
        rate = np.reshape(by_layer, (3,) + (1,) * (before[path].ndim - 1))
        np.testing.assert_allclose(found[path], before[path] - rate * gradient[path], atol=1e-6)
    for path, rate in {("head", "kernel"): 0.25, ("embed", "embedding"): 1.0}.items():
        np.testing.assert_allclose(found[path], before[path] - rate * gradient[path], atol=1e-6)


def test_scale_has_a_mean_rate_of_one_and_equal_rates_are_plain_training():
    before, optimizer = trees(0), optax.adamw(1e-2)
    plain = updated(optimizer, 5, before)
    equal = updated(
        optax.chain(
            optimizer, transforms.localize({"attention": [0.3] * 3, "mlp": [0.3] * 3}, mode="scale")
        ),
        5,
        before,
    )
    for path, leaf in plain.items():
        np.testing.assert_allclose(equal[path], leaf, rtol=1e-6, atol=1e-7)
    scaled = updated(
        optax.chain(optax.sgd(1.0), transforms.localize(PROFILE, mode="scale")), 1, before
    )
    gradient, start = flatten(trees(1)), flatten(before)
    for group, r in PROFILE.items():
        path = ("blocks", group, {"mlp": "up", "attention": "key"}[group], "kernel")
        wanted = start[path] - np.reshape(r, (3, 1, 1)) / 1.05 * gradient[path]
        np.testing.assert_allclose(scaled[path], wanted, atol=1e-5)


def test_rates_find_their_layers_in_a_partition():
    params = trees(0)
    part = partition(params, "blocks[0,2].mlp+head")
    rest = part.split(trees(1))[0]
    scale = transforms.localize(PROFILE, mode="scale", part=part)
    updates, _ = scale.update(rest, scale.init(part.split(params)[0]))
    path = ("blocks", "mlp", "down", "kernel")
    wanted = np.array([0.7, 2.0])[:, None, None] / 1.05 * flatten(rest)[path]
    np.testing.assert_allclose(flatten(updates)[path], wanted, rtol=1e-6)
    np.testing.assert_array_equal(updates["head"]["kernel"], rest["head"]["kernel"])


def test_what_is_not_trained_costs_nothing():
    """The free form of freezing: no optimizer state, no gradient, and the same numbers as the
    mask's.
    """
    model, params = small("parallel")
    assert transforms.trained(PROFILE) == TRAINED
    part, optimizer = (
        partition(params, transforms.trained(PROFILE)),
        optax.adamw(1e-2, weight_decay=0.1),
    )
    rows = batch(2, 9)
    steps = {
        "free": make_step(model, optimizer, part=part),
        "mask": make_step(model, optax.chain(optimizer, transforms.localize(PROFILE))),
    }
    states = {
        "free": start(params, optimizer, part),
        "mask": start(params, optax.chain(optimizer, transforms.localize(PROFILE))),
    }
    programs = {
        name: jax.jit(step).lower(states[name], rows).compile() for name, step in steps.items()
    }
    for _ in range(100):
        states = {name: programs[name](state, rows)[0] for name, state in states.items()}
    free, mask = (flatten(whole(states["free"], part)), flatten(states["mask"].params))
    for path, on in chosen(TRAINED).items():
        at = slice(None) if not on.ndim else ~on
        np.testing.assert_array_equal(bits(free[path])[at], bits(flatten(params)[path])[at])
    # Adam divides by small numbers: 100 steps of 1e-2 differ by a few of them at most
    assert max(np.abs(free[path] - mask[path]).max() for path in free) < 0.05

    names = {path for path, _ in jax.tree_util.tree_leaves_with_path(states["free"].optimizer)}
    held = {part.key for path in names for part in path if isinstance(part, jax.tree_util.DictKey)}
    assert {"attention", "mlp"} <= held and not {"embed", "head", "final_norm", "mlp_norm"} & held
    numbers = sum(leaf.size for leaf in jax.tree.leaves(states["free"].optimizer))
    assert numbers == 1 + 2 * sum(leaf.size for leaf in jax.tree.leaves(part.split(params)[0]))


def test_operations_fall_with_what_is_frozen():
    """Of forward pass, gradients of activations and gradients of weights, the last two are left for
    the top block's MLP alone.
    """
    model = models.LanguageModel(
        models.ModelConfig(
            vocab=61, width=48, depth=3, heads=4, head_width=12, mlp_width=144, positions=16
        ),
        models.Compute(unroll=3),
    )
    optimizer, rows = optax.sgd(0.1), batch(2, 9)

    def flops(profile):
        def run(params):
            part = partition(params, transforms.trained(profile)) if profile else None
            return make_step(model, optimizer, part=part)(start(params, optimizer, part), rows)[1][
                "gradient_norm"
            ]

        return jax.jit(run).lower(models.shapes(model.config)).compile().cost_analysis()["flops"]

    everything = flops(None)
    # 2 x 9 tokens: matrices of the blocks and of the head
    block, head = 2 * 18 * (4 * 48 * 48 + 3 * 48 * 144), 2 * 18 * 48 * 61
    top = flops({"attention": [1.0] * 3, "mlp": [1.0, 1.0, 2.0]})
    assert top < 1.15 * (3 * block + 2 * head + 2 * 2 * 18 * 3 * 48 * 144)
    assert top < 0.5 * everything


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: transforms.localize({"attention": [1.0] * 4, "mlp": [2.0] * 4}),
            "attention has values for 4 layers, and the parameters have 3 blocks",
        ),
        (
            lambda: transforms.localize({"attention": [1.0, 0.0, 2.0], "mlp": [1.0] * 3}),
            "the profile of attention is 0.0 at layer 1",
        ),
        (
            lambda: transforms.localize({"attention": [1.0] * 3, "mlp": [1.0, 2.0, np.nan]}),
            "the profile of mlp is nan at layer 2",
        ),
        (lambda: transforms.localize({"attention": [1.0] * 3, "mlp": [1.0] * 3}), "1 everywhere"),
        (lambda: transforms.trained({"attention": [1.0] * 3, "mlp": [1.0] * 3}), "1 everywhere"),
        (
            lambda: transforms.localize({"mlp": [1.0, 2.0, 3.0]}),
            "unknown group of the profile 'attention'",
        ),
        (lambda: transforms.localize(PROFILE, groups=()), "groups=()"),
        (lambda: transforms.localize(PROFILE, mode="freez"), "did you mean 'freeze'"),
        (lambda: transforms.layer_rates({"mpl": [1.0] * 3}), "the model holds blocks"),
        (lambda: transforms.layer_rates({"mlp": [1.0, -1.0, 1.0]}), "at least 0"),
        (lambda: transforms.layer_rates({"head": [1.0] * 3}), "has no layers"),
        (lambda: transforms.layer_rates({"blocks[1].mlp": [1.0] * 3}), "names single layers"),
        (lambda: transforms.layer_mask([0.0, 1.0, 1.0]), "True or False"),
        (lambda: transforms.layer_rates(np.ones([3, 2])), "the shape [3, 2]"),
    ],
)
def test_what_cannot_be_localized_is_an_error(make, message):
    with pytest.raises(InputError) as error:
        make().init(trees(0))
    assert message in str(error.value) and "\n" not in str(error.value)
