"""Pretraining and continual pretraining: state, step, loop, mesh."""

from lmdyn.training.config import (
    Adapters,
    Apply,
    Change,
    Data,
    Keep,
    Objective,
    Optimizer,
    Recall,
    Review,
    Source,
    Train,
    Watch,
)
from lmdyn.training.loop import Finished, train
from lmdyn.training.optimizer import make_optimizer, schedule
from lmdyn.training.sharding import make_mesh, shard
from lmdyn.training.train_step import State, likelihood, make_step, start, whole

__all__ = [
    "Adapters",
    "Apply",
    "Change",
    "Data",
    "Finished",
    "Keep",
    "Objective",
    "Optimizer",
    "Recall",
    "Review",
    "Source",
    "State",
    "Train",
    "Watch",
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
