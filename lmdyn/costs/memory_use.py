"""Peak memory of an evaluation, by formula: the most that the compiled scan over chunks holds.

Float32 on one device, blocks scanned, the parameters that adapt given up to it (`donate`). Shape
letters: C predictions a chunk, T tokens that are encoded for it, L layers, D width, F MLP width, H
heads, G key-value heads, K head width, V vocabulary.
"""

from typing import NamedTuple

import jax
import numpy as np
import optax

from lmdyn.costs.flop_counts import ChunkSizes, block_weights
from lmdyn.models.attention import query_blocks
from lmdyn.models.config import ModelConfig
from lmdyn.models.forward import shapes
from lmdyn.models.tiles import tile_rows
from lmdyn.params import Adapters, Partition
from lmdyn.types import present


class MemoryUse(NamedTuple):
    """Bytes of device memory. Made by `evaluation_memory`.

    Attributes:
      held: parameters, what is adapted, the optimizer's state and the cache, from first to last:
        exact.
      activations: what the forward pass leaves for the backward pass.
      working: the most that is needed at a time beside these: in the forward pass a layer's
        matrices and activations; at the head a block of logits, twice; in the backward pass the
        gradients, a layer's matrices, and what its backward pass works with.

    >>> MemoryUse(held=100, activations=20, working=3).total
    123
    """

    held: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def evaluation_memory(
    config: ModelConfig,
    sizes: ChunkSizes,
    part: Partition | Adapters | None,
    optimizer: optax.GradientTransformation | None = None,
) -> MemoryUse:
    """Device memory of `lmdyn.online.evaluate(..., donate=True)`, without the text itself.

    What is held is exact. The rest is fitted to what the compiler reserves, within 5% of the total
    (`tests/costs/test_memory_use.py`): it depends on how the compiler shares buffers.

    Args:
      config: the architecture.
      sizes: of the chunks, such as `lmdyn.online.ChunkStream.sizes` gives.
      part: what adapts; None for static evaluation.
      optimizer: how it adapts; None for static evaluation.

    Returns:
      A `MemoryUse`.

    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> sizes = ChunkSizes(count=2, encoded=4, scored=4)
    >>> matrices = 2 * 9 * 4 + 2 * 160  # embedding and head, blocks
    >>> evaluation_memory(config, sizes, None).held == 4 * (matrices + 5 * 4)  # and norms
    True
    """
    floats = lambda tree: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
    tree = shapes(config)
    encoded, past = sizes.encoded, sizes.cached
    held, layer = floats(tree), block_weights(config)
    held += 2 * config.depth * past * config.kv_heads * config.head_width
    # Forward: the matrices of one layer, the scores of one block of queries, the MLP.
    scores = config.heads * max(
        (stop - start) * end for start, stop, _, end in query_blocks(encoded, encoded + past)
    )
    forward = layer + scores + 2 * encoded * config.mlp_width
    if part is None:
        return MemoryUse(4 * held, 0, 4 * forward)
    # What adapts is held once more where it is kept beside the parameters, and its optimizer state.
    chosen = (
        jax.eval_shape(part.init, tree)
        if isinstance(part, Adapters)
        else jax.eval_shape(lambda params: part.split(params)[0], tree)
    )
    state, gradients = floats(jax.eval_shape(present(optimizer).init, chosen)), floats(chosen)
    held += state + (gradients if isinstance(part, Adapters) else 0)
    # Left by the forward pass for the backward pass, which stops at the lowest trained block.
    kept = (config.depth - part.lowest) * _floats_per_token(config, part) * encoded
    head = 2 * tile_rows(sizes.scored, config.vocab) * config.vocab
    backward = (
        gradients + layer + 3 * scores + encoded * (4 * config.mlp_width + 10 * config.width)
        if part.lowest < config.depth
        else gradients
    )
    return MemoryUse(4 * held, 4 * kept, 4 * max(forward, head, backward))


def _floats_per_token(config: ModelConfig, part) -> int:
    """Floats per token that one block leaves for its backward pass.

    Those that every gradient needs, the inputs of matrices that are trained, and what the scales of
    its norms need.
    """
    query, key = config.heads * config.head_width, config.kv_heads * config.head_width
    always = (
        2 * config.width
        + 2 * query
        + 2 * key
        + (1 + config.gated) * config.mlp_width
        + config.heads
    )
    trained = {path[1:3] for path in part.chosen if path[0] == "blocks"}
    norms = any(path[0].endswith("norm") for path in trained)
    into = {"query": config.width, "output": query, "up": config.width, "down": config.mlp_width}
    return (
        always
        + 3 * config.width * norms
        + sum(size for name, size in into.items() if any(name == path[1] for path in trained))
    )
