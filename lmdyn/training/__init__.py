"""Pretraining and continual pretraining: state, step, loop, mesh."""

from lmdyn.training.config import (
    Apply,
    CheckpointPolicy,
    Data,
    Evaluation,
    Intervention,
    LoRA,
    Objective,
    Optimizer,
    Recall,
    Review,
    Source,
    TrainConfig,
)
from lmdyn.training.loop import Finished, train
from lmdyn.training.optimizer import make_optimizer, schedule
from lmdyn.training.sharding import make_mesh, shard
from lmdyn.training.train_step import TrainState, likelihood, make_step, start, whole

__all__ = [
    "Apply",
    "CheckpointPolicy",
    "Data",
    "Evaluation",
    "Finished",
    "Intervention",
    "LoRA",
    "Objective",
    "Optimizer",
    "Recall",
    "Review",
    "Source",
    "TrainConfig",
    "TrainState",
    "likelihood",
    "make_mesh",
    "make_optimizer",
    "make_step",
    "schedule",
    "shard",
    "start",
    "train",
    "whole",
]
