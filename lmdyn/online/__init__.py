"""Online adaptation: memory in weights, against context, cost and shift."""

from lmdyn.online.change_detection import ChangeDetector
from lmdyn.online.config import OnlineConfig
from lmdyn.online.contexts import Context, cache, none, overlap
from lmdyn.online.core import Adaptation, adapt, start
from lmdyn.online.dynamic_evaluation import Outcome, evaluate
from lmdyn.online.learning_rates import ChosenLearningRate, LearningRateSearch, choose_learning_rate
from lmdyn.online.streams import ChunkStream, chunk_stream
from lmdyn.online.update_rules import every, learning_rate_as_state

__all__ = [
    "Adaptation",
    "ChangeDetector",
    "ChosenLearningRate",
    "ChunkStream",
    "Context",
    "LearningRateSearch",
    "OnlineConfig",
    "Outcome",
    "adapt",
    "cache",
    "choose_learning_rate",
    "chunk_stream",
    "evaluate",
    "every",
    "learning_rate_as_state",
    "none",
    "overlap",
    "start",
]
