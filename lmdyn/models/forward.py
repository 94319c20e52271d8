"""Running a model: plain functions of parameters and tokens.

Shape letters, also as suffixes of names: B batch, T tokens, S keys (T, or W + T after a cache), L
layers, D width, G key-value heads, K head width, V vocabulary, W cache window.

Parameters may come with their blocks as one stack (`params["blocks"]` is a dict) or cut into
several (a tuple of dicts, run one after another): that is how the backward pass stops at the lowest
trained block and frozen layers cost no weight gradient (`lmdyn.transforms.partition`).
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from lmdyn.errors import InputError, choose
from lmdyn.models import rotary
from lmdyn.models.attention import CAUSAL, Reach
from lmdyn.models.config import ModelConfig
from lmdyn.models.modules import LanguageModel, Shared
from lmdyn.types import Array, Params, Tree

BLOCK_SITES = (
    "residual",
    "mlp.coefficients",
    "mlp.output",
    "attention.output",
    "attention.probabilities",
)
STATE_SITES = ("residual", "final")


class Forward(NamedTuple):
    """The results of a forward pass. Made by `forward`."""

    states: jax.Array
    """`[B, T, D]`, after the final norm."""
    cache: Any
    """The cache that was passed in, moved on by T tokens; None if none was."""
    tapped: dict
    """Reduced values by site; those of blocks have a leading axis L (`residual`: L + 1)."""


def init(model: LanguageModel, seed: int = 0) -> Params:
    """Fresh float32 parameters.

    >>> from lmdyn.models import LanguageModel, ModelConfig
    >>> model = LanguageModel(
    ...     ModelConfig(
    ...         vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> sorted(init(model))
    ['blocks', 'embed', 'final_norm', 'head']
    """
    return jax.jit(model.init)(jax.random.key(seed), jnp.zeros([1, 2], jnp.int32))["params"]


def shapes(config: ModelConfig) -> Params:
    """The parameter tree of `config`, as `jax.ShapeDtypeStruct`s: nothing is computed.

    >>> from lmdyn.models import ModelConfig
    >>> config = ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> shapes(config)["blocks"]["mlp"]["up"]["kernel"].shape  # [L, D, F]
    (2, 6, 10)
    """
    return jax.tree.map(lambda leaf: leaf, _shapes(config))  # a dict of its own for everyone


@functools.lru_cache(maxsize=32)
def _shapes(config: ModelConfig):
    model = LanguageModel(config)
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct([1, 2], jnp.int32))[
        "params"
    ]


def new_cache(model: LanguageModel, batch: int, window: int) -> Tree:
    """An empty cache for the keys and values of the last `window` tokens.

    Keys are kept before rotation, so that a cache can move to other positions. `position` is -1
    where empty.

    Returns:
      `{"key", "value": [L, B, W, G, K], "position": [B, W]}`.

    >>> from lmdyn.models import LanguageModel, ModelConfig
    >>> model = LanguageModel(
    ...     ModelConfig(
    ...         vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> new_cache(model, batch=1, window=4)["key"].shape
    (2, 1, 4, 3, 2)
    """
    config = model.config
    kept = (config.depth, batch, window, config.kv_heads, config.head_width)
    dtype = model.compute.resolved().dtype
    return {
        "key": jnp.zeros(kept, dtype),
        "value": jnp.zeros(kept, dtype),
        "position": jnp.full((batch, window), -1, jnp.int32),
    }


def forward(
    model: LanguageModel,
    params: Params,
    tokens: Array,
    *,
    mask: Array | None = None,
    positions: Array | None = None,
    documents: Array | None = None,
    cache: Tree = None,
    taps: Mapping[str, Callable] | None = None,
) -> Forward:
    """Tokens to final states.

    Args:
      model: what it is, and how it is run.
      params: its parameters.
      tokens: `[B, T]` integers.
      mask: `[B, T]` booleans, which tokens count in taps (default: all). It hides nothing from
        attention.
      positions: `[B, T]` integers; default 0 to T - 1, or what follows the cache. They turn or add
        position embeddings; what a token sees goes by its place in the array. A negative one is no
        text, and text does not see it.
      documents: `[B, T]` integers; attention stays inside a document. Default: one document.
      cache: from `new_cache` or an earlier call; its tokens come before these. Not together with
        `documents`.
      taps: `{site: reducer}`, with sites from `BLOCK_SITES` and `STATE_SITES`. A reducer maps
        `(value, mask)` to a pytree of sums over tokens; it runs inside the layer, and only what it
        returns leaves the layer.

    Returns:
      A `Forward`.

    Raises:
      InputError: an unknown site, or a sequence beyond learned positions.

    >>> from lmdyn.models import LanguageModel, ModelConfig
    >>> model = LanguageModel(
    ...     ModelConfig(
    ...         vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> count = lambda c, mask: jnp.sum(mask)
    >>> out = forward(
    ...     model, init(model), jnp.ones([1, 5], jnp.int32), taps={"mlp.coefficients": count}
    ... )
    >>> out.states.shape, out.tapped["mlp.coefficients"].tolist()
    ((1, 5, 6), [5, 5])
    """
    config, taps = model.config, dict(taps or {})
    for site in taps:
        choose("tap site", site, BLOCK_SITES + STATE_SITES)
    if config.position == "learned" and tokens.shape[1] > config.positions:
        raise InputError(
            f"{tokens.shape[1]} tokens exceed the model's {config.positions} learned positions; use"
            f" at most {config.positions}"
        )
    mask = jnp.ones(tokens.shape, bool) if mask is None else mask
    shared, positions_BT, positions_BS = _place(config, mask, positions, documents, cache)

    # Embedding, blocks, final norm: each is a method of the module, applied to its own parameters.
    outer = {"params": {name: sub for name, sub in params.items() if name != "blocks"}}
    x_BTD = model.apply(outer, tokens, positions_BT, method="embedded")
    first = taps["residual"](x_BTD, mask) if "residual" in taps else None
    inside = {site: reducer for site, reducer in taps.items() if site in BLOCK_SITES}
    x_BTD, cached, tapped = _through_blocks(model, params["blocks"], x_BTD, cache, shared, inside)
    states_BTD = cast(Any, model.apply(outer, x_BTD, method="finish"))

    # The residual stream has L + 1 places: before the first block, and after each.
    if first is not None:
        tapped["residual"] = jax.tree.map(
            lambda a, b: jnp.concatenate([a[None], b]), first, tapped["residual"]
        )
    if "final" in taps:
        tapped["final"] = taps["final"](states_BTD, mask)
    if cache is not None:
        begin = positions_BS.shape[1] - cache["position"].shape[1]
        cache = {**cached, "position": positions_BS[:, begin:]}
    return Forward(states_BTD, cache, tapped)


def _place(config: ModelConfig, mask, positions, documents, cache):
    """What blocks share, and the positions of the T queries and of the S keys."""
    (batch, length), own = mask.shape, positions is not None
    if not own:
        start = 0 if cache is None else cache["position"].max(1, keepdims=True) + 1
        positions = jnp.broadcast_to(start + jnp.arange(length, dtype=jnp.int32), (batch, length))
    keys, reach = positions, CAUSAL
    if cache is not None:
        keys = jnp.concatenate([cache["position"], positions], 1)
    if own or cache is not None:
        # Text is one segment; empty places of a cache, and what is before the text, another.
        text = 0 if documents is None else documents
        reach = Reach(jnp.where(positions < 0, -1, text), jnp.where(keys < 0, -1, text))
    elif documents is not None:
        reach = Reach(documents, documents)
    angles = (None, None)
    if config.position == "rotary":
        # the same for all rows of the batch when nobody asked for positions of their own
        row = slice(0, 1) if cache is None and not own else slice(None)
        angles = rotary.angles(config, positions[row]), rotary.angles(config, keys[row])
    return Shared(mask, *angles, reach), positions, keys


def _through_blocks(model, blocks, x_BTD, cache, shared, taps):
    """Through one stack of blocks after another; what comes of them, joined over layers."""
    kept, caches, gathered, below = None, [], [], 0
    if cache is not None:
        kept = {"key": cache["key"], "value": cache["value"]}
    for stack in blocks if isinstance(blocks, tuple | list) else (blocks,):
        depth = jax.tree.leaves(stack)[0].shape[0]
        part = model.clone(
            config=dataclasses.replace(model.config, depth=depth), taps=FrozenDict(taps)
        )
        # Its layers of the cache, `[depth, ...]`, go through the scan with its parameters.
        own = slice(below, below + depth)
        layers = jax.tree.map(operator.itemgetter(own), kept)
        x_BTD, moved, found = cast(
            Any, part.apply({"params": {"blocks": stack}}, x_BTD, layers, shared, method="run")
        )
        caches.append(moved)
        gathered.append(found)
        below += depth
    join = lambda *parts: parts[0] if len(parts) == 1 else jnp.concatenate(parts)
    return x_BTD, jax.tree.map(join, *caches), jax.tree.map(join, *gathered)
