"""The optimizer against PyTorch's, step by step; schedules against their closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmdyn.errors import InputError
from lmdyn.training import Apply, Optimizer, make_optimizer, schedule
from lmdyn.training.optimizer import decayed

SHAPES = {
    "embed": {"embedding": (7, 3)},
    "blocks": {"mlp": {"up": {"kernel": (2, 3, 5), "bias": (2, 5)}}},
    "final_norm": {"scale": (3,)},
}


def tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: (scale * rng.normal(size=shape)).astype(np.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def test_adamw_with_clipping_and_warmup_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    rule = Optimizer(
        learning_rate=0.03,
        schedule="cosine",
        warmup=4,
        final=0.1,
        weight_decay=0.2,
        clip=1.5,
        b1=0.8,
        b2=0.9,
        eps=1e-6,
    )
    optimizer, rate = make_optimizer(rule, 20), schedule(rule, 20)
    params = tree(0)
    state = optimizer.init(params)
    leaves = [torch.nn.Parameter(torch.tensor(leaf)) for leaf in jax.tree.leaves(params)]
    decays = jax.tree.leaves(decayed(params, "matrices"))
    theirs = torch.optim.AdamW(
        [
            {"params": [leaf], "weight_decay": 0.2 * d}
            for leaf, d in zip(leaves, decays, strict=True)
        ],
        lr=1.0,
        betas=(0.8, 0.9),
        eps=1e-6,
    )
    update = jax.jit(optimizer.update)
    for step in range(20):
        gradients = tree(step + 1, scale=0.05 if step % 2 else 3.0)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for leaf, gradient in zip(leaves, jax.tree.leaves(gradients), strict=True):
            leaf.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_(leaves, 1.5)
        for group in theirs.param_groups:
            group["lr"] = float(rate(step))
        theirs.step()
    for ours, leaf in zip(jax.tree.leaves(params), leaves, strict=True):
        np.testing.assert_allclose(ours, leaf.detach().numpy(), rtol=2e-5, atol=2e-6)


def test_schedules_are_their_closed_forms():
    steps, warmup, peak = 50, 10, 0.4
    rise = [peak * (s + 1) / warmup for s in range(warmup)]
    after = range(warmup, steps)
    x = [(s + 1 - warmup) / (steps - warmup + 1) for s in after]
    forms = {
        "constant": [peak for _ in after],
        "linear": [peak * (1 - 0.9 * v) for v in x],
        "cosine": [peak * (0.1 + 0.9 * (1 + math.cos(math.pi * v)) / 2) for v in x],
    }
    for kind, wanted in forms.items():
        rate = schedule(
            Optimizer(learning_rate=peak, schedule=kind, warmup=warmup, final=0.1), steps
        )
        np.testing.assert_allclose([float(rate(s)) for s in range(steps)], rise + wanted, rtol=1e-5)


def test_wsd_is_flat_until_it_falls():
    rate = schedule(
        Optimizer(learning_rate=0.4, schedule="wsd", warmup=5, decay_steps=10, final=0.0), 50
    )
    rates = [float(rate(s)) for s in range(50)]
    np.testing.assert_allclose(rates[4:40], 0.4, rtol=1e-6)
    np.testing.assert_allclose(np.diff(rates[41:]), -0.04, rtol=1e-3)


def test_what_decays():
    params = tree(0)
    names = lambda what: {
        "/".join(k.key for k in path)
        for path, on in jax.tree_util.tree_leaves_with_path(decayed(params, what))
        if on
    }
    assert names("matrices") == {"embed/embedding", "blocks/mlp/up/kernel"}
    assert names("kernels") == {"blocks/mlp/up/kernel"}
    assert names("final_norm+blocks.mlp.up.bias") == {"final_norm/scale", "blocks/mlp/up/bias"}
    with pytest.raises(InputError, match="single layers"):
        decayed(params, "blocks[0].mlp")
    with pytest.raises(InputError, match="matches nothing"):
        decayed(params, "haed")


@pytest.mark.parametrize(
    "name", ["adamw", "sgd", "momentum", "lion", "adafactor", "rmsprop", "muon"]
)
def test_every_rule_goes_down_a_bowl(name):
    optimizer = make_optimizer(Optimizer(name=name, learning_rate=0.01, weight_decay=0.01), 200)
    params = {"head": {"kernel": jnp.full([3, 4], 0.5)}}
    state = optimizer.init(params)
    bowl = lambda params: jnp.sum((params["head"]["kernel"] - 0.1) ** 2)
    start = bowl(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(bowl)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(100):
        params, state = step(params, state)
    assert bowl(params) < start / 2


def test_any_transformation_goes_into_the_chain():
    plain = make_optimizer(
        Optimizer(name="sgd", learning_rate=1.0, schedule="constant", weight_decay=0.0, clip=None),
        10,
    )
    signs = Apply("optax.scale_by_sign")
    halves = Apply("optax.scale", {"step_size": 0.5}, "updates")
    changed = make_optimizer(
        Optimizer(
            name="sgd",
            learning_rate=1.0,
            schedule="constant",
            weight_decay=0.0,
            clip=None,
            apply=(signs, halves),
        ),
        10,
    )
    gradients = tree(4)
    updates = [o.update(gradients, o.init(gradients), gradients)[0] for o in (plain, changed)]
    for before, after in zip(*map(jax.tree.leaves, updates), strict=True):
        np.testing.assert_allclose(after, 0.5 * np.sign(before))


@pytest.mark.parametrize(
    "apply, message",
    [
        (Apply("optax.no_such"), "module 'optax' has no attribute 'no_such'"),
        (Apply("nowhere.at_all"), "there is no module 'nowhere'"),
        (Apply("plain"), "is not a dotted name"),
        (Apply("optax.scale", {"wrong": 1}), "failed"),
        (Apply("math.sqrt", {}), "failed"),
        (Apply("builtins.dict", {}), "returned dict"),
    ],
)
def test_a_transformation_that_is_none_is_an_error(apply, message):
    with pytest.raises(InputError, match=message):
        make_optimizer(Optimizer(apply=(apply,)), 10)
