"""What an evaluation costs, by formula (METHODS section 5): matrix products only, a multiply-add
counted as 2.
"""

from lmdyn.models.attention import blocked as attention
from lmdyn.models.config import ModelConfig
from lmdyn.models.forward import shapes
from lmdyn.models.heads import kinds as head_kinds
from lmdyn.online.contexts import Context
from lmdyn.online.streams import Stream
from lmdyn.params import Adapters, Partition, flatten


def block_weights(config: ModelConfig) -> int:
    """Numbers in one block's matrices.

    >>> block_weights(
    ...     ModelConfig(
    ...         vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ...     )
    ... )  # 4 D D + 3 D F
    160
    """
    attention = config.width * config.head_width * 2 * (config.heads + config.kv_heads)
    return attention + (3 if config.gated else 2) * config.width * config.mlp_width


def head_weights(config: ModelConfig) -> int:
    """Multiply-adds of the head for one token: its numbers, with those that a mixture's components
    share counted for each.

    >>> sizes = dict(vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8)
    >>> [
    ...     head_weights(ModelConfig(**sizes, head=head))
    ...     for head in ("full", "low_rank:2", "mixture:3")
    ... ]  # 3 (4 4 + 4 + 4 9)
    [36, 26, 168]
    """
    kind = head_kinds.of(config)
    if kind is None:
        return config.width * config.vocab
    return kind.size + (kind.copies - 2) * config.width * config.vocab * config.head.startswith(
        "mixture"
    )


def forward(
    config: ModelConfig,
    encoded: int,
    scored: int,
    pairs: int,
    part: Partition | Adapters | None = None,
) -> float:
    """Operations of one forward pass.

    Args:
      encoded: tokens that go through the blocks.
      scored: tokens whose logits are computed.
      pairs: (query, key) pairs that are computed, in all.
      part: what is trained; adapters have products of their own.
    """
    attention = 4 * config.heads * config.head_width * pairs
    beside = 2 * adapter_weights(config, part) * encoded if isinstance(part, Adapters) else 0
    return (
        config.depth * (2 * block_weights(config) * encoded + attention)
        + beside
        + 2 * head_weights(config) * scored
    )


def adapter_weights(config: ModelConfig, part: Adapters) -> int:
    """Numbers in all adapters: R (in + out) for every matrix and layer.

    >>> from lmdyn.transforms import low_rank
    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> adapter_weights(
    ...     config, low_rank("blocks.mlp", rank=3).partition(shapes(config))
    ... )  # 2 layers, 3 matrices, 3 (4 + 8)
    216
    """
    leaves = flatten(shapes(config))
    return sum(
        part.rank * sum(leaves[path].shape[1:]) * len(layers)
        for path, layers in part.chosen.items()
    )


def _passed(config: ModelConfig, part: Partition | Adapters, block: int) -> tuple[int, bool]:
    """How many weights a block's gradient passes back through, and whether it passes through the
    attention.
    """
    if block > part.lowest or any(path[0] in ("embed", "positions") for path in part.chosen):
        return block_weights(config), True
    here = {path[1:] for path, layers in part.chosen.items() if layers and block in layers}
    attention = {path for path in here if path[0].startswith("attention")}
    mlp = config.width * config.mlp_width
    queries = config.width * config.head_width * (config.heads + 2 * config.kv_heads)
    inner = (bool(attention) and not config.parallel) or any(path[0] == "mlp_norm" for path in here)
    weights = mlp * (
        inner or any(path[0] == "mlp" and path[1] != "down" for path in here)
    ) + inner * mlp * (1 + config.gated)
    attends = any(path[1] != "output" for path in attention)
    weights += config.width * config.heads * config.head_width * attends
    weights += queries * any(path[0] == "attention_norm" for path in here)
    return weights, attends


def backward(
    config: ModelConfig, part: Partition | Adapters, encoded: int, scored: int, pairs: int
) -> float:
    """Operations of the backward pass: activations down to the lowest chosen block, weights of the
    chosen ones.

    With adapters it is their weights that are trained, and activations pass through them too.
    Attention recomputes its scores, so its backward pass is five products where the forward has
    two.
    """
    chosen = dict(part.chosen)
    head = "embed" if config.tied_head else "head"
    # the states' gradient is needed by all that lies below the head
    below = any(path[0] != "head" for path in chosen)
    total = 2 * head_weights(config) * scored * (below + any(path[0] == head for path in chosen))
    for block in range(part.lowest, config.depth):
        weights, attends = _passed(config, part, block)
        total += 2 * weights * encoded + attends * 10 * config.heads * config.head_width * pairs
    if isinstance(part, Adapters):
        return total + 4 * adapter_weights(config, part) * encoded
    for path, leaf in flatten(shapes(config)).items():
        if path[0] == "blocks" and path[-1] == "kernel":
            total += 2 * leaf.shape[1] * leaf.shape[2] * encoded * len(chosen.get(path) or ())
    return total


def flops(
    config: ModelConfig,
    chunks: Stream,
    context: Context,
    part: Partition | Adapters | None,
    count: int | None = None,
    steps: int = 1,
) -> float:
    """Operations of a whole evaluation.

    Args:
      chunks: a `Stream`.
      part: what adapts; None for static evaluation.
      count: how many chunks are computed, where that is not the number of chunks: lanes that are
        idle compute too.
      steps: of the optimizer, on every chunk; each is a forward and a backward pass, and the first
        one's forward pass scores.

    >>> import numpy as np
    >>> from lmdyn import online, transforms
    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> chunks = online.stream(np.arange(9), chunk=4, context=online.none())
    >>> static = flops(config, chunks, online.none(), None)
    >>> static < flops(
    ...     config, chunks, online.none(), partition(shapes(config), "blocks[1]")
    ... ) < 3 * static
    True
    """
    count, chunk = len(chunks.first) if count is None else count, chunks.targets.shape[1]
    encoded = chunks.inputs.shape[1]
    past = context.window if context.kind == "cache" else 0
    pairs = sum(
        (stop - start) * end for start, stop, end in attention.blocks(encoded, encoded + past)
    )
    one = forward(config, encoded, chunk, pairs, part)
    if part is not None:
        one = steps * (one + backward(config, part, encoded, chunk, pairs))
    return float(count * one)
