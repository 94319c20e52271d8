"""The pure core of dynamic evaluation: one scan over chunks, each scored before it is learned from.

Shape letters: n chunks, C predictions a chunk.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lmdyn.models import LanguageModel, loss, new_cache
from lmdyn.online import contexts, resets
from lmdyn.online.contexts import Context
from lmdyn.online.streams import Stream
from lmdyn.params import Adapters, Partition
from lmdyn.types import Array, Tree, present


class Carry(NamedTuple):
    """What passes from chunk to chunk."""

    chosen: Any
    """The adapted parameters; None when nothing adapts."""
    optimizer: Any
    cache: Any
    watch: Any = None
    """A `Watch`; None where nothing is compared with the static model."""


class Watch(NamedTuple):
    """What is remembered of how the adapted model compares with the static one."""

    seen: Any
    """Of the detector of changes (`lmdyn.online.resets.Seen`)."""
    lost: jax.Array
    """Excess nll so far, in nats, all tokens together."""
    stopped: jax.Array
    """Whether the guard has ended adaptation."""


class Events(NamedTuple):
    """`[n]` booleans, by chunk: an alarm of the detector; adaptation is stopped, by this chunk or
    before.
    """

    alarm: jax.Array
    stopped: jax.Array


def start(
    model: LanguageModel,
    chosen: Tree,
    optimizer: optax.GradientTransformation | None,
    context: Context,
) -> Carry:
    """The carry before the first chunk of a document.

    >>> from lmdyn import models, online
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> params = models.init(model)
    >>> carry = start(model, params, optax.sgd(0.1), online.cache(window=8))
    >>> carry.cache["position"].shape, carry.chosen is params  # one stream, 8 places
    ((1, 8), True)
    """
    state = None if optimizer is None else optimizer.init(chosen)
    cache = new_cache(model, 1, context.window) if context.kind == "cache" else None
    return Carry(chosen, state, cache)


def learned(
    slope: Callable, update: Callable, chosen: Tree, state: Tree, steps: int
) -> tuple[Tree, Tree, Any]:
    """Takes a chunk's steps.

    Args:
      slope: `chosen -> (gradients, aux)`.
      update: an optimizer's.
      state: the optimizer's.

    Returns:
      What is chosen and the state after `steps` updates, and the aux of the first slope: before any
        update.
    """

    def once(chosen, state):
        gradients, aux = slope(chosen)
        updates, state = update(gradients, state, chosen)
        return (optax.apply_updates(chosen, updates), state), aux

    now, aux = once(chosen, state)
    if steps > 1:
        now = jax.lax.fori_loop(1, steps, lambda _, now: once(*now)[0], now)
    return now[0], now[1], aux


def adapt(
    model: LanguageModel,
    part: Partition | Adapters | None,
    optimizer: optax.GradientTransformation | None,
    context: Context,
    fresh: Tree,
    rest: Tree,
    carry: Carry,
    chunks: Stream,
    static: Array | None = None,
    *,
    steps: int = 1,
    change: resets.Change | None = None,
    guard: float | None = None,
) -> tuple[Carry, Any]:
    """The pure core: one `lax.scan` over chunks, scoring each before learning from it.

    Args:
      part: which parameters adapt; None for static evaluation, where `rest` holds all parameters.
      fresh: the carry to return to where a document begins, at an alarm, or for good; None never
        resets.
      rest: what does not adapt.
      carry: from `start`, or an earlier call.
      chunks: a `Stream`, or a run of consecutive chunks of one.
      static: `[n, C]` static nll in nats, for `change` and `guard`.
      steps, change, guard: see `evaluate`.

    Returns:
      The carry after the last chunk; and nll `[n, C]` in nats with, if `static` is given, `Events`.

    >>> import numpy as np
    >>> from lmdyn import models, online, transforms
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> params = models.init(model)
    >>> chunks = online.stream(np.arange(9), chunk=4, context=online.none())
    >>> part, optimizer = partition(params, "blocks.mlp"), optax.sgd(0.1)
    >>> chosen, rest = part.split(params)
    >>> carry = start(model, chosen, optimizer, online.none())
    >>> carry, (nll, _) = adapt(
    ...     model, part, optimizer, online.none(), None, rest, carry, chunks
    ... )
    >>> nll.shape  # [n, C] nats, each chunk scored before it is learned from
    (2, 4)
    """

    def step(carry: Carry, given):
        chunk, still = given
        if fresh is not None:
            carry = jax.lax.cond(
                chunk.first, lambda old: fresh._replace(watch=old.watch), lambda old: old, carry
            )
        inputs, targets = chunk.inputs[None], chunk.targets[None]
        weights = chunk.mask.astype(jnp.float32)[None] / jnp.maximum(chunk.mask.sum(), 1)
        options = contexts.seen(context, carry.cache, chunk)

        def objective(chosen):
            params = rest if part is None else part.merge(chosen, rest)
            total, (nll, out) = loss(model, params, inputs, targets, weights, **options)
            return total, (nll[0], contexts.kept(context, carry.cache, out.cache, targets.shape[1]))

        if part is None:
            _, (nll, cache) = objective(None)
            return carry._replace(cache=cache), (nll, None)
        slope = jax.grad(objective, has_aux=True)
        chosen, state, (nll, cache) = learned(
            slope, present(optimizer).update, carry.chosen, carry.optimizer, steps
        )
        after = Carry(chosen, state, cache, carry.watch)
        return (
            (after, (nll, None))
            if still is None
            else compared(carry, after, nll, still, chunk.mask)
        )

    def compared(before: Carry, after: Carry, nll, still, mask):
        watch = before.watch
        excess = jnp.sum(jnp.where(mask, nll - still, 0))
        stopped, alarm, seen = watch.stopped, jnp.bool_(False), watch.seen
        lost = watch.lost + excess
        if (
            guard is not None
        ):  # not `lost > guard`: a number that is none is no less than it, either
            stopped |= ~(lost <= guard)
            # Predictions that are no numbers are seen to be none before the text is: they were
            # never made.
            nll = jnp.where(watch.stopped | ~jnp.isfinite(excess), still, nll)
        if change is not None:
            seen, alarm = resets.follow(change, seen, excess / jnp.maximum(mask.sum(), 1))
            alarm &= ~stopped

        def back(share):
            to = lambda old, prior: jnp.where(share == 1, prior, old + share * (prior - old))
            return jax.tree.map(to, before.chosen, fresh.chosen), fresh.optimizer

        share = jnp.where(stopped, 1.0, change.back if change is not None else 1.0)
        chosen, state = jax.lax.cond(
            alarm | stopped, lambda: back(share), lambda: (after.chosen, after.optimizer)
        )
        # What a broken model wrote into the cache may be no numbers.
        cache = jax.tree.map(
            lambda new, empty: jnp.where(stopped, empty, new), after.cache, fresh.cache
        )
        return Carry(chosen, state, cache, Watch(seen, lost, stopped)), (
            nll,
            Events(alarm, stopped),
        )

    return jax.lax.scan(step, carry, (chunks, static))
