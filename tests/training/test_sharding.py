"""Sharded equals unsharded, and sharded is sharded."""

import dataclasses
import re

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from lmdyn import metrics, models, online
from lmdyn.errors import InputError
from lmdyn.params import flatten, partition
from lmdyn.training import sharding
from tests import helpers

# Each shape with one kind of model: every axis is met alone and with the others, by both kinds.
SHAPES = {"gated": ((2, 2, 2), (1, 1, 8)), "tied": ((8, 1, 1), (2, 4, 1))}
# Widths that the meshes above divide, so that something is divided; the kinds of the helpers have
# odd ones.
EVEN = {
    "gated": models.ModelConfig(
        vocab=64, width=16, depth=3, heads=8, kv_heads=2, head_width=4, mlp_width=24, positions=99
    ),
    "tied": models.ModelConfig(
        vocab=64,
        width=16,
        depth=3,
        heads=8,
        head_width=2,
        mlp_width=24,
        positions=99,
        position="learned",
        gated=False,
        activation="gelu",
        norm="layer",
        norm_bias=True,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        tied_head=True,
        parallel=True,
    ),
}


def even(kind):
    model = models.LanguageModel(EVEN[kind])
    return model, jax.tree.map(lambda leaf: leaf * 4, models.init(model, seed=1))


def gradients(model, params, batch):
    def loss(params, batch):
        total, (nll, _) = models.loss(
            model, params, batch.inputs, batch.targets, batch.mask / batch.mask.sum()
        )
        return total, nll

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params, batch)


def cases():
    yield from ((f"helpers.{kind}", helpers.small, kind, (2, 2, 2)) for kind in helpers.KINDS)
    yield from ((f"even.{kind}", even, kind, shape) for kind in EVEN for shape in SHAPES[kind])


@pytest.mark.parametrize(
    "make,kind,shape", [pytest.param(*case[1:], id=f"{case[0]}-{case[3]}") for case in cases()]
)
def test_loss_and_gradients_are_those_of_one_device(make, kind, shape, monkeypatch):
    monkeypatch.setattr(models.tiles, "TILE_BYTES", 4 * 64 * 7)  # several ragged blocks of rows
    model, params = make(kind)
    batch = helpers.batch(8, 9, masked=True)
    (wanted, nll), gradient = gradients(model, params, batch)
    mesh = sharding.make_mesh(shape)
    spread = sharding.spread(model, mesh)
    placed = sharding.shard(params, mesh, model.config)
    (found, found_nll), found_gradient = gradients(spread, placed, sharding.put_batch(batch, mesh))
    helpers.assert_close(found, wanted, 1e-5)
    helpers.assert_close(found_nll, nll, 1e-5)
    for (path, a), b in zip(
        flatten(found_gradient).items(), flatten(gradient).values(), strict=True
    ):
        if path[-2:] != (
            "key",
            "bias",
        ):  # exactly zero but for rounding: a key's bias moves all scores alike
            helpers.assert_close(a, b, 1e-5)


@pytest.mark.parametrize("shape", [(2, 2, 2)])
def test_metrics_are_those_of_one_device(shape):
    model, params = even("gated")
    metric = metrics.build("nll,knowledge_entropy,attention_entropy,prediction_entropy,anisotropy")
    batches = [helpers.batch(8, 9, seed=seed, masked=True) for seed in range(2)]
    wanted = metric.finish(metrics.accumulate(metric, model, params, batches), params)
    mesh = sharding.make_mesh(shape)
    placed = sharding.shard(params, mesh, model.config)
    state = metrics.accumulate(
        metric,
        sharding.spread(model, mesh),
        placed,
        batches,
        sharding=sharding.batch_sharding(mesh),
    )
    found = metric.finish(state, placed)
    for name in wanted:
        for field, value in vars(wanted[name]).items():
            helpers.assert_close(getattr(found[name], field), value, 1e-5)


@pytest.mark.parametrize(
    "shape,adapt,context",
    [((1, 4, 2), "all", online.none()), ((1, 2, 4), "blocks[1:].mlp", online.cache(6))],
)
def test_online_adaptation_is_that_of_one_device(shape, adapt, context):
    model, params = even("gated")
    how = optax.adam(1e-3), online.OnlineConfig(chunk=7, adapt=adapt, context=context)
    wanted = online.evaluate(model, params, [helpers.tokens(60)], *how)
    mesh = sharding.make_mesh(shape)
    placed = sharding.shard(params, mesh, model.config)
    found = online.evaluate(model, placed, [helpers.tokens(60)], *how)
    helpers.assert_close(found.nll, wanted.nll, 1e-5)
    assert found.params["blocks"]["mlp"]["up"]["kernel"].sharding.spec == P(None, "fsdp", "tensor")


def test_parameters_are_divided():
    model, params = even("gated")
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    norms = sum(leaf.nbytes for path, leaf in flatten(params).items() if path[-1] == "scale")
    for shape, parts in (((8, 1, 1), 1), ((1, 8, 1), 8), ((2, 4, 1), 4), ((2, 2, 2), 4)):
        found = sharding.bytes_per_device(
            sharding.shard(params, sharding.make_mesh(shape), model.config)
        )
        assert len(found) == 8
        assert set(found.values()) == {norms + (whole - norms) // parts}


def test_optimizer_state_lies_where_its_parameters_lie():
    model, params = even("gated")
    mesh = sharding.make_mesh((1, 4, 2))
    placed = sharding.shard(params, mesh, model.config)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.masked(
            optax.add_decayed_weights(0.1), jax.tree.map(lambda leaf: leaf.ndim > 2, params)
        ),
        optax.multi_transform(
            {
                "a": optax.adam(optax.cosine_decay_schedule(1e-3, 10)),
                "b": optax.sgd(1e-2, momentum=0.9),
            },
            {
                "embed": "a",
                "blocks": {"attention": "a", "mlp": "b", "attention_norm": "b", "mlp_norm": "b"},
                "head": "b",
                "final_norm": "a",
            },
        ),
    )
    state = jax.eval_shape(optimizer.init, params)
    places = sharding.state_shardings(state, params, mesh, model.config)
    made = jax.jit(optimizer.init, out_shardings=places)(placed)
    specs = {
        jax.tree_util.keystr(path): place.spec
        for path, place in jax.tree_util.tree_leaves_with_path(places)
    }
    up = [spec for path, spec in specs.items() if path.endswith("['up']['kernel']")]
    assert up == [P(None, "fsdp", "tensor")]  # momentum; adam has it masked
    assert (
        len([s for path, s in specs.items() if path.endswith("['query']['kernel']")]) == 2
    )  # both moments
    assert all(spec == P() for path, spec in specs.items() if path.endswith("count"))
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(made))
    assert max(sharding.bytes_per_device(made).values()) < 0.16 * whole


def test_parts_of_the_parameters_are_placed_alike():
    model, params = even("gated")
    mesh = sharding.make_mesh((1, 4, 2))
    chosen, rest = partition(params, "blocks[1].mlp+head").split(params)
    assert sharding.param_specs(chosen, mesh)["blocks"]["mlp"]["down"]["kernel"] == P(
        None, "tensor", "fsdp"
    )
    specs = sharding.param_specs(rest, mesh, model.config)
    assert len(specs["blocks"]) == 3
    assert specs["blocks"][2]["attention"]["query"]["kernel"] == P(None, "fsdp", "tensor")
    assert specs["blocks"][0]["attention_norm"]["scale"] == P()


def test_attention_is_divided_between_whole_heads():
    config = dataclasses.replace(
        EVEN["gated"], heads=6, kv_heads=2, head_width=4
    )  # 24 numbers, 6 heads
    shapes, mesh = models.shapes(config), sharding.make_mesh((1, 2, 4))
    attention = sharding.param_specs(shapes, mesh, config)["blocks"]["attention"]
    assert attention["query"]["kernel"] == P(None, "fsdp")
    assert attention["output"]["kernel"] == P(None, None, "fsdp")
    assert sharding.param_specs(shapes, mesh)["blocks"]["attention"]["query"]["kernel"] == P(
        None, "fsdp", "tensor"
    )
    notes = sharding.uneven(shapes, mesh, config)
    assert "blocks.attention.query.kernel: 6 heads are not a multiple of tensor=4" in notes


def test_every_parameter_has_a_rule_of_its_own():
    for config in [*helpers.KINDS.values(), *EVEN.values()]:
        for path in flatten(models.shapes(config)):
            norm = any("norm" in name for name in path)
            first = next(
                rule
                for rule, _ in sharding.AXIS_RULES
                if f"{'.'.join(path)}.".startswith(f"{rule}." if rule else "")
            )
            assert bool(first) != norm, path


def compiled(shape):
    """The program of loss and gradient on a mesh, as text."""
    model = models.LanguageModel(EVEN["gated"])
    mesh = sharding.make_mesh(shape)
    shapes = models.shapes(model.config)
    places = sharding.param_shardings(shapes, mesh, model.config)
    params = jax.tree.map(
        lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, places
    )
    rows = jax.ShapeDtypeStruct((40, 11), np.int32, sharding=sharding.batch_sharding(mesh))
    loss = lambda params, batch: models.loss(
        sharding.spread(model, mesh), params, batch, batch, batch * 0.01
    )[0]
    return jax.jit(jax.grad(loss), out_shardings=places).lower(params, rows).compile().as_text()


@pytest.mark.parametrize("shape", [(2, 4, 1), (2, 2, 2)])
def test_activations_stay_where_their_rows_are(shape, capfd, monkeypatch):
    monkeypatch.setattr(models.tiles, "TILE_BYTES", 4 * 64 * 5)
    text = compiled(shape)
    assert "Involuntary full rematerialization" not in capfd.readouterr().err
    gathered = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather\(", text)
    assert (
        gathered
    )  # parameters, gathered along fsdp; a gathered activation would have 40 rows or 440 tokens
    assert not [dims for dims in gathered if set(dims.split(",")) & {"40", "440", "11"}], gathered
    assert not re.findall(r" all-to-all\(| collective-permute\(", text)


def test_rows_are_divided_over_data_and_fsdp():
    mesh = sharding.make_mesh((2, 2, 2))
    batch = sharding.put_batch(helpers.batch(8, 5), mesh)
    assert {part.data.shape for part in batch.inputs.addressable_shards} == {(2, 5)}
    assert sharding.row_share(mesh) == (0, 1)
    np.testing.assert_array_equal(batch.targets, helpers.batch(8, 5).targets)


def test_a_mesh_may_use_some_of_the_devices():
    assert list(sharding.make_mesh((1, 3, 1)).devices.flat) == jax.devices()[:3]
    assert sharding.make_mesh().shape == {"data": 8, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    "call,said",
    [
        (lambda: sharding.parse_mesh("4,x"), "mesh '4,x' cannot be read"),
        (lambda: sharding.parse_mesh("4,0"), "mesh '4,0' cannot be read"),
        (lambda: sharding.parse_mesh("1,2,3,4"), "such as 4,8,2"),
        (lambda: sharding.make_mesh((4, 4, 1)), "mesh 4,4,1 needs 16 devices, and there are 8"),
        (lambda: sharding.make_mesh((4, -1, 1)), "three numbers >= 1"),
        (lambda: sharding.check_batch(6, sharding.make_mesh((2, 2, 2))), "use 4 or 8 rows"),
        (lambda: sharding.check_batch(3, sharding.make_mesh((2, 2, 2))), "use 4 rows"),
        (
            lambda: sharding.check_batch(4, sharding.make_mesh((2, 2, 2)), accumulate=2),
            "fsdp=2 x accumulate=2; use 8 rows",
        ),
    ],
)
def test_bad_input(call, said):
    with pytest.raises(InputError, match=re.escape(said)):
        call()
