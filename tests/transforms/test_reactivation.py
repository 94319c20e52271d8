"""Reactivation: measured again, chosen coefficients are where they were to be; nothing else has
changed.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmdyn import metrics, models, transforms
from lmdyn.errors import InputError
from lmdyn.models.matrices.quantized import QuantizedMatrix
from lmdyn.params import flatten
from tests.helpers import KINDS, assert_close, batch

METRIC = metrics.knowledge_entropy()
BATCHES = [batch(3, 11, 1, masked=True)]
CONFIGS = {
    "gated silu": KINDS["gated"],
    "gated gelu, biases": dataclasses.replace(
        KINDS["gated"], activation="gelu", mlp_bias=True, mlp_width=37
    ),
    "plain gelu": KINDS["parallel"],
    "plain gelu_tanh": KINDS["learned"],
    "plain relu": dataclasses.replace(KINDS["learned"], activation="relu"),
}
COEFFICIENTS = np.array(
    [[4.0, 1.0, 3.0, 2.0, 7.0], [5.0, 6.0, 7.0, 8.0, 9.0], [0.0, 0.5, 0.0, 2.0, 2.0]]
)


@functools.cache
def made(kind: str, scale: float = 6.0):
    """Model, parameters and coefficients: matrices `scale` times those at initialisation, biases at
    random.
    """
    model, rng = models.LanguageModel(CONFIGS[kind]), np.random.default_rng(5)

    def drawn(path, leaf):
        if path[-1].key == "bias":
            return leaf + rng.normal(0, 0.1 * scale, leaf.shape).astype(np.float32)
        return leaf * scale if path[-1].key in ("kernel", "embedding") else leaf

    params = jax.tree_util.tree_map_with_path(drawn, models.init(model, seed=3))
    return model, params, coefficients_of(model, params)


def coefficients_of(model, params):
    return metrics.measure(METRIC, model, params, BATCHES).coefficients


def bits(leaf):
    return np.asarray(leaf).tobytes()


def reached(kind, layer, gain=1.0, scale=6.0):
    """Chosen coefficients of one layer after it alone was changed, as shares of `gain` times the
    mean before.
    """
    model, params, before = made(kind, scale)
    ratio = np.where(np.arange(3) == layer, 0.5, 0.0)
    after = coefficients_of(model, transforms.reactivate(params, before, ratio, gain))
    return after[transforms.dormant(before, ratio)] / (gain * before[layer].mean())


@pytest.mark.parametrize("gain", [1.0, 2.5])
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("kind, chosen", [("gated silu", 18), ("gated gelu, biases", 19)])
def test_measured_again_each_chosen_coefficient_is_at_the_mean_before(kind, chosen, layer, gain):
    """One layer at a time: those above it see other inputs. Of an odd number, the half holds the
    median.
    """
    found = reached(kind, layer, gain)
    assert found.shape == (chosen,)
    np.testing.assert_allclose(found, 1.0, rtol=1e-4)


def test_coefficients_that_were_not_chosen_stay():
    model, params, before = made("gated gelu, biases")
    after = coefficients_of(model, transforms.reactivate(params, before, [0.0, 0.3, 0.0]))
    stays = ~transforms.dormant(before, [0.0, 0.3, 0.0])
    np.testing.assert_allclose(after[:2][stays[:2]], before[:2][stays[:2]], rtol=1e-5)


def test_chosen_ones_of_a_relu_are_at_the_mean_or_dead():
    _, _, before = made("plain relu")
    for layer in range(3):
        dead = before[layer][transforms.dormant(before, 0.5)[layer]] == 0
        assert dead.any() and not dead.all()
        np.testing.assert_allclose(
            reached("plain relu", layer), np.where(dead, 0.0, 1.0), rtol=1e-4
        )


@pytest.mark.parametrize("kind", ["plain gelu", "plain gelu_tanh"])
def test_how_far_off_a_plain_mlp_is(kind):
    """The docstring's numbers: near at the scale of initialisation, far where inputs are far from
    0.
    """
    for gain, limit in ((1.0, 0.16), (2.0, 0.33)):
        worst = max(np.abs(reached(kind, layer, gain, scale=1.0) - 1).max() for layer in range(3))
        assert 0.05 < worst < limit
    for layer in range(3):
        large = reached(kind, layer)
        assert 0.35 < large.mean() < 0.7 and large.max() < 1.45


def test_weights_are_the_formula():
    _, params, before = made("gated gelu, biases")
    found = flatten(transforms.reactivate(params, before, [0.2, 0.0, 1.0], gain=1.7))
    for path, leaf in flatten(params).items():
        if path[:3] != ("blocks", "mlp", "up"):
            assert found[path] is leaf
            continue
        wanted = np.array(leaf, np.float64)
        for layer, limit in (
            (0, np.sort(before[0])[7]),
            (2, np.inf),
        ):  # 0.2 * 36 = 7.2: up to the eighth
            for unit in np.flatnonzero(before[layer] <= limit):
                wanted[layer, ..., unit] *= 1.7 * before[layer].mean() / before[layer, unit]
        assert_close(found[path], wanted, 1e-6)


def test_ratio_zero_changes_no_bit():
    _, params, before = made("gated silu")
    kernel = (
        params["blocks"]["mlp"]["up"]["kernel"].at[0, 0, 0].set(1e-40).at[2, 1, 1].set(-0.0)
    )  # lost by a product
    params = {
        **params,
        "blocks": {
            **params["blocks"],
            "mlp": {**params["blocks"]["mlp"], "up": {"kernel": kernel}},
        },
    }
    assert jax.tree.map(bits, transforms.reactivate(params, before, 0.0, gain=3.0)) == jax.tree.map(
        bits, params
    )
    some = transforms.reactivate(params, before, [0.0, 0.5, 0.0])["blocks"]["mlp"]["up"]["kernel"]
    assert [bits(some[layer]) == bits(kernel[layer]) for layer in range(3)] == [True, False, True]


def test_jit_dtypes_and_shardings():
    _, params, before = made("gated silu")
    wake = lambda params: transforms.reactivate(params, before, 0.5, gain=2.0)
    wanted = wake(params)["blocks"]["mlp"]["up"]["kernel"]
    np.testing.assert_allclose(
        jax.jit(wake)(params)["blocks"]["mlp"]["up"]["kernel"], wanted, rtol=1e-6
    )

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("fsdp",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "fsdp"))
    kernel = jax.device_put(params["blocks"]["mlp"]["up"]["kernel"], place)
    divided = wake({"blocks": {"mlp": {"up": {"kernel": kernel}}}})["blocks"]["mlp"]["up"]["kernel"]
    assert divided.sharding.is_equivalent_to(place, 3) and mesh.size == 8
    np.testing.assert_array_equal(divided, wanted)

    half = wake({"blocks": {"mlp": {"up": {"kernel": kernel.astype(jnp.bfloat16)}}}})["blocks"][
        "mlp"
    ]["up"]["kernel"]
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), wanted, rtol=2**-7)


def test_dead_coefficients_are_left_as_they_are():
    up = {"kernel": jnp.ones([3, 2, 5])}
    tiny = np.where(
        COEFFICIENTS == 0.5, 1e-35, COEFFICIENTS
    )  # its factor is beyond float32 weights
    found = transforms.reactivate({"blocks": {"mlp": {"up": up}}}, tiny, 1.0)["blocks"]["mlp"][
        "up"
    ]["kernel"]
    np.testing.assert_allclose(found[2, 0], [1, 1, 1, 0.4, 0.4], rtol=1e-6)  # mean 4 / 5


@pytest.mark.parametrize(
    "ratio, counts",
    [
        (0.0, [0, 0, 0]),
        (0.25, [2, 2, 2]),
        (0.5, [3, 3, 3]),
        (1.0, [5, 5, 5]),
        ([0.0, 0.3, 0.8], [0, 2, 5]),
    ],
)
def test_dormant_are_the_smallest_by_quantile(ratio, counts):
    """By hand; the two 2.0 of the last layer equal its quantile at 0.8, and both are taken."""
    chosen = transforms.dormant(COEFFICIENTS, ratio)
    assert chosen.sum(1).tolist() == counts
    for values, taken in zip(COEFFICIENTS, chosen, strict=True):
        assert not taken.any() or taken.all() or values[taken].max() < values[~taken].min()


def test_the_control_takes_as_many_of_any():
    ratio, seeds = [0.0, 0.25, 0.5], range(400)
    drawn = np.array([transforms.at_random(COEFFICIENTS, ratio, seed) for seed in seeds])
    assert (drawn.sum(2) == [0, 2, 3]).all()
    share = drawn.mean(0)[1:]
    wanted = np.array([[2 / 5], [3 / 5]])
    assert (np.abs(share - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / len(seeds))).all()
    again = transforms.at_random(COEFFICIENTS, ratio, 7)
    assert (again == drawn[7]).all()
    assert (transforms.at_random(COEFFICIENTS, 0.8, 7) >= again).all()


def used(count: int, width: int = 64) -> np.ndarray:
    """A layer that uses `count` of its coefficients alike: entropy log count."""
    return np.where(np.arange(width) < count, 0.3, 0.0)


@pytest.mark.parametrize(
    "counts, ratio, wanted",
    [
        ([64, 64, 64], 0.4, [0.4, 0.4, 0.4]),  # no deficit
        ([8, 8, 8], 0.4, [0.4, 0.4, 0.4]),  # equal ones
        ([1, 8, 8], 0.4, [0.6, 0.3, 0.3]),  # deficits 1, 1/2, 1/2
        # 1.2 is too much for the first; the others share the rest
        ([1, 8, 8], 0.8, [1.0, 0.7, 0.7]),
        ([1, 16, 32], 0.7, [1.0, 22 / 30, 11 / 30]),  # deficits 1, 1/3, 1/6
        ([8, 64, 64], 0.5, [1.0, 0.0, 0.0]),  # more than those with a deficit can take
        ([0, 8, 8], 0.4, [0.0, 0.6, 0.6]),  # a layer without signal
        ([1, 8, 16], 0.0, [0.0, 0.0, 0.0]),
        ([1, 8, 16], 1.0, [1.0, 1.0, 1.0]),
    ],
)
def test_more_where_entropy_is_lower(counts, ratio, wanted):
    found = transforms.by_entropy([used(count) for count in counts], ratio)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("control", ["none", "random"])
@pytest.mark.parametrize("strength", ["equal", "entropy"])
def test_a_measured_transform_is_its_parts(control, strength):
    model, params, before = made("gated silu")
    wake = transforms.reactivation(0.4, 1.5, control, strength, seed=3)
    found = wake.change(params, metrics.measure(wake.metric, model, params, BATCHES))
    ratios = transforms.by_entropy(before, 0.4) if strength == "entropy" else [0.4] * 3
    chosen = (
        transforms.at_random(before, ratios, 3)
        if control == "random"
        else transforms.dormant(before, ratios)
    )
    wanted = transforms.reactivate(params, before, gain=1.5, chosen=chosen)
    assert jax.tree.map(bits, found) == jax.tree.map(bits, wanted)


def tree(**up):
    return {"embed": {}, "blocks": {"mlp": {"down": {"kernel": jnp.ones([3, 5, 2])}, "up": up}}}


FITS = tree(kernel=jnp.ones([3, 2, 5]))
PACKED = tree(
    kernel=QuantizedMatrix(
        np.zeros([3, 5, 1, 32], np.int8), np.zeros([3, 5, 1], np.float16), None, "Q8_0"
    )
)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: transforms.dormant(COEFFICIENTS, 1.5), "ratio=1.5; a ratio is between 0 and 1"),
        (
            lambda: transforms.dormant(COEFFICIENTS, [0.5, -0.1, 0.5]),
            "ratio=-0.1; a ratio is between 0 and 1",
        ),
        (lambda: transforms.dormant(COEFFICIENTS, np.nan), "ratio=nan; a ratio is between 0 and 1"),
        (
            lambda: transforms.dormant(COEFFICIENTS, [0.5, 0.5]),
            "ratio has shape [2]; give one number, or one for each of 3 layers",
        ),
        (
            lambda: transforms.dormant(COEFFICIENTS[0], 0.5),
            "coefficients have shape [5]; they are [layers, MLP width]",
        ),
        (lambda: transforms.dormant(-COEFFICIENTS, 0.5), "coefficient 0 of layer 0 is -4.0"),
        (
            lambda: transforms.reactivate(FITS, np.where(COEFFICIENTS == 8, np.nan, COEFFICIENTS)),
            "coefficient 3 of layer 1 is nan",
        ),
        (
            lambda: transforms.by_entropy(COEFFICIENTS, [0.5] * 3),
            "ratio has shape [3]; by_entropy takes one number",
        ),
        (
            lambda: transforms.at_random(COEFFICIENTS, 0.5, -1),
            "seed=-1; a seed is a whole number from 0",
        ),
        (
            lambda: transforms.reactivate(FITS, COEFFICIENTS, gain=0.0),
            "gain=0.0; a gain is a number above 0",
        ),
        (
            lambda: transforms.reactivate(FITS, COEFFICIENTS, gain=float("nan")),
            "gain=nan; a gain is a number above 0",
        ),
        (
            lambda: transforms.reactivate(FITS, COEFFICIENTS, ratio=2.0),
            "ratio=2.0; a ratio is between 0 and 1",
        ),
        (
            lambda: transforms.reactivate(FITS, COEFFICIENTS[:, 1:]),
            "coefficients have shape [3, 4]; the model's MLPs are [3, 5]",
        ),
        (
            lambda: transforms.reactivate(FITS, COEFFICIENTS, chosen=COEFFICIENTS),
            "chosen is float64 of shape [3, 5]; it must be bool, of",
        ),
        (
            lambda: transforms.reactivate(FITS, COEFFICIENTS, chosen=np.ones([3, 4], bool)),
            "chosen is bool of shape [3, 4]",
        ),
        (
            lambda: transforms.reactivate(tree(), COEFFICIENTS),
            "matches nothing: 'blocks.mlp.up' holds",
        ),
        (
            lambda: transforms.reactivate({"blocks": {"moe": jnp.ones([3, 1])}}, COEFFICIENTS),
            "matches nothing: 'blocks' holds moe",
        ),
        (
            lambda: transforms.reactivate({"blocks": (FITS["blocks"],)}, COEFFICIENTS),
            "cut into several stacks; join them first",
        ),
        (
            lambda: transforms.reactivate(PACKED, COEFFICIENTS),
            "blocks.mlp.up.kernel is quantised (Q8_0) and cannot be changed",
        ),
        (lambda: transforms.reactivation(control="randum"), "did you mean 'random'?"),
        (lambda: transforms.reactivation(strength="entropi"), "did you mean 'entropy'?"),
        (lambda: transforms.reactivation(gain=-1.0), "gain=-1.0; a gain is a number above 0"),
        (
            lambda: transforms.reactivation(control="random", seed=0.5),
            "seed=0.5; a seed is a whole number from 0",
        ),
    ],
)
def test_what_cannot_be_reactivated_is_one_line(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)
