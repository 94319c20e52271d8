"""Peak FLOPs of devices and FLOPs of a training step, for model FLOPs utilisation.

MFU: Chowdhery et al. 2022, arXiv 2204.02311, appendix B.
"""

import jax

from lmdyn.costs.flop_counts import ChunkSizes, backward_flops, forward_flops
from lmdyn.models import ModelConfig, shapes
from lmdyn.params import Adapters, Partition, partition
from lmdyn.types import Device

PEAKS = {
    "TPU v2": 23e12,
    "TPU v3": 61e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "V100": 125e12,
    "T4": 65e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}
"""FLOPs per second of dense bfloat16 (V100, T4: float16) products with float32 sums, by the makers'
data sheets. TPU v2 and v3: of one core, which is what JAX calls a device there."""


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
