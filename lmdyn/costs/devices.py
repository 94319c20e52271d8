"""What devices can do, and FLOPs of a training step, for model FLOPs utilisation.

MFU: Chowdhery et al. 2022, arXiv 2204.02311, appendix B.
"""

import os
from typing import NamedTuple

import jax

from lmdyn.costs.flop_counts import ChunkSizes, backward_flops, forward_flops
from lmdyn.models import ModelConfig, shapes
from lmdyn.params import Adapters, Partition, partition
from lmdyn.types import Device

GIB = 2**30


class Chip(NamedTuple):
    """What the maker's data sheet says of a device.

    Attributes:
      kind: the words by which JAX's `device_kind` names it.
      flops: per second, of dense bfloat16 products (V100, T4: float16) with float32 sums.
      gib: memory; 0 where nobody plans for it.
      bandwidth: bytes per second, of its memory.
      link: bytes per second that it receives from its neighbours; of one machine's, for GPUs.

    >>> CHIPS["v5e"].gib
    16
    """

    kind: str
    flops: float
    gib: int = 0
    bandwidth: float = 0.0
    link: float = 0.0


CHIPS = {
    "v5e": Chip("TPU v5 lite", 197e12, 16, 819e9, 200e9),
    "v5p": Chip("TPU v5", 459e12, 95, 2765e9, 600e9),
    "v6e": Chip("TPU v6 lite", 918e12, 32, 1640e9, 448e9),
    "l4": Chip("L4", 121e12, 24, 300e9, 32e9),
    "a100": Chip("A100", 312e12, 40, 1555e9, 300e9),
    "h100": Chip("H100", 989e12, 80, 3350e9, 450e9),
    "h200": Chip("H200", 989e12, 141, 4800e9, 450e9),
    "b200": Chip("B200", 2250e12, 180, 8000e9, 900e9),
}
"""Devices to plan for, by the name that `lmdyn plan --device` takes. A TPU v2's and v3's peak, in
`PEAKS`, is of one core, which is what JAX calls a device there."""

PEAKS = {
    "TPU v2": 23e12,
    "TPU v3": 61e12,
    "TPU v4": 275e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v6e": 918e12,
    "V100": 125e12,
    "T4": 65e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "H100 PCIe": 756e12,
} | {chip.kind: chip.flops for chip in CHIPS.values()}
"""FLOPs per second by `device_kind`, see `Chip.flops`."""


def device_memory() -> int:
    """Bytes that JAX may use of this device; of a CPU's memory, its share of the machine's.

    >>> device_memory() > 2**20
    True
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return int((device.memory_stats() or {}).get("bytes_limit", 0))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()


def peak_flops(device: Device | None = None, dtype: str = "bfloat16") -> float | None:
    """The peak FLOPs per second of a device.

    Args:
      device: the default device if None.
      dtype: of the products.

    Returns:
      FLOPs per second; None where it is not known, as for a CPU, or for float32.

    >>> peak_flops(jax.devices("cpu")[0]) is None
    True
    """
    chosen: Device = jax.devices()[0] if device is None else device
    if dtype != "bfloat16":
        return None
    kind = chosen.device_kind.lower()
    found = [name for name in PEAKS if name.lower() in kind]
    return PEAKS[max(found, key=len)] if found else None


def step_flops(
    config: ModelConfig, rows: int, length: int, part: Partition | Adapters | None = None
) -> float:
    """FLOPs of one training step, by formula: products only, rematerialisation not counted.

    Args:
      config: the architecture.
      rows: B, sequences of a batch.
      length: T, tokens of a sequence.
      part: what is trained; None for everything.

    >>> from lmdyn.costs.flop_counts import block_weights
    >>> config = ModelConfig(
    ...     vocab=257, width=64, depth=2, heads=2, head_width=32, mlp_width=128, positions=64
    ... )
    >>> products = 6 * 64 * (2 * block_weights(config) + 64 * 257)
    >>> attention = 2 * (4 + 10) * 64 * 64 * 64
    >>> step_flops(config, rows=1, length=64) == products + attention
    True
    """
    part = partition(shapes(config), "all") if part is None else part
    pairs = ChunkSizes(count=1, encoded=length, scored=length).pairs
    forward = forward_flops(config, length, length, pairs, part)
    return float(rows * (forward + backward_flops(config, part, length, length, pairs)))
