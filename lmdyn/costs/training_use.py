"""Memory and time of one training step on one device, by formula, for every way to rematerialise.

Memory is what `lmdyn plan --search` and `remat="auto"` choose by, before a compiler confirms it.
Time is a roofline: the longest of products at the device's peak, bytes at its memory's bandwidth,
and bytes from other devices at its links'. Shape letters: L layers, D width, F MLP width, H heads,
G key-value heads, K head width, V vocabulary; N tokens that a device works on at a time.
"""

import dataclasses
from typing import NamedTuple

from lmdyn.costs.devices import Chip
from lmdyn.costs.flop_counts import block_weights
from lmdyn.models.config import ModelConfig
from lmdyn.models.tiles import tile_rows

REMATS = ("none", "mlp", "attention", "dots", "full", "offload")
"""Ways to rematerialise, from the least that is computed again to the most."""


@dataclasses.dataclass(frozen=True)
class StepShape:
    """What one device does in a training step.

    Attributes:
      config: the architecture.
      layers: those that the backward pass goes through.
      tokens: N.
      length: T, tokens of a window.
      parts: that a batch is run in, one after another.
      bytes: of a number of the activations: 2 or 4.
      mesh: devices along data, fsdp and tensor.
      parameters: bytes of the parameters that lie on a device.
      trained: bytes of those that are trained.
      optimizer: bytes of the optimizer's state that lie on a device.

    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> StepShape(config, 2, 16, 8, 1, 4, (1, 1, 1), 100, 100, 200).tokens
    16
    """

    config: ModelConfig
    layers: int
    tokens: int
    length: int
    parts: int
    bytes: int
    mesh: tuple[int, int, int]
    parameters: int
    trained: int
    optimizer: int


class StepMemory(NamedTuple):
    """Bytes of one device in a training step. Made by `step_memory`.

    Attributes:
      held: parameters and optimizer state: exact.
      gradients: of what is trained, and their sum where a batch is run in parts.
      kept: by the forward pass for the backward pass.
      working: the most beside these, in a layer's backward pass or at the head.

    >>> StepMemory(1, 2, 3, 4).total
    10
    """

    held: int
    gradients: int
    kept: int
    working: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def kept_numbers(config: ModelConfig, remat: str) -> int:
    """Numbers per token that a layer keeps for its backward pass.

    Args:
      config: the architecture.
      remat: one of `REMATS`.

    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> [kept_numbers(config, remat) for remat in REMATS]
    [66, 42, 44, 40, 4, 0]
    """
    width, queries = config.width, config.heads * config.head_width
    keys, wide = config.kv_heads * config.head_width, config.mlp_width * (1 + config.gated)
    # Inputs of the layer, of both norms and of the sublayers; rotated queries and keys, values,
    # output and log-normalisers; what is activated and what comes of it.
    outer = 5 * width
    attention = 3 * queries + 2 * keys + config.heads
    mlp = wide + config.mlp_width
    return {
        "none": outer + attention + mlp,
        "mlp": outer + attention,
        "attention": outer + mlp,
        "dots": 3 * width + queries + 2 * keys + wide,
        "full": width,
        "offload": 0,
    }[remat]


def step_memory(shape: StepShape, remat: str) -> StepMemory:
    """Memory of a training step on one device, by formula.

    Args:
      shape: what the device does.
      remat: one of `REMATS`.

    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> shape = StepShape(config, 2, 16, 8, 1, 4, (1, 1, 1), 100, 100, 200)
    >>> step_memory(shape, "full").kept == 4 * 2 * 16 * 4
    True
    """
    config, tensor = shape.config, shape.mesh[2]
    layer = (kept_numbers(config, "none") + 2 * config.mlp_width) // tensor
    # What is kept is divided along tensor, but for the residual stream.
    inner = kept_numbers(config, remat) - config.width * (remat != "offload")
    stream = config.width * (remat != "offload")
    kept = shape.layers * shape.tokens * shape.bytes * (inner // tensor + stream)
    # At the head a tile of logits in float32, twice, and the states and their gradients; in a layer
    # what it keeps, once more, and its gathered weights.
    tile = tile_rows(shape.tokens, config.vocab)
    head = 8 * tile * config.vocab // tensor + 2 * shape.tokens * config.width * shape.bytes
    block = shape.tokens * layer * shape.bytes + 2 * shape.bytes * block_weights(config) // tensor
    gradients = shape.trained * (1 + (shape.parts > 1))
    return StepMemory(shape.parameters + shape.optimizer, gradients, kept, max(head, block))


def recomputed_flops(shape: StepShape, remat: str) -> float:
    """FLOPs that a device computes again in a step, beyond those of the formula.

    Args:
      shape: what the device does.
      remat: one of `REMATS`.

    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> shape = StepShape(config, 2, 16, 8, 1, 4, (1, 1, 1), 100, 100, 200)
    >>> [recomputed_flops(shape, remat) for remat in REMATS[:4]]
    [0.0, 4096.0, 5120.0, 2048.0]
    """
    config = shape.config
    scores = 4 * config.heads * config.head_width * shape.length / 2
    up = 2 * (1 + config.gated) * config.width * config.mlp_width
    inner = 2 * config.width * config.head_width * (2 * config.heads + 2 * config.kv_heads)
    inner -= 2 * config.width * config.heads * config.head_width  # its last product is not needed
    again = {
        "none": 0,
        "mlp": up,
        "attention": inner + scores,
        "dots": scores,
        "full": inner + up + scores,
        "offload": inner + up + scores,
    }[remat]
    return float(again * shape.layers * shape.tokens * shape.parts) / shape.mesh[2]


class StepTime(NamedTuple):
    """The least time of a training step. Made by `roofline`.

    Attributes:
      seconds: of the slowest of what a device does, if it does all at a time.
      bound: which that is: products, memory, exchange or host.
      total: seconds, if it does one after another.

    >>> StepTime(2.0, "memory", 3.0).bound
    'memory'
    """

    seconds: float
    bound: str
    total: float


def roofline(shape: StepShape, remat: str, flops: float, chip: Chip) -> StepTime:
    """The least time that a step can take on a device.

    Args:
      shape: what the device does.
      remat: one of `REMATS`.
      flops: of the step on one device, without what is computed again.
      chip: the device.

    >>> from lmdyn.costs.devices import CHIPS
    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> shape = StepShape(config, 2, 16, 8, 1, 4, (1, 1, 1), 100, 100, 200)
    >>> roofline(shape, "none", 1e15, CHIPS["h100"]).bound
    'products'
    """
    config, (data, fsdp, tensor) = shape.config, shape.mesh
    passes = 2 + (remat in ("full", "offload"))  # over the weights: forward, backward, once more
    gathered = shape.parameters * fsdp  # what of the weights a device computes with
    kept = shape.layers * shape.tokens * shape.bytes * kept_numbers(config, remat) / tensor
    logits = 3 * 4 * shape.tokens * config.vocab / tensor
    state = 4 * shape.trained + 2 * shape.optimizer  # gradients and both, read and written
    memory = shape.parts * (passes * gathered + 2 * kept + logits) + state
    # Along fsdp weights are gathered for every pass and gradients scattered; along tensor the
    # residual stream is summed twice a layer, forward and back; along data gradients are summed.
    ring = lambda n: (n - 1) / n
    exchanged = shape.parts * (passes + 1) * gathered * ring(fsdp)
    exchanged += 2 * shape.trained * ring(data)
    stream = shape.tokens * config.width * shape.bytes
    exchanged += shape.parts * 4 * shape.layers * 2 * stream * ring(tensor)
    offload = 2 * shape.parts * shape.layers * stream if remat == "offload" else 0
    found = {
        "products": (flops + recomputed_flops(shape, remat)) / chip.flops,
        "memory": memory / chip.bandwidth,
        "exchange": exchanged / chip.link,
        "host": offload / HOST,
    }
    slowest = max(found, key=lambda name: found[name])
    return StepTime(found[slowest], slowest, sum(found.values()))


HOST = 32e9
"""Bytes per second between a device and its host: PCIe, 16 lanes of its fourth generation."""
