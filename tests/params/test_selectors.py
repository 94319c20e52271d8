"""Selectors name parameters, or say what exists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmdyn.errors import InputError
from lmdyn.params import flatten, partition, select
from tests.helpers import small


@pytest.mark.parametrize(
    "selector, layers",
    [
        ("blocks[1].mlp.up", (1,)),
        ("blocks[-1].mlp.up", (2,)),
        ("blocks[1:].mlp.up", (1, 2)),
        ("blocks[::2].mlp.up", (0, 2)),
        ("blocks[0,2].mlp.up", (0, 2)),
        ("blocks.mlp.up", (0, 1, 2)),
        ("blocks[0].mlp.up+blocks[2].mlp", (0, 2)),
    ],
)
def test_layers(selector, layers):
    _, params = small()
    assert select(params, selector)["blocks", "mlp", "up", "kernel"] == layers


def test_a_group_is_exactly_what_lies_below_its_path():
    _, params = small()
    chosen = select(params, "blocks.mlp+head")
    assert {path[:2] for path in chosen} == {("blocks", "mlp"), ("head", "kernel")}
    assert set(select(params, "all")) == set(flatten(params))


@pytest.mark.parametrize(
    "selector, message",
    [
        ("", "cannot be read"),
        ("blocks[", "cannot be read"),
        ("bloks", "the model holds blocks, embed, final_norm, head"),
        ("blocks.mlp.gates", "'blocks.mlp' holds down, gate, up"),
        ("head[1]", "only blocks have layers"),
        ("blocks[7]", "outside the model's 3 blocks"),
        ("blocks[2:2]", "matches no layer"),
        ("blocks[a]", "is not a layer"),
        ("blocks[::0]", "step 0"),
        ("blocks.mlp.up.kernel.x", "nothing below it"),
        ("head+nothing", "'nothing'"),
    ],
)
def test_what_matches_nothing_is_an_error(selector, message):
    _, params = small()
    with pytest.raises(InputError) as error:
        select(params, selector)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "selector", ["all", "head", "blocks[0,2].mlp", "blocks[1].attention+blocks[1:].mlp", "embed"]
)
def test_split_and_join_are_inverse(selector):
    _, params = small()
    part = partition(params, selector)
    again = part.join(*part.split(params))
    assert flatten(again).keys() == flatten(params).keys()
    for path, leaf in flatten(params).items():
        np.testing.assert_array_equal(flatten(again)[path], leaf)


@pytest.mark.parametrize("selector", ["blocks[0,2].mlp", "blocks[1].attention+blocks[1:].mlp"])
def test_gradients_of_chosen_layers_come_back_without_arrays_of_zeros_about_them(selector):
    _, params = small()
    part = partition(params, selector)
    chosen, rest = part.split(params)

    def squares(chosen, rest):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(part.merge(chosen, rest)))

    found = flatten(jax.grad(squares)(chosen, rest))
    for path, leaf in flatten(chosen).items():
        np.testing.assert_array_equal(found[path], 2 * leaf)
    steps = str(jax.make_jaxpr(jax.grad(squares))(chosen, rest))
    assert "concatenate" in steps and " pad[" not in steps
