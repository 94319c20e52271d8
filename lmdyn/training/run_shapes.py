"""What a run computes, as shapes: nothing is allocated, no text is read."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax

from lmdyn import checkpoints
from lmdyn.models import shapes
from lmdyn.models.config import ModelConfig
from lmdyn.training import prepare, train_step
from lmdyn.training.config import TrainConfig
from lmdyn.training.optimizer import make_optimizer
from lmdyn.types import present


class RunShapes(NamedTuple):
    """What a run computes, as shapes. Made by `shapes_of`."""

    config: TrainConfig
    architecture: ModelConfig
    form: Any
    part: Any
    optimizer: Any
    state: Any
    mesh: Any


def shapes_of(config: TrainConfig, mesh: Any) -> RunShapes:
    """A run as shapes with shardings; `auto` dtype is taken to be bfloat16.

    Args:
      config: the run.
      mesh: real, or abstract.

    >>> from lmdyn.models import ModelConfig
    >>> from lmdyn.training import Data, Source, TrainConfig
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> texts = Data((Source("text:book.txt"),), length=16, batch=8)  # is not read
    >>> config = TrainConfig(out="run", data=texts, steps=2, model=tiny, mesh=(1, 1, 1))
    >>> job = shapes_of(
    ...     config, jax.sharding.AbstractMesh((1, 2, 1), ("data", "fsdp", "tensor"))
    ... )
    >>> job.state.params["embed"]["embedding"].sharding.shard_shape((257, 6))
    (257, 3)
    """
    dtype: Any = "bfloat16" if config.compute.dtype == "auto" else config.compute.dtype
    config = dataclasses.replace(config, compute=dataclasses.replace(config.compute, dtype=dtype))
    architecture = _architecture(config)
    form = shapes(architecture)
    part = prepare.trained_part(config, form)
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = jax.eval_shape(lambda params: train_step.start(params, optimizer, part), form)
    state = prepare.with_shardings(state, mesh, architecture)
    return RunShapes(config, architecture, form, part, optimizer, state, mesh)


def _architecture(config: TrainConfig) -> ModelConfig:
    """The model's architecture; a model of `start` is read for its shape."""
    return config.model if config.model is not None else _started(present(config.start))


@functools.cache
def _started(reference: str) -> ModelConfig:
    return checkpoints.load(reference).model.config
