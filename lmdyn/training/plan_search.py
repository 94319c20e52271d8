"""Meshes, rematerialisation and accumulation that fit a number of devices, fastest first.

All are judged by lmdyn's own formulas (`lmdyn.costs.step_memory` and `roofline`), which takes
seconds; whoever wants certainty compiles the first (`lmdyn.training.step_plan`).
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from jax.sharding import AbstractMesh

from lmdyn.costs import CHIPS, roofline, step_flops, step_memory
from lmdyn.costs.training_use import REMATS, StepTime
from lmdyn.errors import InputError
from lmdyn.models import ModelConfig
from lmdyn.training import fit, sharding
from lmdyn.training.config import TrainConfig
from lmdyn.training.run_shapes import shapes_of


class Option(NamedTuple):
    """One way to run a step. Made by `search`.

    Attributes:
      mesh: devices along data, fsdp and tensor.
      remat: what is computed again.
      accumulate: parts that a batch is run in.
      memory: bytes of one device, by formula.
      time: of one step at least, by roofline.
    """

    mesh: tuple[int, int, int]
    remat: str
    accumulate: int
    memory: int
    time: StepTime

    def applied(self, config: TrainConfig) -> TrainConfig:
        """The run with these settings."""
        compute = dataclasses.replace(config.compute, remat=self.remat)
        return dataclasses.replace(
            config, mesh=self.mesh, accumulate=self.accumulate, compute=compute
        )


def search(config: TrainConfig, chip: str) -> list[Option]:
    """All ways to run a step that should fit, fastest first; of equals, what overlaps least.

    Args:
      config: the run; its mesh says how many devices there are.
      chip: a name of `lmdyn.costs.CHIPS`.

    Raises:
      InputError: none fits; the message says what would.

    >>> from lmdyn.training import Data, Source
    >>> tiny = ModelConfig(
    ...     vocab=257, width=64, depth=2, heads=2, head_width=32, mlp_width=64, positions=16
    ... )
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)  # is not read
    >>> config = TrainConfig(out="run", data=texts, steps=2, model=tiny, mesh=(4, 1, 1))
    >>> found = search(config, "h100")
    >>> [math.prod(option.mesh) for option in found[:2]]
    [4, 4]
    """
    device, rows = CHIPS[chip], config.data.batch
    room = fit.Room(device.gib * fit.GIB, f"a {chip}")
    found, closest = [], None
    for mesh in _meshes(math.prod(config.mesh), rows):
        job = shapes_of(config, AbstractMesh(mesh, sharding.AXES))
        if not _divides(job.architecture, mesh[2]):
            continue
        flops = step_flops(job.architecture, rows, config.data.length, job.part)
        own = rows // (mesh[0] * mesh[1])
        for parts in (n for n in range(1, own + 1) if own % n == 0):
            tried = dataclasses.replace(job.config, accumulate=parts)
            shape = fit.step_shape(tried, job.architecture, job.part, job.state)
            for remat in REMATS:
                memory = step_memory(shape, remat).total
                if memory <= fit.USABLE * room.memory:
                    time = roofline(shape, remat, flops / math.prod(mesh), device)
                    found.append(Option(mesh, remat, parts, memory, time))
                elif closest is None or memory < closest[0]:
                    closest = memory, shape, remat
    if not found:
        if closest is None:
            raise InputError(
                f"a batch of {rows} windows divides over no mesh of {math.prod(config.mesh)}"
                " devices; use a batch that is a multiple of it"
            )
        raise InputError(fit.does_not_fit(closest[1], closest[2], room, closest[0]))
    return sorted(found, key=lambda one: (one.time.seconds, one.time.total, one.memory))


def _meshes(count: int, rows: int) -> Iterator[tuple[int, int, int]]:
    """All meshes of so many devices over which a batch divides."""
    sides = [n for n in range(1, count + 1) if count % n == 0]
    for data, fsdp in itertools.product(sides, sides):
        if count % (data * fsdp) == 0 and rows % (data * fsdp) == 0:
            yield data, fsdp, count // (data * fsdp)


def _divides(config: ModelConfig, tensor: int) -> bool:
    """Whether heads and MLPs can be cut in so many equal pieces."""
    return all(n % tensor == 0 for n in (config.heads, config.kv_heads, config.mlp_width))
