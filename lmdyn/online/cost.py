"""What an evaluation costs, by formula (METHODS section 5): matrix products only, a multiply-add counted as 2."""

from lmdyn.models.config import ModelConfig
from lmdyn.models.forward import shapes
from lmdyn.online.contexts import Context
from lmdyn.transforms import Partition, flatten


def block_weights(config: ModelConfig) -> int:
    """Numbers in one block's matrices.

    >>> block_weights(ModelConfig(vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8))   # 4 D D + 3 D F
    160
    """
    attention = config.width * config.head_width * 2 * (config.heads + config.kv_heads)
    return attention + (3 if config.gated else 2) * config.width * config.mlp_width


def forward(config: ModelConfig, encoded: int, scored: int, pairs: float) -> float:
    """Operations of one forward pass.

    Args:
      encoded: tokens that go through the blocks.
      scored: tokens whose logits are computed.
      pairs: (query, visible key) pairs in all.
    """
    attention = 4 * config.heads * config.head_width * pairs
    return config.depth * (2 * block_weights(config) * encoded + attention) + 2 * config.width * config.vocab * scored


def backward(config: ModelConfig, part: Partition, encoded: int, scored: int, pairs: float) -> float:
    """Operations of the backward pass: activations down to the lowest chosen block, weights of the chosen ones.

    Attention recomputes its scores, so its backward pass is five products where the forward has two.
    """
    reached = config.depth - part.lowest
    attention = 10 * config.heads * config.head_width * pairs
    chosen = dict(part.chosen)
    head = ("embed", "embedding") if config.tied_head else ("head", "kernel")
    # the states' gradient is needed by all that lies below the head
    below = any(path != ("head", "kernel") for path in chosen)
    total = reached * (2 * block_weights(config) * encoded + attention)
    total += 2 * config.width * config.vocab * scored * (below + (head in chosen))
    for path, leaf in flatten(shapes(config)).items():
        if path[0] == "blocks" and path[-1] == "kernel":
            total += 2 * leaf.shape[1] * leaf.shape[2] * encoded * len(chosen.get(path, ()))
    return total


def flops(config: ModelConfig, chunks, context: Context, part: Partition | None) -> float:
    """Operations of a whole evaluation.

    Args:
      chunks: a `Stream`.
      part: what adapts; None for static evaluation.
    """
    count, chunk = chunks.targets.shape
    encoded = chunks.inputs.shape[1]
    past = context.window if context.kind == "cache" else 0
    pairs = encoded * (encoded + 1) / 2 + encoded * past
    each = forward(config, encoded, chunk, pairs)
    if part is not None:
        each += backward(config, part, encoded, chunk, pairs)
    return float(count * each)
