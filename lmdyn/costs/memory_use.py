"""How much memory an evaluation takes, by formula: what the compiled scan over chunks holds at its
fullest.

Float32 on one device, blocks scanned, the parameters that adapt given up to it (`donate`). Shape
letters: C predictions a chunk, T tokens that are encoded for it, L layers, D width, F MLP width, H
heads, G key-value heads, K head width, V vocabulary.
"""

from typing import NamedTuple

import jax
import numpy as np
import optax

from lmdyn.costs.flop_counts import block_weights
from lmdyn.models import loss as heads
from lmdyn.models.attention import blocked as attention
from lmdyn.models.config import ModelConfig
from lmdyn.models.forward import shapes
from lmdyn.online.contexts import Context
from lmdyn.online.streams import Stream
from lmdyn.params import Adapters, Partition
from lmdyn.types import present


class Memory(NamedTuple):
    """Bytes. Made by `memory`.

    Attributes:
      held: parameters, what is adapted, the optimizer's state and the cache, from first to last:
        exact.
      activations: what the forward pass leaves for the backward pass.
      working: the most that is needed at a time beside these: in the forward pass a layer's
        matrices and activations; at the head a block of logits, twice; in the backward pass the
        gradients, a layer's matrices, and what its backward pass works with.
    """

    held: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def memory(
    config: ModelConfig,
    chunks: Stream,
    context: Context,
    part: Partition | Adapters | None,
    optimizer: optax.GradientTransformation | None = None,
) -> Memory:
    """What `lmdyn.online.evaluate(..., donate=True)` takes of the device, the text itself left out.

    What is held is exact. The rest is fitted to what the compiler reserves, within 5% of the total
    (`tests/online/test_footprint.py`): it depends on how the compiler shares buffers.

    Args:
      chunks: a `Stream`. part: what adapts; None for static evaluation. optimizer: its rule; None
        for static evaluation.

    >>> import optax
    >>> from lmdyn import online
    >>> config = ModelConfig(
    ...     vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8
    ... )
    >>> chunks = online.stream(np.arange(9), chunk=4, context=online.none())
    >>> memory(config, chunks, online.none(), None).held == 4 * (
    ...     2 * 9 * 4 + 2 * 160 + 5 * 4
    ... )  # embedding and head, the blocks' matrices, norms
    True
    """
    floats = lambda tree: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
    tree = shapes(config)
    encoded, chunk = chunks.inputs.shape[1], chunks.targets.shape[1]
    held, layer = floats(tree), block_weights(config)
    if context.kind == "cache":
        held += 2 * config.depth * context.window * config.kv_heads * config.head_width
    past = context.window if context.kind == "cache" else 0
    scores = config.heads * max(
        (stop - start) * end for start, stop, end in attention.blocks(encoded, encoded + past)
    )
    forward = layer + scores + 2 * encoded * config.mlp_width
    if part is None:
        return Memory(4 * held, 0, 4 * forward)
    chosen = (
        jax.eval_shape(part.init, tree)
        if isinstance(part, Adapters)
        else jax.eval_shape(lambda params: part.split(params)[0], tree)
    )
    state, gradients = floats(jax.eval_shape(present(optimizer).init, chosen)), floats(chosen)
    held += state + (gradients if isinstance(part, Adapters) else 0)
    kept = (config.depth - part.lowest) * _kept(config, part) * encoded
    head = 2 * heads._block_rows(chunk, config.vocab) * config.vocab
    backward = (
        gradients + layer + 3 * scores + encoded * (4 * config.mlp_width + 10 * config.width)
        if part.lowest < config.depth
        else gradients
    )
    return Memory(4 * held, 4 * kept, 4 * max(forward, head, backward))


def _kept(config: ModelConfig, part) -> int:
    """Floats a token that one block leaves for its backward pass: those that every gradient needs,
    the inputs of matrices that are trained, and what the scales of its norms need.
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
