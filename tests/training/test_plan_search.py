"""The search of meshes, rematerialisation and accumulation, and plans by a TPU's own compiler."""

import dataclasses
import math
import re

import pytest

from lmdyn import models
from lmdyn.cli.command_line import main
from lmdyn.costs import CHIPS, has_libtpu, step_flops
from lmdyn.errors import InputError
from lmdyn.training import Data, Source, TrainConfig, plan_search, plan_text, step_plan
from lmdyn.training.fit import GIB, USABLE
from lmdyn.training.step_plan import Target
from tests.training.test_step_plan import config as small

SEVEN = models.ModelConfig(
    vocab=50432,
    width=4096,
    depth=32,
    heads=32,
    head_width=128,
    mlp_width=16384,
    positions=2048,
    gated=False,
)


def seven(mesh=(64, 1, 1), batch=512):
    data = Data(sources=(Source("text:none"),), length=2048, batch=batch)
    return TrainConfig(data=data, steps=10, out="unused", model=SEVEN, mesh=mesh)


def test_what_is_found_fits_and_is_ranked():
    found = plan_search.search(seven(), "h100")
    assert found == sorted(found, key=lambda one: (one.time.seconds, one.time.total, one.memory))
    for one in found:
        assert math.prod(one.mesh) == 64
        assert one.memory <= USABLE * 80 * GIB
        assert 512 % (one.mesh[0] * one.mesh[1] * one.accumulate) == 0
        # 16 bytes per parameter are held, or none of it: 7e9 of them need two devices at least
        assert one.mesh[1] * one.mesh[2] >= 2
    # the floor of any step: all products at the peak
    floor = step_flops(SEVEN, 512, 2048) / 64 / CHIPS["h100"].flops
    assert found[0].time.seconds == pytest.approx(floor, rel=0.25)
    assert found[0].time.seconds >= floor
    text = plan_text.describe_options(found)
    assert max(map(len, text.splitlines())) <= 100
    assert ",".join(map(str, found[0].mesh)) in text.splitlines()[2]


def test_an_option_is_a_run():
    found = plan_search.search(seven(), "v5p")[0]
    made = found.applied(seven())
    assert (made.mesh, made.accumulate, made.compute.remat) == found[:1] + found[2:3] + found[1:2]


def test_what_fits_nowhere_says_what_would():
    with pytest.raises(InputError, match=r"a v5e has 16; use more devices, such as --mesh"):
        plan_search.search(seven((2, 1, 1), 2), "v5e")
    with pytest.raises(InputError, match="a batch of 7 windows divides over no mesh of 64"):
        plan_search.search(seven(batch=7), "h100")


@pytest.mark.parametrize(
    "mesh,target,said",
    [
        ((4, 4, 1), Target("v5e", "4x8"), "mesh 4,4,1 is not the 32 chips of topology 4x8"),
        ((-1, 5, 1), Target("v5e", "4x8"), "mesh -1,5,1 is not the 32 chips"),
        ((1, 1, 1), Target("h100", "4x8"), "--topology 4x8 is of TPUs"),
        ((1, 1, 1), Target("v5p", "4x8"), "a slice of v5p has 3 sides"),
    ],
)
def test_bad_targets(mesh, target, said):
    with pytest.raises(InputError, match=re.escape(said)):
        step_plan.resolve(small(mesh), target)


def test_a_topology_fills_the_mesh():
    made, target = step_plan.resolve(small((-1, 2, 1)), Target("v5e", "4x8"))
    assert made.mesh == (16, 2, 1)
    assert target.topology == ("4x8" if has_libtpu() else None)


def test_a_search_needs_a_device(capsys):
    words = ["plan", "--config", "configs/tiny.py", "--search"]
    assert main(words) == 2
    assert "--search needs a device to plan for; add one, such as --device" in (
        capsys.readouterr().err
    )


@pytest.mark.skipif(not has_libtpu(), reason="libtpu is not installed: pip install 'lmdyn[tpu]'")
@pytest.mark.slow
def test_a_plan_by_the_compiler_of_a_tpu():
    model = models.ModelConfig(
        vocab=256, width=128, depth=2, heads=2, kv_heads=2, head_width=64, mlp_width=128,
        positions=128,
    )  # fmt: skip
    made = dataclasses.replace(
        small((-1, 2, 1), model=model, compute=models.Compute(remat="auto")),
        data=Data(sources=(Source("text:none"),), length=128, batch=8),
    )
    found = step_plan.plan_step(made, Target("v5e", "2x2"))
    assert (found.mesh, found.topology, found.remat) == ((2, 2, 1), "2x2", "none")
    assert found.least == found.most == found.parameters + found.optimizer + found.temporary
    whole = 4 * found.total
    assert whole / 2 <= found.parameters < 0.52 * whole  # norms lie whole on every device
    text = plan_text.describe(found)
    assert "2 x fsdp 2 x tensor 1 = 4 devices (v5e, 2x2)" in text
    assert re.search(r"TPU v5e +16 GiB +yes", text)
