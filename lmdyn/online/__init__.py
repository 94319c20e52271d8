"""Online adaptation: memory in weights, against context, cost and shift."""

from lmdyn.online.contexts import Context, cache, none, overlap
from lmdyn.online.cost import flops
from lmdyn.online.evaluate import Outcome, adapt, evaluate, start
from lmdyn.online.streams import Stream, stream

__all__ = ["Context", "Outcome", "Stream", "adapt", "cache", "evaluate", "flops", "none", "overlap", "start", "stream"]
