"""Pretraining and continual pretraining: state, step, loop, mesh."""

from lmdyn.training.config import (
    Apply,
    CheckpointPolicy,
    Data,
    Evaluation,
    Intervention,
    LoRA,
    MixReview,
    Objective,
    Optimizer,
    Recall,
    Source,
    TrainConfig,
)
from lmdyn.training.loop import Finished, train
from lmdyn.training.optimizer import make_optimizer, schedule
from lmdyn.training.sharding import make_mesh, shard
from lmdyn.training.train_step import TrainState, likelihood, make_step, start, whole

__all__ = [
    "LoRA",
    "Apply",
    "Intervention",
    "Data",
    "Finished",
    "CheckpointPolicy",
    "Objective",
    "Optimizer",
    "Recall",
    "MixReview",
    "Source",
    "TrainState",
    "TrainConfig",
    "Evaluation",
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
