"""What a computation costs: FLOPs, bytes, devices, compiled programs."""

from lmdyn.costs.flop_counts import flops
from lmdyn.costs.memory_use import Memory, memory

__all__ = ["Memory", "flops", "memory"]
