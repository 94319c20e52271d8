"""What a computation costs: FLOPs, bytes, devices, compiled programs."""

from lmdyn.costs.devices import CHIPS, Chip, device_memory, peak_flops, step_flops
from lmdyn.costs.flop_counts import ChunkSizes, evaluation_flops
from lmdyn.costs.memory_use import MemoryUse, evaluation_memory
from lmdyn.costs.programs import program_costs
from lmdyn.costs.topologies import has_libtpu, topology_devices
from lmdyn.costs.training_use import StepShape, roofline, step_memory

__all__ = [
    "CHIPS",
    "Chip",
    "ChunkSizes",
    "MemoryUse",
    "StepShape",
    "device_memory",
    "evaluation_flops",
    "evaluation_memory",
    "has_libtpu",
    "peak_flops",
    "program_costs",
    "roofline",
    "step_flops",
    "step_memory",
    "topology_devices",
]
