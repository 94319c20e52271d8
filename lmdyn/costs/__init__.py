"""What a computation costs: FLOPs, bytes, devices, compiled programs."""

from lmdyn.costs.devices import peak_flops, step_flops
from lmdyn.costs.flop_counts import ChunkSizes, evaluation_flops
from lmdyn.costs.memory_use import MemoryUse, evaluation_memory
from lmdyn.costs.programs import program_costs

__all__ = [
    "ChunkSizes",
    "MemoryUse",
    "evaluation_flops",
    "evaluation_memory",
    "peak_flops",
    "program_costs",
    "step_flops",
]
