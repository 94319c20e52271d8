"""FLOPs of forward and backward passes and of an evaluation, by formula (docs/methods.md#cost).

Matrix products only; a multiply-add counts as 2.
"""

from typing import NamedTuple

from lmdyn.models.attention import query_blocks
from lmdyn.models.config import ModelConfig
from lmdyn.models.forward import shapes
from lmdyn.models.heads import head_of
from lmdyn.params import Adapters, Partition, flatten


class ChunkSizes(NamedTuple):
    """The sizes of an evaluation in chunks, from which its costs follow.

    Attributes:
      count: chunks that are computed.
      encoded: tokens of a chunk that go through the blocks.
      scored: C, predictions of a chunk.
      cached: tokens of earlier chunks whose keys and values a chunk looks back on.
    """

    count: int
    encoded: int
    scored: int
    cached: int = 0

    @property
    def pairs(self) -> int:
        """(query, key) pairs that are computed for a chunk.

        >>> ChunkSizes(count=1, encoded=64, scored=64, cached=32).pairs  # one block of queries
        6144
        """
        return sum(
            (stop - start) * end
            for start, stop, _, end in query_blocks(self.encoded, self.encoded + self.cached)
        )


def block_weights(config: ModelConfig) -> int:
    """Numbers in one block's matrices.

    Args:
      config: the architecture.

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
    """Multiply-adds of the head for one token.

    Its numbers, with those that a mixture's components share counted for each.

    Args:
      config: the architecture.

    >>> sizes = dict(vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8)
    >>> [
    ...     head_weights(ModelConfig(**sizes, head=head))
    ...     for head in ("full", "low_rank:2", "mixture:3")
    ... ]  # 3 (4 4 + 4 + 4 9)
    [36, 26, 168]
    """
    return head_of(config).products


def forward_flops(
    config: ModelConfig,
    encoded: int,
    scored: int,
    pairs: int,
    part: Partition | Adapters | None = None,
) -> float:
    """FLOPs of one forward pass.

    Args:
      config: the architecture.
      encoded: tokens that go through the blocks.
      scored: tokens whose logits are computed.
      pairs: (query, key) pairs that are computed, in all.
      part: what is trained; adapters have products of their own.

    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> forward_flops(config, encoded=1, scored=1, pairs=1) == 2 * (2 * 160 + 36) + 2 * 16
    True
    """
    attention = 4 * config.heads * config.head_width * pairs
    adapters = 2 * adapter_weights(config, part) * encoded if isinstance(part, Adapters) else 0
    return (
        config.depth * (2 * block_weights(config) * encoded + attention)
        + adapters
        + 2 * head_weights(config) * scored
    )


def adapter_weights(config: ModelConfig, part: Adapters) -> int:
    """Numbers in all adapters: R (in + out) for every matrix and layer.

    Args:
      config: the architecture.
      part: the adapters.

    >>> from lmdyn.params import low_rank
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
    """The weights that a block's gradient passes back through, and whether it passes attention."""
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


def backward_flops(
    config: ModelConfig, part: Partition | Adapters, encoded: int, scored: int, pairs: int
) -> float:
    """FLOPs of the backward pass: activations to the lowest chosen block, weights of the chosen.

    With adapters it is their weights that are trained, and activations pass through them too.
    Attention recomputes its scores, so its backward pass is five products where the forward has
    two.

    Args:
      config: the architecture.
      part: what is trained.
      encoded: tokens that went through the blocks.
      scored: tokens whose logits were computed.
      pairs: (query, key) pairs that were computed, in all.

    >>> from lmdyn.params import partition
    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> backward_flops(config, partition(shapes(config), "head"), 1, 1, 1)  # its weights alone
    72
    """
    chosen = dict(part.chosen)
    head = head_of(config).place
    # The gradient of the head's inputs is needed by everything below the head.
    below = any(path[0] != "head" for path in chosen)
    total = 2 * head_weights(config) * scored * (below + any(path[0] == head for path in chosen))
    # Activations: from the top down to the lowest block that is trained.
    for block in range(part.lowest, config.depth):
        weights, attends = _passed(config, part, block)
        total += 2 * weights * encoded + attends * 10 * config.heads * config.head_width * pairs
    if isinstance(part, Adapters):
        return total + 4 * adapter_weights(config, part) * encoded
    # Weights: of the matrices that are trained, in the layers that are.
    for path, leaf in flatten(shapes(config)).items():
        if path[0] == "blocks" and path[-1] == "kernel":
            total += 2 * leaf.shape[1] * leaf.shape[2] * encoded * len(chosen.get(path) or ())
    return total


def evaluation_flops(
    config: ModelConfig, sizes: ChunkSizes, part: Partition | Adapters | None, steps: int = 1
) -> float:
    """FLOPs of a whole evaluation.

    Args:
      config: the architecture.
      sizes: of the chunks, such as `lmdyn.online.ChunkStream.sizes` gives.
      part: what adapts; None for static evaluation.
      steps: of the optimizer, on every chunk; each is a forward and a backward pass, and the first
        one's forward pass scores.

    >>> from lmdyn.params import partition
    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> sizes = ChunkSizes(count=2, encoded=4, scored=4)
    >>> static = evaluation_flops(config, sizes, None)
    >>> adapted = evaluation_flops(config, sizes, partition(shapes(config), "blocks[1]"))
    >>> static < adapted < 3 * static
    True
    """
    one = forward_flops(config, sizes.encoded, sizes.scored, sizes.pairs, part)
    if part is not None:
        back = backward_flops(config, part, sizes.encoded, sizes.scored, sizes.pairs)
        one = steps * (one + back)
    return float(sizes.count * one)
