"""Plans against what really happens on the eight devices that the tests have."""

import dataclasses
import functools
import re
import resource
import runpy
from pathlib import Path

import jax
import pytest

from lmdyn import models
from lmdyn.costs import program_costs, programs
from lmdyn.costs.flop_counts import forward_flops
from lmdyn.errors import InputError
from lmdyn.training import Data, Optimizer, Source, TrainConfig, plan_text, sharding, step_plan
from lmdyn.training.optimizer import make_optimizer

MODEL = models.ModelConfig(
    vocab=64, width=16, depth=3, heads=8, kv_heads=2, head_width=4, mlp_width=24, positions=99
)
GATHERED = {"tied_head": True, "gated": False, "parallel": True}


def config(mesh=(1, 1, 1), model=MODEL, **fields):
    data = Data(sources=(Source("text:no/such/file"),), length=9, batch=16)
    fields = {"compute": models.Compute(dtype="float32", remat="full"), **fields}
    return TrainConfig(
        data=data, steps=10, out="unused", model=model, mesh=mesh, optimizer=Optimizer(), **fields
    )


def blocks_forward(model, rows, length):
    """Operations of the blocks' forward pass: what `remat="full"` computes again."""
    return forward_flops(model, rows * length, 0, rows * length * length)


compile_step = functools.cache(step_plan.compile_step)


@pytest.mark.parametrize(
    "model,accumulate",
    [(MODEL, 1), (dataclasses.replace(MODEL, **GATHERED), 2)],
    ids=["gated", "tied"],
)
def test_products_are_those_of_the_formula(model, accumulate):
    found = compile_step(
        config(model=model, accumulate=accumulate, compute=models.Compute(dtype="float32"))
    )
    assert found.products == found.flops
    again = compile_step(config(model=model, accumulate=accumulate))
    assert again.flops == found.flops
    # not all is computed again: of the last products of attention and MLP only the gradients are
    # needed
    assert 0.4 < (again.products - found.flops) / blocks_forward(model, 16, 9) < 1


@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2)])
def test_bytes_are_those_of_real_arrays(mesh):
    found = compile_step(config(mesh))
    devices = sharding.make_mesh(mesh)
    params = sharding.shard(models.init(models.LanguageModel(MODEL)), devices, MODEL)
    optimizer = make_optimizer(Optimizer(), 10)
    places = sharding.state_shardings(
        jax.eval_shape(optimizer.init, params), params, devices, MODEL
    )
    state = jax.jit(optimizer.init, out_shardings=places)(params)
    assert {found.parameters} == set(sharding.bytes_per_device(params).values())
    assert {found.optimizer} == set(sharding.bytes_per_device(state).values())
    assert found.gradients == found.parameters
    assert found.kept == 3 * (16 // (mesh[0] * mesh[1])) * 9 * 16 * 4
    assert found.least < found.most
    assert found.devices == 8
    one = compile_step(config())  # nothing is computed by two devices
    assert one.products == found.products
    assert found.total == found.trained == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_one_device_exchanges_nothing():
    assert compile_step(config()).exchanged == {}


def test_along_data_the_gradients_are_exchanged():
    found = compile_step(config((8, 1, 1)))
    assert set(found.exchanged) == {("all-reduce", "data")}
    ring = 2 * 7 / 8 * found.gradients
    assert ring <= found.exchanged["all-reduce", "data"] < 1.01 * ring  # and a few scalars


def test_along_fsdp_parameters_are_gathered():
    found = compile_step(config((1, 8, 1)))
    matrices = (found.gradients * 8) * 7 / 8  # nearly all of the parameters, once each
    # forward and, rematerialised, again on the way back; the embedding and the head only once
    assert matrices < found.exchanged["all-gather", "fsdp"] < 2 * matrices


def test_what_is_not_trained_has_no_gradient():
    found = compile_step(config((2, 2, 2), train="blocks[2].mlp"))
    assert found.trained == 3 * 16 * 24
    assert found.total == compile_step(config()).total
    assert found.gradients == found.trained * 4 // 4  # divided by fsdp and tensor
    assert found.kept == 1 * 4 * 9 * 16 * 4
    assert found.flops < compile_step(config()).flops / 2


def test_a_plan_for_devices_that_are_not_there():
    found = step_plan.plan_step(config((2, 4, 4)))
    assert (found.devices, found.mesh) == (32, (2, 4, 4))
    assert found.whole == tuple(
        f"blocks.attention.{name}.kernel: 2 kv_heads are not a multiple of tensor=4"
        for name in ("key", "value")
    )
    text = plan_text.describe(found)
    assert "data 2 x fsdp 4 x tensor 4 = 32 devices" in text
    assert "2 windows at a time on a device" in text
    assert re.search(r"H100 +80 GiB +yes", text)
    assert max(map(len, text.splitlines())) <= 100


def test_what_fits():
    found = compile_step(config())
    big = dataclasses.replace(found, parameters=20 * plan_text.GIB, temporary=30 * plan_text.GIB)
    rows = re.findall(r"(\d+) GiB +(yes|no|perhaps) ", plan_text.describe(big))
    fits = {int(memory): word for memory, word in rows}
    assert fits == {
        16: "no",
        24: "perhaps",
        32: "perhaps",
        40: "perhaps",
        80: "yes",
        95: "yes",
        141: "yes",
        180: "yes",
    }


@pytest.mark.parametrize(
    "mesh,said",
    [
        ((-1, 2, 1), "mesh -1,2,1: a plan needs three numbers"),
        ((3, 8, 1), "a batch of 16 rows does not divide by data=3 x fsdp=8; use 24 rows"),
    ],
)
def test_bad_input(mesh, said):
    with pytest.raises(InputError, match=re.escape(said)):
        step_plan.plan_step(config(mesh))


def test_groups_of_devices_are_read_in_every_notation():
    mesh, two = "mesh['axis_0'=2,", "'axis_1'=2,'axis_2'=2]"
    rest = {
        "replica_groups={{0,1},{2,3},{4,5},{6,7}}": "tensor",
        "replica_groups=[4,2]<=[8]": "tensor",
        "replica_groups=[4,2]<=[2,2,2]T(0,2,1)": "fsdp",
        "replica_groups=[2,4]<=[4,2]T(1,0)": "data+fsdp",
        "replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}": "tensor",
        f"replica_groups={mesh}'axis_1'=4], device_ids=([4,2]T(1,0)) {{'axis_1'}}": "data+fsdp",
        f"replica_groups={mesh}{two}, device_ids=([2,2,2]T(2,1,0)) {{'axis_2'}}": "data",
        "replica_groups={}": "data+fsdp+tensor",
        "source_target_pairs={{0,4},{4,0}}": "data",
    }
    for text, axes in rest.items():
        assert (
            programs._along(
                programs._group(f"{text}, use_global_device_ids=true", 8), (2, 2, 2), sharding.AXES
            )
            == axes
        )


def test_loops_in_loops_are_multiplied_out():
    text = """
%inner (p: (s32[], f32[4,6])) -> (s32[], f32[4,6]) {
  %a = f32[4,6]{1,0} parameter(0)
  %b = bf16[6,6]{1,0} parameter(1)
  %d = f32[4,6]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %g = bf16[8,6]{1,0} all-gather(%d), channel_id=1, replica_groups=[1,2]<=[2], dimensions={0}
}

%outer (p: f32[4,6]) -> f32[4,6] {
  ROOT %w = (s32[], /*index=1*/f32[4,6]{1,0}) while(%t), condition=%c, body=%inner, \
backend_config={"known_trip_count":{"n":"5"}}
}

ENTRY %main (p: f32[4,6]) -> f32[4,6] {
  %w = (s32[], f32[4,6]{1,0}) while(%t), condition=%c, body=%outer, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %f = f32[4,6]{1,0} fusion(%w), kind=kLoop, calls=%inner
}
"""
    products, exchanged = program_costs(text, (2, 1, 1), sharding.AXES)
    assert products == (3 * 5 + 1) * 2 * 4 * 6 * 6
    assert exchanged == {("all-gather", "data"): (3 * 5 + 1) * 8 * 6 * 2 / 2}


def test_pythia_of_seven_billion_parameters():
    file = Path(__file__).parents[2] / "configs" / "pythia_6_9b.py"
    found = step_plan.plan_step(runpy.run_path(str(file))["config"]())
    assert found.total == 6_857_302_016  # the published number
    assert (
        abs(found.parameters - found.total * 4 / 16) < 0.005 * found.parameters
    )  # biases and norms are whole
    assert 1.05 < found.products / found.flops < 4 / 3
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 8 * 2**20  # KiB
