"""What a chunk may look back on (docs/methods.md#context).

Shape letters: C predictions of a chunk, W slots of a cache, L layers, G key-value heads, K head
width.
"""

import dataclasses
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig
from lmdyn.models.positions import check_positions
from lmdyn.types import Tree, present

if TYPE_CHECKING:
    from lmdyn.online.streams import ChunkStream


@dataclasses.dataclass(frozen=True)
class Context:
    """What a chunk looks back on. Made by `none`, `cache` and `overlap`.

    Attributes:
      kind: `none`: a chunk sees itself. `cache`: keys and values of the last `window` tokens, as
        they were when computed, without gradient (Transformer-XL). `overlap`: `window` tokens, the
        chunk's own among them, are encoded afresh with the current parameters, and only the chunk
        is scored.
      window: tokens; 0 for `none`.
      keep: of a cache's tokens, how many are the first of the text, which are never given up.
    """

    kind: Literal["none", "cache", "overlap"]
    window: int = 0
    keep: int = 0


def none() -> Context:
    """A chunk sees itself only.

    >>> none()
    Context(kind='none', window=0, keep=0)
    """
    return Context("none")


def cache(window: int, keep: int = 0) -> Context:
    """Keys and values of earlier tokens, as they were when computed, and without gradient.

    A model rests much of its attention on the first tokens of a text, and gets worse when they are
    gone (Xiao et al. 2024, arXiv 2309.17453); `keep=4` suffices. As there, positions are those in
    the cache: the first tokens are just before the others.

    Args:
      window: tokens that are cached: the last ones, and the first `keep` of the text.
      keep: first tokens of the text that are never given up.

    >>> cache(512, keep=4)
    Context(kind='cache', window=512, keep=4)
    """
    return Context("cache", window, keep)


def overlap(window: int) -> Context:
    """The last tokens are encoded afresh for every chunk.

    Args:
      window: tokens that are encoded, the chunk's own among them.

    >>> overlap(96).window
    96
    """
    return Context("overlap", window)


def forward_inputs(context: Context, cache: Tree, chunk: "ChunkStream") -> dict:
    """What `lmdyn.models.forward` needs beside a chunk's inputs.

    Args:
      context: what the chunk looks back on.
      cache: the context's cache, or None.
      chunk: one chunk of a `ChunkStream`.

    Returns:
      Keyword arguments: `positions` and `cache`, where the context has them.

    >>> forward_inputs(none(), None, None)
    {}
    """
    if context.kind == "overlap":
        return {"positions": present(chunk.positions)[None]}
    if context.kind == "none":
        return {}
    # Positions are slots of the cache, and -1 where a slot is still empty.
    slots_W = jnp.arange(context.window, dtype=jnp.int32)
    filled_1W = cache["position"] >= 0
    if context.keep:
        # While the other slots fill up from the right, the first tokens are just before them.
        others = filled_1W[:, context.keep :].sum(1, keepdims=True, dtype=jnp.int32)
        gap = context.window - context.keep - others
        slots_W = slots_W + jnp.where(slots_W < context.keep, gap, 0)
    cache = {**cache, "position": jnp.where(filled_1W, slots_W, -1)}
    own_1C = context.window + jnp.arange(chunk.targets.shape[-1], dtype=jnp.int32)[None]
    return {"cache": cache, "positions": own_1C}


def update_cache(context: Context, before: Tree, after: Tree, length: int) -> Tree:
    """The cache that the next chunk sees.

    The first `keep` slots hold the first tokens of the text, the others the last ones in order.

    Args:
      context: what a chunk looks back on.
      before: the cache that this chunk saw: `key` and `value` `[L, 1, W, G, K]`, `position`
        `[1, W]`.
      after: what `lmdyn.models.forward` made of it: the last W of its tokens and the chunk's.
      length: C.

    >>> update_cache(
    ...     cache(8), "before", "after", length=4
    ... )  # nothing is kept: the last 8 tokens
    'after'
    """
    if not context.keep:
        return after
    keep, own = context.keep, context.window - length
    # Before the first chunk nothing is kept: its first tokens are the first of all.
    begins_11 = before["position"][:, :1] < 0

    def place(old, new, axis):
        cut = lambda array, start, stop: jax.lax.slice_in_dim(array, start, stop, axis=axis)
        firsts = jnp.where(begins_11.reshape(()), cut(new, own, own + keep), cut(old, 0, keep))
        return jnp.concatenate([firsts, cut(new, keep, context.window)], axis)

    # The first chunk's first tokens are also among the last ones, where they do not count.
    slot_W = jnp.arange(context.window)
    twice_1W = begins_11 & (slot_W >= max(own, keep)) & (slot_W < own + keep)
    position_1W = place(before["position"], after["position"], 1)
    return {
        "key": place(before["key"], after["key"], 2),
        "value": place(before["value"], after["value"], 2),
        "position": jnp.where(twice_1W, -1, position_1W),
    }


def check_context(context: Context, chunk: int) -> None:
    """Refuses a window, or first tokens to keep, that do not fit the chunk.

    Args:
      context: what a chunk looks back on.
      chunk: C.

    Raises:
      InputError: a window that is not positive, a chunk longer than an `overlap` window or than a
        cache that keeps first tokens, or more of these than fit.

    >>> check_context(overlap(8), chunk=9)
    Traceback (most recent call last):
    lmdyn.errors.InputError: chunk=9 is longer than window=8; overlap needs chunk<=window
    """
    if context.kind != "none" and context.window < 1:
        raise InputError(
            f"window={context.window}: context '{context.kind}' needs a window of at least 1 token"
        )
    if context.keep and not 0 < context.keep <= min(chunk, context.window - 1):
        raise InputError(
            f"keep={context.keep}: a cache keeps fewer first tokens than its"
            f" window={context.window}, and no more than chunk={chunk}"
        )
    if chunk > context.window and (context.keep or context.kind == "overlap"):
        who = "a cache that keeps the first tokens" if context.keep else "overlap"
        raise InputError(
            f"chunk={chunk} is longer than window={context.window}; {who} needs chunk<=window"
        )


def check_reach(context: Context, chunk: int, config: ModelConfig) -> None:
    """Refuses a context for which a model has no positions; warns of one that it was not made for.

    Args:
      context: what a chunk looks back on.
      chunk: C.
      config: the architecture.

    Raises:
      InputError: `cache` with learned positions, or more tokens than there are learned positions.

    >>> sizes = dict(vocab=9, width=4, depth=2, heads=2, head_width=2, mlp_width=8, positions=8)
    >>> check_reach(none(), 9, ModelConfig(**sizes, position="learned"))
    Traceback (most recent call last):
    lmdyn.errors.InputError: chunk=9 exceeds the model's 8 positions; use chunk<=8
    """
    if context.kind == "cache":
        if config.position == "learned":
            raise InputError(
                "context 'cache' needs rotary positions, and this model has learned absolute ones;"
                " use context 'overlap' or 'none'"
            )
        check_positions(config, context.window + chunk, "window+chunk")
    elif context.window >= chunk:
        check_positions(config, context.window, "window")
    else:
        check_positions(config, chunk, "chunk")
