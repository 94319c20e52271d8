"""How much memory an evaluation takes, by formula: what the compiled scan over chunks holds at its fullest.

Float32 on one device, blocks scanned, the parameters that adapt given up to it (`donate`). Shape letters: C predictions a chunk, T tokens that are encoded for it, L
layers, D width, F MLP width, H heads, G key-value heads, K head width, V vocabulary.
"""

from typing import NamedTuple

import jax
import numpy as np
import optax

from lmdyn.models import attention, heads
from lmdyn.models.config import ModelConfig
from lmdyn.models.forward import shapes
from lmdyn.online.contexts import Context
from lmdyn.online.cost import adapter_weights, block_weights
from lmdyn.transforms import Adapters, Partition, flatten


class Memory(NamedTuple):
    """Bytes.

    Attributes:
      held: parameters, the optimizer's state and the cache, from first to last: exact.
      gradients: of what adapts.
      activations: what the forward pass leaves for the backward pass.
      working: the most that is needed at a time beside these: a layer's matrices, and the larger of what the head and what a block works with.
    """

    held: int
    gradients: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def memory(config: ModelConfig, chunks, context: Context, part: Partition | Adapters | None, optimizer: optax.GradientTransformation | None = None) -> Memory:
    """What `lmdyn.online.evaluate(..., donate=True)` takes of the device, the text itself left out.

    Args:
      chunks: a `Stream`. part: what adapts; None for static evaluation. optimizer: its rule; None for static evaluation.

    >>> from lmdyn import online
    >>> config = ModelConfig(vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8)
    >>> chunks = online.stream(np.arange(9), chunk=4, context=online.none())
    >>> found = memory(config, chunks, online.none(), None)
    >>> found.held == 4 * (2 * 9 * 4 + 2 * 160 + 5 * 4)      # embedding and head, the blocks' matrices, norms
    True
    """
    everything = flatten(shapes(config))
    whole = sum(int(np.prod(leaf.shape)) for leaf in everything.values())
    encoded, chunk = chunks.inputs.shape[1], chunks.targets.shape[1]
    held, gradients = whole, 0
    if context.kind == "cache":
        held += 2 * config.depth * context.window * config.kv_heads * config.head_width
    rows = heads._block_rows(chunk, config.vocab)
    layer = block_weights(config)
    if part is None:
        return Memory(*(4 * int(n) for n in (held, 0, 0, layer + _block(config, encoded, context, False) + 0 * rows)))
    if isinstance(part, Adapters):
        gradients = adapter_weights(config, part)
        held += gradients
        chosen = jax.eval_shape(part.init, shapes(config))
    else:
        chosen = jax.eval_shape(lambda params: part.split(params)[0], shapes(config))
        gradients = sum(leaf.size for leaf in jax.tree.leaves(chosen))
    state = jax.eval_shape(optimizer.init, chosen)
    held += sum(leaf.size for leaf in jax.tree.leaves(state))
    kept = (config.depth - part.lowest) * _kept(config, part) * encoded
    return Memory(*(4 * int(n) for n in (held, gradients, kept, layer + max(_block(config, encoded, context, True), 2 * rows * config.vocab))))


def _kept(config: ModelConfig, part) -> int:
    """Floats a token that one block leaves for its backward pass."""
    query, key = config.heads * config.head_width, config.kv_heads * config.head_width
    return 7 * config.width + 3 * query + 2 * key + (2 + config.gated) * config.mlp_width + config.heads


def _block(config: ModelConfig, encoded: int, context: Context, backward: bool) -> int:
    """Floats that a block works with at a time."""
    past = context.window if context.kind == "cache" else 0
    scores = max((stop - start) * end for start, stop, end in attention.blocks(encoded, encoded + past)) * config.heads
    if not backward:
        return scores + encoded * 2 * config.mlp_width
    return 3 * scores + encoded * (3 * config.mlp_width + 4 * config.width)
