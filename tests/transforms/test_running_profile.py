"""Rates in the optimizer's state, and a profile that is estimated there: against the definition
written out in NumPy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmdyn import transforms
from lmdyn.errors import InputError
from lmdyn.params import flatten, unflatten
from lmdyn.transforms import running_profile

DEPTH = 3
REFERENCE = {"attention": [0.5, 1.0, 2.0], "mlp": [1.0, 0.25, 3.0]}
PATHS = {
    "attention": [("blocks", "attention", "key", "kernel")],
    "mlp": [("blocks", "mlp", "up", "kernel"), ("blocks", "mlp", "up", "bias")],
    None: [("head", "kernel"), ("blocks", "mlp_norm", "scale")],
}
SHAPES = {
    ("blocks", "attention", "key", "kernel"): (3, 2, 5),
    ("blocks", "mlp", "up", "kernel"): (3, 5, 7),
    ("blocks", "mlp", "up", "bias"): (3, 7),
    ("head", "kernel"): (5, 2),
    ("blocks", "mlp_norm", "scale"): (3, 5),
}


def tree(seed: int):
    rng = np.random.default_rng(seed)
    return unflatten(
        {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in SHAPES.items()}
    )


def trained(optimizer, steps: int, state=None):
    params = tree(0)
    state = optimizer.init(params) if state is None else state
    update = jax.jit(optimizer.update)
    for step in range(steps):
        updates, state = update(tree(step + 1), state, params)
        params = optax.apply_updates(params, updates)
    return flatten(params), state


def by_definition(mode: str, steps: int, decay: float, rate: float):
    """SGD restricted by a running profile, in float64 and plain loops."""
    params = {path: np.asarray(leaf, np.float64) for path, leaf in flatten(tree(0)).items()}
    seen = {group: [] for group in REFERENCE}
    for step in range(steps):
        gradient = {
            path: np.asarray(leaf, np.float64) for path, leaf in flatten(tree(step + 1)).items()
        }
        r = {}
        for group in REFERENCE:
            norms = [
                np.sqrt(sum((gradient[path][layer] ** 2).sum() for path in PATHS[group]))
                for layer in range(DEPTH)
            ]
            seen[group].append(norms)
            r[group] = (
                np.average(
                    seen[group],
                    axis=0,
                    weights=[decay ** (step - past) for past in range(step + 1)],
                )
                / REFERENCE[group]
            )
        middle = np.mean([r["attention"], r["mlp"]])
        for group, paths in PATHS.items():
            for path in paths:
                if group is None:
                    factor = 0.0 if mode == "freeze" else 1.0
                else:
                    one = (
                        (r[group] > middle).astype(float) if mode == "freeze" else r[group] / middle
                    )
                    factor = one.reshape(-1, *[1] * (gradient[path].ndim - 1))
                params[path] = params[path] - rate * factor * gradient[path]
    return params


@pytest.mark.parametrize("mode", ["freeze", "scale"])
def test_a_running_profile_is_its_definition(mode):
    found, state = trained(transforms.relocalize(optax.sgd(0.1), REFERENCE, mode, decay=0.7), 5)
    for path, wanted in by_definition(mode, 5, 0.7, 0.1).items():
        np.testing.assert_allclose(found[path], wanted, atol=2e-6, err_msg=str(path))
    assert int(state.count) == 5 and set(state.norms) == {"attention", "mlp"}


def test_what_is_frozen_all_the_time_keeps_its_bits():
    """With a reference so large that a layer can never lie above the mean."""
    reference = {"attention": [1e9, 1.0, 1.0], "mlp": [1.0, 1.0, 1e9]}
    found, _ = trained(
        transforms.relocalize(optax.adamw(1e-2, weight_decay=0.1), reference, "freeze"), 20
    )
    before = flatten(tree(0))
    same = lambda path, layer: (
        np.asarray(found[path][layer]).view(np.uint32)
        == np.asarray(before[path][layer]).view(np.uint32)
    ).all()
    assert same(PATHS["attention"][0], 0) and same(PATHS["mlp"][0], 2)
    assert all(same(path, ...) for path in PATHS[None])
    assert not same(PATHS["mlp"][0], 0)


def test_equal_profiles_are_plain_training():
    """A reference that is the gradient's own norm makes r equal everywhere, at the first step."""
    norms = {group: np.asarray(values) for group, values in transforms.group_norms(tree(1)).items()}
    found, _ = trained(transforms.relocalize(optax.sgd(0.1), norms, "scale"), 1)
    plain, _ = trained(optax.sgd(0.1), 1)
    for path, leaf in plain.items():
        np.testing.assert_allclose(found[path], leaf, rtol=1e-6, atol=1e-7)


def test_rates_in_the_state_are_layer_rates():
    rates = {"attention": [0.0, 2.0, 0.5], "mlp": [1.0, 0.0, 3.0]}
    optimizer = optax.chain(optax.adamw(1e-2, weight_decay=0.1), transforms.adjustable_rates())
    state = transforms.with_rates(optimizer.init(tree(0)), rates, elsewhere=0.0)
    found, _ = trained(optimizer, 6, state)
    plain = trained(
        optax.chain(optax.adamw(1e-2, weight_decay=0.1), transforms.layer_rates(rates)), 6
    )[0]
    before = flatten(tree(0))
    for group, paths in PATHS.items():
        for path in paths:
            wanted = before[path] if group is None else plain[path]
            np.testing.assert_allclose(found[path], wanted, rtol=1e-6, atol=1e-7)
    assert (
        np.asarray(found[PATHS["mlp"][0]][1]).view(np.uint32)
        == np.asarray(before[PATHS["mlp"][0]][1]).view(np.uint32)
    ).all()
    once = trained(optimizer, 6)[0]  # all 1 at first: plain training
    for path, leaf in trained(optax.adamw(1e-2, weight_decay=0.1), 6)[0].items():
        np.testing.assert_array_equal(once[path], leaf)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: transforms.relocalize(
                optax.sgd(1.0), {"attention": [1.0] * 4, "mlp": [1.0] * 4}
            ).init(tree(0)),
            "4 layers, and the parameters have 3 blocks",
        ),
        (
            lambda: transforms.relocalize(
                optax.sgd(1.0), {"attention": [1.0, 0.0, 1.0], "mlp": [1.0] * 3}
            ),
            "norms are finite and above 0",
        ),
        (
            lambda: transforms.relocalize(
                optax.sgd(1.0), {"attention": [1.0, float("nan"), 1.0], "mlp": [1.0] * 3}
            ),
            "norms are finite and above 0",
        ),
        (
            lambda: transforms.relocalize(optax.sgd(1.0), {"mlp": [1.0] * 3}),
            "unknown group of the reference 'attention'",
        ),
        (
            lambda: transforms.relocalize(optax.sgd(1.0), REFERENCE, "frezee"),
            "did you mean 'freeze'",
        ),
        (lambda: transforms.relocalize(optax.sgd(1.0), REFERENCE, decay=1.0), "decay=1.0"),
        (lambda: transforms.with_rates(optax.sgd(1.0).init(tree(0)), {}), "no adjustable_rates"),
        (
            lambda: transforms.with_rates(
                transforms.adjustable_rates(["mlp"]).init(tree(0)), {"mlp": [1.0]}
            ),
            "the state has mlp [3]",
        ),
        (
            lambda: transforms.with_rates(
                transforms.adjustable_rates(["mlp"]).init(tree(0)), {"mlp": [-1.0] * 3}
            ),
            "at least 0",
        ),
        (lambda: transforms.group_norms(tree(0), ["mpl"]), "the model holds blocks"),
    ],
)
def test_bad_input_is_one_line(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_profile_that_a_state_holds_can_be_read():
    _, state = trained(transforms.relocalize(optax.sgd(0.0), REFERENCE, decay=0.5), 1)
    wanted = {
        group: np.asarray(values) / REFERENCE[group]
        for group, values in transforms.group_norms(tree(1)).items()
    }
    for group, values in running_profile.relative(state, 0.5).items():
        np.testing.assert_allclose(values, wanted[group], rtol=1e-6)
