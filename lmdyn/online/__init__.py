"""Online adaptation: memory in weights, against context, cost and shift."""

from lmdyn.online.contexts import Context, cache, none, overlap
from lmdyn.online.core import adapt, start
from lmdyn.online.evaluate import Outcome, evaluate
from lmdyn.online.rate_search import Chosen, choose_rate
from lmdyn.online.resets import Change, change
from lmdyn.online.rules import at_any_rate
from lmdyn.online.streams import Stream, stream

__all__ = [
    "Change",
    "Chosen",
    "Context",
    "Outcome",
    "Stream",
    "adapt",
    "at_any_rate",
    "cache",
    "change",
    "choose_rate",
    "evaluate",
    "none",
    "overlap",
    "start",
    "stream",
]
