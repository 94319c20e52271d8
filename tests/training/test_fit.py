"""What fits a device: by formula against what compilers said, and what is advised where it does
not.
"""

import dataclasses
import re

import jax
import pytest

from lmdyn import models
from lmdyn.cli.command_line import main
from lmdyn.costs.training_use import step_memory
from lmdyn.errors import InputError
from lmdyn.training import Data, Source, TrainConfig, fit, sharding
from lmdyn.training.fit import GIB, Room
from lmdyn.training.run_shapes import shapes_of
from tests.cli.test_train import write

SMOL = models.ModelConfig(
    vocab=49152,
    width=576,
    depth=30,
    heads=9,
    kv_heads=3,
    head_width=64,
    mlp_width=1536,
    positions=2048,
    tied_head=True,
)


def shape_of(rows=16, length=1024, mesh=(1, 1, 1), **fields):
    data = Data(sources=(Source("text:none"),), length=length, batch=rows)
    config = TrainConfig(data=data, steps=10, out="unused", model=SMOL, mesh=mesh, **fields)
    job = shapes_of(config, jax.sharding.AbstractMesh(mesh, sharding.AXES))
    return fit.step_shape(job.config, job.architecture, job.part, job.state)


@pytest.mark.parametrize("remat,gib", [("none", 10.82), ("dots", 7.46)])
def test_memory_is_near_what_a_tpu_takes(remat, gib):
    """Temporaries of the step of 16 x 1,024 tokens on a v5e, as libtpu 0.0.42 compiled it with
    attention in blocks; arguments are parameters and two moments in float32.
    """
    found = step_memory(shape_of(), remat)
    assert found.held == pytest.approx(1.51 * GIB, rel=0.01)
    assert found.total - found.held == pytest.approx(gib * GIB, rel=0.2)
    assert found.total < 20 * GIB


def test_the_first_that_fits_is_taken():
    shape, room = shape_of(), Room(GIB, "it")
    order = fit.ways(shape, room)
    assert order == ("none", "dots", "mlp", "full", "offload")  # attention costs more, saves less
    sizes = [step_memory(shape, remat).total for remat in order]
    assert sizes == sorted(sizes, reverse=True)
    for place, size in enumerate(sizes):
        room = Room(int(size / fit.USABLE) + 1, "it")
        assert fit.remats("auto", shape, room) == order[place:]
        assert fit.remats("attention", shape, Room(GIB * 16, "it")) == ("attention",)


@pytest.mark.parametrize("gib", [1.5, 2.2, 2.8, 4.0])
def test_what_is_advised_fits(gib):
    shape, room = shape_of(64), Room(int(gib * GIB), "a device")
    with pytest.raises(InputError, match="a step of 65,536 tokens on a device needs") as caught:
        fit.remats("none", shape, room)
    advice = str(caught.value).partition("; use ")[2]
    remat = re.search(r"--compute.remat (\w+)", advice)
    parts = re.search(r"--accumulate (\d+)", advice)
    mesh = re.search(r"--mesh (\d+,\d+,\d+)", advice)
    assert remat or mesh
    compute = models.Compute(remat=remat[1] if remat else "offload")
    shards = [int(n) for n in mesh[1].split(",")] if mesh else [1, 1, 1]
    again = shape_of(
        64, compute=compute, accumulate=int(parts[1]) if parts else 1, mesh=tuple(shards)
    )
    assert fit.remats(compute.remat, again, room) == (compute.remat,)


def test_a_compiler_has_the_last_word():
    shape, room = shape_of(), Room(12 * GIB, "a device")
    sizes = {"none": 14 * GIB, "mlp": 13 * GIB, "attention": 11 * GIB}
    assert fit.first_that_fits(tuple(sizes), shape, room, sizes.__getitem__) == "attention"
    with pytest.raises(InputError, match=r"needs 13 GiB .* has 12; use --compute.remat"):
        fit.first_that_fits(("none", "mlp"), shape, room, sizes.__getitem__)


def test_a_run_that_does_not_fit_says_so_before_it_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fit, "room_here", lambda: Room(40_000, "this machine"))
    assert main(["train", "--config", write(tmp_path), "--mesh", "1,1,1"]) == 2
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(r"lmdyn: error: a step of 64 tokens on a device needs .* GiB", err)
    assert re.search(r"use more devices, such as --mesh 1,\d+,1, or a smaller model", err)
    assert not (tmp_path / "run").exists()


def test_offload_only_where_the_host_has_memory_of_its_own():
    shape = dataclasses.replace(shape_of(), optimizer=0)
    one = step_memory(shape, "offload").total / fit.USABLE + 1
    with pytest.raises(InputError):
        fit.remats("auto", shape, Room(int(one * 0.7), "it", offload=False))
    assert fit.remats("auto", shape, Room(int(one), "it")) == ("offload",)
