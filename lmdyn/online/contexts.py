"""What a chunk may look back on (METHODS section 5)."""

import dataclasses
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig
from lmdyn.types import Tree, present

if TYPE_CHECKING:
    from lmdyn.online.streams import Stream


@dataclasses.dataclass(frozen=True)
class Context:
    """A context rule: `none()`, `cache(window, keep)` or `overlap(window)`. Made by `none`, `cache`
    and `overlap`.

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
    """Keys and values of `window` tokens are kept, stale and without gradient: the last ones, and
    the first `keep` of the text.

    A model rests much of its attention on the first tokens of a text, and gets worse when they are
    gone (Xiao et al. 2024, arXiv 2309.17453); 4 suffice. As there, positions are those in the
    cache: the first tokens stand just before the others.

    >>> cache(512, keep=4)
    Context(kind='cache', window=512, keep=4)
    """
    return Context("cache", window, keep)


def overlap(window: int) -> Context:
    """The last `window` tokens, the chunk's own among them, are encoded afresh for every chunk.

    >>> overlap(96).window
    96
    """
    return Context("overlap", window)


def seen(context: Context, cache: Tree, chunk: "Stream") -> dict:
    """What `lmdyn.models.forward` needs beside a chunk's inputs.

    Args:
      cache: the context's cache, or None.
      chunk: one chunk of a `Stream`.
    """
    if context.kind == "overlap":
        return {"positions": present(chunk.positions)[None]}
    if context.kind == "none":
        return {}
    places, filled = jnp.arange(context.window, dtype=jnp.int32), cache["position"] >= 0
    if context.keep:  # those that are kept move up to the first of the others
        gap = (
            context.window
            - context.keep
            - filled[:, context.keep :].sum(1, keepdims=True, dtype=jnp.int32)
        )
        places = places + jnp.where(places < context.keep, gap, 0)
    cache = {**cache, "position": jnp.where(filled, places, -1)}
    return {
        "cache": cache,
        "positions": context.window + jnp.arange(chunk.targets.shape[-1], dtype=jnp.int32)[None],
    }


def kept(context: Context, before: Tree, after: Tree, length: int) -> Tree:
    """The cache that the next chunk sees.

    Args:
      before: the cache that this chunk saw.
      after: what `lmdyn.models.forward` made of it: the last W of its tokens and the chunk's.
      length: C. The first `keep` slots hold the first tokens, the others the last ones in order.
    """
    if not context.keep:
        return after
    keep, own = context.keep, context.window - length
    begins = (
        before["position"][:, :1] < 0
    )  # nothing was kept yet: the chunk's first tokens are the first of all

    def place(old, new, axis):
        cut = lambda array, start, stop: jax.lax.slice_in_dim(array, start, stop, axis=axis)
        firsts = jnp.where(begins.reshape(()), cut(new, own, own + keep), cut(old, 0, keep))
        return jnp.concatenate([firsts, cut(new, keep, context.window)], axis)

    slot = jnp.arange(context.window)
    twice = (
        begins & (slot >= max(own, keep)) & (slot < own + keep)
    )  # they stand among the last ones, too
    positions = place(before["position"], after["position"], 1)
    return {
        "key": place(before["key"], after["key"], 2),
        "value": place(before["value"], after["value"], 2),
        "position": jnp.where(twice, -1, positions),
    }


def check(context: Context, chunk: int, config: ModelConfig) -> None:
    """Refuses what cannot be run.

    Raises:
      InputError: a chunk or window that is not positive, a chunk longer than an `overlap` window or
        than a cache that keeps first tokens, more of these than fit, `cache` with learned
        positions, or more tokens than there are learned positions.
    """
    if chunk < 1:
        raise InputError(f"chunk={chunk}: a chunk needs at least 1 prediction")
    if context.kind != "none" and context.window < 1:
        raise InputError(
            f"window={context.window}: context '{context.kind}' needs a window of at least 1 token"
        )
    if context.keep and not 0 < context.keep <= min(chunk, context.window - 1):
        raise InputError(
            f"keep={context.keep}: a cache keeps fewer first tokens than its"
            f" window={context.window}, and no more than chunk={chunk}"
        )
    if context.keep and chunk > context.window:
        raise InputError(
            f"chunk={chunk} is longer than window={context.window}; a cache that keeps the first"
            " tokens needs chunk<=window"
        )
    if context.kind == "overlap" and chunk > context.window:
        raise InputError(
            f"chunk={chunk} is longer than window={context.window}; overlap needs chunk<=window"
        )
    if config.position == "learned":
        if context.kind == "cache":
            raise InputError(
                "context 'cache' needs rotary positions, and this model has learned absolute ones;"
                " use context 'overlap' or 'none'"
            )
        reach = max(chunk, context.window)
        if reach > config.positions:
            what = "window" if context.window >= chunk else "chunk"
            raise InputError(
                f"{what}={reach} exceeds the model's {config.positions} positions; use"
                f" {what}<={config.positions}"
            )
