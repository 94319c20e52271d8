"""Online adaptation: memory in weights, against context, cost and shift."""

from lmdyn.online.contexts import Context, cache, none, overlap
from lmdyn.online.core import adapt, start
from lmdyn.online.cost import flops
from lmdyn.online.evaluate import Outcome, evaluate
from lmdyn.online.footprint import Memory, memory
from lmdyn.online.rates import Chosen, choose_rate
from lmdyn.online.resets import Change, change
from lmdyn.online.rules import at_any_rate
from lmdyn.online.streams import Stream, stream

__all__ = [
    "Change",
    "Chosen",
    "Context",
    "Memory",
    "Outcome",
    "Stream",
    "adapt",
    "at_any_rate",
    "cache",
    "change",
    "choose_rate",
    "evaluate",
    "flops",
    "memory",
    "none",
    "overlap",
    "start",
    "stream",
]
