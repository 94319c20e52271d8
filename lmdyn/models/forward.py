"""Running a model: plain functions of parameters and tokens.

Shape letters: B batch, T tokens, L layers, D width, G key-value heads, K head width, V vocabulary,
W cache window.

Parameters may come with their blocks as one stack (`params["blocks"]` is a dict) or cut into
several (a tuple of dicts, run one after another): that is how the backward pass stops at the lowest
trained block and frozen layers cost no weight gradient (`lmdyn.transforms.partition`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from lmdyn.errors import InputError, choose
from lmdyn.models import loss as heads
from lmdyn.models import rotary
from lmdyn.models.attention.blocked import Reach
from lmdyn.models.config import ModelConfig
from lmdyn.models.heads import kinds as head_kinds
from lmdyn.models.modules import LanguageModel, Shared, resolve
from lmdyn.types import Array, Params, Tree

BLOCK_SITES = (
    "residual",
    "mlp.coefficients",
    "mlp.output",
    "attention.output",
    "attention.probabilities",
)
STATE_SITES = ("residual", "final")
HEAD_SITES = ("nll", "log_probabilities")
SITES = tuple(dict.fromkeys(BLOCK_SITES + STATE_SITES + HEAD_SITES))


class Forward(NamedTuple):
    """What `forward` returns."""

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
    dtype = resolve(model.compute).dtype
    return {
        "key": jnp.zeros(kept, dtype),
        "value": jnp.zeros(kept, dtype),
        "position": jnp.full((batch, window), -1, jnp.int32),
    }


def _stacks(blocks):
    return blocks if isinstance(blocks, tuple | list) else (blocks,)


def _depth(stack) -> int:
    return jax.tree.leaves(stack)[0].shape[0]


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
      tokens: `[B, T]` integers.
      mask: `[B, T]` booleans, which tokens count in taps (default: all). It hides nothing from
        attention.
      positions: `[B, T]` integers; default 0 to T - 1, or what follows the cache.
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
    batch, length = tokens.shape
    past = 0 if cache is None else cache["position"].shape[1]
    if config.position == "learned" and length > config.positions:
        raise InputError(
            f"{length} tokens exceed the model's {config.positions} learned positions; use at most"
            f" {config.positions}"
        )

    reach, shown = None, positions
    if positions is None:
        start = 0 if cache is None else cache["position"].max(1, keepdims=True) + 1
        positions = jnp.broadcast_to(start + jnp.arange(length, dtype=jnp.int32), (batch, length))
    keys = positions
    if cache is not None:
        keys = jnp.concatenate([cache["position"], positions], 1)
        reach = Reach(positions, keys)
    elif documents is not None or shown is not None:
        reach = Reach(positions, positions, documents, documents)
    angles = (None, None)
    if config.position == "rotary":
        # the same for all rows of the batch when nobody asked for positions of their own
        row = slice(0, 1) if cache is None and shown is None else slice(None)
        angles = rotary.angles(config, positions[row]), rotary.angles(config, keys[row])
    mask = jnp.ones(tokens.shape, bool) if mask is None else mask
    shared = Shared(mask, *angles, reach)

    outer = {name: sub for name, sub in params.items() if name != "blocks"}
    x = model.apply({"params": outer}, tokens, positions, method="embedded")
    first = taps["residual"](x, mask) if "residual" in taps else None
    inside = {site: reducer for site, reducer in taps.items() if site in BLOCK_SITES}
    kept, caches, gathered, below = None, [], [], 0
    if cache is not None:
        kept = {"key": cache["key"], "value": cache["value"]}
    for stack in _stacks(params["blocks"]):
        depth = _depth(stack)
        part = model.clone(config=dataclasses.replace(config, depth=depth), taps=FrozenDict(inside))
        layers = jax.tree.map(lambda c: c[below : below + depth], kept)
        x, moved, found = cast(
            Any, part.apply({"params": {"blocks": stack}}, x, layers, shared, method="run")
        )
        caches.append(moved)
        gathered.append(found)
        below += depth
    join = lambda *parts: parts[0] if len(parts) == 1 else jnp.concatenate(parts)
    tapped = jax.tree.map(join, *gathered)
    if first is not None:
        tapped["residual"] = jax.tree.map(
            lambda a, b: jnp.concatenate([a[None], b]), first, tapped["residual"]
        )
    if cache is not None:
        cache = {**jax.tree.map(join, *caches), "position": keys[:, keys.shape[1] - past :]}
    states = cast(Any, model.apply({"params": outer}, x, method="finish"))
    if "final" in taps:
        tapped["final"] = taps["final"](states, mask)
    return Forward(states, cache, tapped)


def logits(model: LanguageModel, params: Params, tokens: Array, **options: Any) -> jax.Array:
    """Next-token logits `[B, T, V]` in float32 of tokens `[B, T]`; options as for `forward`. Those
    of another head than the full one are log-probabilities.

    >>> from lmdyn.models import LanguageModel, ModelConfig
    >>> model = LanguageModel(
    ...     ModelConfig(
    ...         vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> logits(model, init(model), jnp.ones([1, 5], jnp.int32)).shape
    (1, 5, 11)
    """
    states = forward(model, params, tokens, **options).states
    kind = head_kinds.of(model.config)
    if kind is None:
        return heads.logits(params, states)
    found = kind.log_probabilities(
        head_kinds.flat(kind, params), states.reshape(-1, states.shape[-1])
    )
    return found.reshape(*states.shape[:-1], kind.vocab)


def loss(
    model: LanguageModel,
    params: Params,
    inputs: Array,
    targets: Array,
    weights: Array,
    **options: Any,
) -> tuple[jax.Array, tuple[jax.Array, Forward]]:
    """`sum weights * nll`, with its gradient fused: what training and online adaptation minimise.

    Args:
      inputs: `[B, T]` integers.
      targets: `[B, S]` integers, S <= T: the last S inputs are scored, the others are context.
      weights: `[B, S]` float32; for the mean over counted tokens, `mask / mask.sum()`.
      options: as for `forward`.

    Returns:
      A float32 scalar (nats), and `(nll [B, S], Forward)`. No gradient flows through the nll.

    >>> from lmdyn.models import LanguageModel, ModelConfig
    >>> model = LanguageModel(
    ...     ModelConfig(
    ...         vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> ids, weights = jnp.ones([1, 5], jnp.int32), jnp.full([1, 5], 0.2)
    >>> total, (nll, _) = loss(model, init(model), ids, ids, weights)
    >>> bool(abs(total - nll.mean()) < 1e-6)
    True
    """
    out, kind = forward(model, params, inputs, **options), head_kinds.of(model.config)
    flat, targets_, weights = (
        out.states[:, -targets.shape[1] :].reshape(-1, out.states.shape[-1]),
        targets.reshape(-1),
        weights.reshape(-1),
    )
    if kind is None:
        head, tied = heads.matrix(params)
        total, nll = cast(
            Any, heads.weighted_nll(flat, head, targets_, weights, tied, model.batch_sharding)
        )
    else:
        total, nll = cast(
            Any,
            head_kinds.weighted_nll(kind, head_kinds.flat(kind, params), flat, targets_, weights),
        )
    return total, (nll.reshape(targets.shape), out)


def token_nll(
    model: LanguageModel, params: Params, inputs: Array, targets: Array, **options: Any
) -> jax.Array:
    """Negative log-likelihood `[B, T]`, in nats, of each target given its input and what came
    before.

    Differentiable, but for training `loss` is faster: it does not compute the logits twice.

    >>> from lmdyn.models import LanguageModel, ModelConfig
    >>> model = LanguageModel(
    ...     ModelConfig(
    ...         vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> token_nll(
    ...     model, init(model), jnp.ones([1, 5], jnp.int32), jnp.ones([1, 5], jnp.int32)
    ... ).shape
    (1, 5)
    """
    states, kind = forward(model, params, inputs, **options).states, head_kinds.of(model.config)
    flat = states.reshape(-1, states.shape[-1])
    if kind is not None:
        return head_kinds.token_nll(
            kind, head_kinds.flat(kind, params), flat, targets.reshape(-1)
        ).reshape(targets.shape)
    head, tied = heads.matrix(params)
    return heads.token_nll(flat, head, targets.reshape(-1), tied, model.batch_sharding).reshape(
        targets.shape
    )


def observe(
    model: LanguageModel,
    params: Params,
    inputs: Array,
    targets: Array,
    mask: Array,
    taps: Mapping[str, Callable],
) -> dict:
    """One forward pass for any taps; the head is computed only if a tap asks for predictions.

    Args:
      inputs, targets: `[B, T]` integers.
      mask: `[B, T]` booleans: which tokens count.
      taps: `{site: reducer}` with any of `SITES`.

    Returns:
      `{site: reduced}`.

    >>> from lmdyn.models import LanguageModel, ModelConfig
    >>> model = LanguageModel(
    ...     ModelConfig(
    ...         vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> ids, mask = jnp.ones([1, 5], jnp.int32), jnp.ones([1, 5], bool)
    >>> taps = {
    ...     "mlp.coefficients": lambda c, mask: jnp.sum(
    ...         jnp.where(mask[..., None], jnp.abs(c), 0), (0, 1)
    ...     ),
    ...     "nll": lambda nll, mask: jnp.sum(nll * mask),
    ... }
    >>> found = observe(model, init(model), ids, ids, mask, taps)
    >>> found["mlp.coefficients"].shape, found["nll"].shape  # [L, F], and a number
    ((2, 10), ())
    """
    for site in taps:
        choose("tap site", site, SITES)
    body = {site: reducer for site, reducer in taps.items() if site not in HEAD_SITES}
    top = {site: reducer for site, reducer in taps.items() if site in HEAD_SITES}
    out = forward(model, params, inputs, mask=mask, taps=body)
    tapped = dict(out.tapped)
    if top:
        flat, kind = lambda a: a.reshape(-1, *a.shape[2:]), head_kinds.of(model.config)
        tokens = flat(out.states), flat(targets), flat(mask)
        if kind is None:
            tapped |= heads.observe(params, *tokens, top, model.batch_sharding)
        else:
            own = head_kinds.flat(kind, params)
            score = lambda x: kind.log_probabilities(own, x)
            tapped |= heads.observe_with(score, kind.vocab * kind.copies, *tokens, top)
    return tapped
