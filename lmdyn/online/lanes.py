"""Documents side by side: every lane adapts to documents of its own, one after another, over one
shared body.

A lane has its own copy of what adapts, its own optimizer state and cache; whatever does not adapt
is there once, and its matrices meet the tokens of all lanes in one product. Shape letters: n steps,
S lanes, C predictions a chunk.
"""

import functools
import heapq
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmdyn.models import forward, loss
from lmdyn.models.heads import head_of
from lmdyn.models.modules import LanguageModel
from lmdyn.online.contexts import Context, kept, seen
from lmdyn.online.core import Carry, learned
from lmdyn.online.rules import never
from lmdyn.online.streams import Stream
from lmdyn.params.adapters import Adapters
from lmdyn.params.partitions import Partition
from lmdyn.types import Tree, present


def schedule(first: np.ndarray, lanes: int) -> np.ndarray:
    """Which chunk each lane reads at each step: the longest document left goes to the lane that is
    free first.

    Args:
      first: `[n]` booleans of a `Stream`: where a document begins.
      lanes: S; no more than there are documents are used.

    Returns:
      `[steps, lanes]` indices of chunks, -1 where a lane has come to its end. Lanes with more work
      stand first.

    >>> schedule(
    ...     np.array([True, True, False, False, True, False]), lanes=2
    ... ).tolist()  # documents of 1, 3 and 2 chunks
    [[1, 4], [2, 5], [3, 0]]
    """
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(first))
    free = [(0, lane) for lane in range(min(lanes, len(starts)))]
    work: list[list[int]] = [[] for _ in free]
    for document in np.argsort(starts - ends, kind="stable"):
        _, lane = heapq.heappop(free)
        work[lane] += range(starts[document], ends[document])
        heapq.heappush(free, (len(work[lane]), lane))
    work.sort(key=len, reverse=True)
    order = np.full((len(work[0]), len(work)), -1)
    for lane, chunks in enumerate(work):
        order[: len(chunks), lane] = chunks
    return order


def segments(order: np.ndarray, worth: float) -> list[np.ndarray]:
    """The schedule cut where so many lanes have ended that half of them suffice.

    Args:
      order: from `schedule`.
      worth: a cut is made if it saves at least this many chunks, since it makes another program.

    Returns:
      `[steps, lanes]` arrays, each with half the lanes of the one before or fewer.

    >>> [
    ...     s.shape
    ...     for s in segments(
    ...         np.array([[0, 1, 2, 3]] + [[i, -1, -1, -1] for i in range(4, 9)]), worth=2
    ...     )
    ... ]
    [(1, 4), (5, 1)]
    """
    found, start, width = [], 0, order.shape[1]
    for step, busy in enumerate((order >= 0).sum(1)):
        enough = width
        while enough > 1 and -(-enough // 2) >= busy:
            enough = -(-enough // 2)
        if enough < width and (len(order) - step) * (width - enough) >= worth:
            found.append(order[start:step, :width])
            start, width = step, enough
    return [*found, order[start:, :width]]


def laid_out(chunks: Stream, order: np.ndarray) -> Stream:
    """The stream's chunks as a schedule places them: arrays `[steps, lanes, ...]`; an idle lane's
    chunk counts nowhere.
    """
    placed = jax.tree.map(lambda array: array[np.maximum(order, 0)], chunks)
    busy = order >= 0
    return placed._replace(mask=placed.mask & busy[..., None], first=placed.first & busy)


def adapt(
    model: LanguageModel,
    part: Partition | Adapters | None,
    optimizer: optax.GradientTransformation | None,
    context: Context,
    fresh: Tree,
    rest: Tree,
    carry: Carry,
    chunks: Stream,
    *,
    steps: int = 1,
) -> tuple[Carry, jax.Array]:
    """The pure core, as `lmdyn.online.adapt`, for lanes.

    Args:
      fresh: the carry before the first chunk of a document, of one lane; None never resets.
      rest: what does not adapt, there once.
      carry: leaves with a leading axis S.
      chunks: from `laid_out`.

    Returns:
      The carry after the last step, and nll `[n, S, C]` in nats.
    """
    head = head_of(model.config)
    own_head = part is not None and any(path[0] == head.place for path in part.chosen)

    def restart(carry, first):
        one = lambda old, new: jnp.where(first.reshape(-1, *[1] * jnp.ndim(new)), new, old)
        return jax.tree.map(one, carry, fresh)

    def step(carry, chunk: Stream):
        if fresh is not None:
            carry = jax.lax.cond(
                chunk.first.any(), restart, lambda carry, first: carry, carry, chunk.first
            )
        weights = chunk.mask.astype(jnp.float32) / jnp.maximum(chunk.mask.sum(1, keepdims=True), 1)
        length = chunk.targets.shape[1]

        def alone(chosen, cache, chunk, weights):
            params = rest if part is None else part.merge(chosen, rest)
            options = seen(context, cache, chunk)
            if own_head:
                total, (nll, out) = loss(
                    model, params, chunk.inputs[None], chunk.targets[None], weights[None], **options
                )
                return (total, nll[0]), kept(context, cache, out.cache, length)
            out = forward(model, params, chunk.inputs[None], **options)
            return out.states[0, -length:], kept(context, cache, out.cache, length)

        def objective(chosen):
            found: Any
            found, cache = jax.vmap(alone)(chosen, carry.cache, chunk, weights)
            if own_head:
                return found[0].sum(), (found[1], cache)
            # One head for all lanes: its blocks of logits are those of all tokens together.
            flat = found.reshape(-1, found.shape[-1])
            total, nll = head.weighted_nll(
                head.matrices(rest), flat, chunk.targets.reshape(-1), weights.reshape(-1)
            )
            return total, (nll.reshape(weights.shape), cache)

        if part is None:
            _, (nll, cache) = objective(None)
            return carry._replace(cache=cache), nll
        slope = jax.grad(objective, has_aux=True)
        chosen, state, (nll, cache) = learned(
            slope, jax.vmap(present(optimizer).update), carry.chosen, carry.optimizer, steps
        )
        return carry._replace(chosen=chosen, optimizer=state, cache=cache), nll

    return jax.lax.scan(step, carry, chunks)


@functools.lru_cache(maxsize=64)
def compiled(
    model: LanguageModel,
    part: Partition | Adapters | None,
    update: Callable,
    context: Context,
    steps: int = 1,
) -> Callable:
    """The jitted core, which owns its carry; `update` is an optimizer's."""
    optimizer = None if update is None else optax.GradientTransformation(never, update)
    return jax.jit(
        functools.partial(adapt, model, part, optimizer, context, steps=steps), donate_argnums=2
    )
