"""Documents side by side: each lane adapts to its own documents over one shared body.

A lane has its own copy of what adapts, its own optimizer state and cache; whatever does not adapt
is there once, and its matrices meet the tokens of all lanes in one product. Shape letters: n steps,
S lanes, C predictions of a chunk, N = S C, D width.
"""

import functools
import heapq
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn.models import forward, loss
from lmdyn.models.heads import head_of
from lmdyn.online.contexts import forward_inputs, update_cache
from lmdyn.online.core import Adaptation, Carry, take_steps
from lmdyn.online.streams import ChunkStream
from lmdyn.types import Array, Tree, present


def schedule(first: np.ndarray, lanes: int) -> np.ndarray:
    """Which chunk each lane reads at each step.

    The longest document left goes to the lane that is free first.

    Args:
      first: `[n]` booleans of a `ChunkStream`: where a document begins.
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


def place_chunks(chunks: ChunkStream, order: np.ndarray) -> ChunkStream:
    """The stream's chunks as a schedule places them; an idle lane's chunk counts nowhere.

    Args:
      chunks: a stream of documents, each reset.
      order: `[steps, lanes]`, from `schedule`.

    Returns:
      A stream whose arrays are `[steps, lanes, ...]`.

    >>> from lmdyn.online import OnlineConfig, chunk_stream
    >>> chunks = chunk_stream(np.arange(9), OnlineConfig(chunk=4))
    >>> place_chunks(chunks, np.array([[0, -1], [1, -1]])).mask.any(-1).tolist()
    [[True, False], [True, False]]
    """
    placed = jax.tree.map(lambda array: array[np.maximum(order, 0)], chunks)
    busy = order >= 0
    return placed._replace(mask=placed.mask & busy[..., None], first=placed.first & busy)


def adapt_lanes(
    adaptation: Adaptation, fresh: Carry | None, rest: Tree, carry: Carry, chunks: ChunkStream
) -> tuple[Carry, jax.Array]:
    """The pure core, as `lmdyn.online.adapt`, for lanes.

    Args:
      adaptation: what adapts to what; nothing is compared with the static model.
      fresh: the carry before the first chunk of a document, of one lane; None never resets.
      rest: what does not adapt, there once.
      carry: leaves with a leading axis S.
      chunks: from `place_chunks`.

    Returns:
      The carry after the last step, and nll `[n, S, C]` in nats.

    >>> import numpy as np
    >>> from lmdyn import models, online
    >>> from lmdyn.online.core import start
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> documents = [np.arange(9), np.arange(5)]  # of two chunks and of one
    >>> settings = online.OnlineConfig(chunk=4, reset="document")
    >>> chunks = online.chunk_stream(documents, settings)
    >>> placed = place_chunks(chunks, schedule(chunks.first, lanes=2))
    >>> adaptation = Adaptation(model)  # nothing adapts
    >>> _, nll = adapt_lanes(
    ...     adaptation, None, models.init(model), Carry(None, None, None), placed
    ... )
    >>> nll.shape  # [n, S, C]
    (2, 2, 4)
    """

    def restart(carry: Carry, first_S: Array) -> Carry:
        one = lambda old, new: jnp.where(first_S.reshape(-1, *[1] * jnp.ndim(new)), new, old)
        return jax.tree.map(one, carry, fresh)

    def step(carry: Carry, chunk: ChunkStream):
        # Lanes in which a document begins start again from `fresh`.
        if fresh is not None:
            carry = jax.lax.cond(
                chunk.first.any(), restart, lambda carry, first: carry, carry, chunk.first
            )
        objective = _objective(adaptation, rest, carry.cache, chunk)
        if adaptation.part is None:
            _, (nll_SC, cache) = objective(None)
            return carry._replace(cache=cache), nll_SC
        # All lanes are scored, then each takes its own steps: lanes share no term of the sum, so
        # the gradient of the sum is each lane's own.
        trainable, state, (nll_SC, cache) = take_steps(
            jax.grad(objective, has_aux=True),
            jax.vmap(present(adaptation.optimizer).update),
            carry.trainable,
            carry.optimizer,
            adaptation.steps,
        )
        return carry._replace(trainable=trainable, optimizer=state, cache=cache), nll_SC

    return jax.lax.scan(step, carry, chunks)


@functools.lru_cache(maxsize=64)
def compiled_lanes(adaptation: Adaptation) -> Callable:
    """`adapt_lanes`, jitted; it donates its carry.

    >>> from lmdyn import models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> compiled_lanes(Adaptation(model)) is compiled_lanes(Adaptation(model))
    True
    """
    return jax.jit(functools.partial(adapt_lanes, adaptation), donate_argnums=2)


def _objective(adaptation: Adaptation, rest: Tree, cache: Tree, chunk: ChunkStream) -> Callable:
    """`trainable -> (sum of the lanes' losses, (nll [S, C], caches))` of one step.

    Lanes meet in nothing but the sum, so its gradient is each lane's own.
    """
    model, part, context = adaptation.model, adaptation.part, adaptation.context
    weights_SC = chunk.mask.astype(jnp.float32) / jnp.maximum(chunk.mask.sum(1, keepdims=True), 1)
    length = chunk.targets.shape[1]
    head = head_of(model.config)
    own_head = part is not None and any(path[0] == head.place for path in part.chosen)

    def alone(trainable, cache, chunk, weights_C):
        params = rest if part is None else part.merge(trainable, rest)
        options = forward_inputs(context, cache, chunk)
        if own_head:  # the head differs by lane: loss and nll are a lane's own
            total, (nll_1C, out) = loss(
                model, params, chunk.inputs[None], chunk.targets[None], weights_C[None], **options
            )
            return (total, nll_1C[0]), update_cache(context, cache, out.cache, length)
        out = forward(model, params, chunk.inputs[None], **options)
        return out.states[0, -length:], update_cache(context, cache, out.cache, length)

    def objective(trainable):
        found: Any
        found, caches = jax.vmap(alone)(trainable, cache, chunk, weights_SC)
        if own_head:
            total_S, nll_SC = found
            return total_S.sum(), (nll_SC, caches)
        # One head for all lanes: its blocks of logits are those of all tokens together.
        states_ND, targets_N = found.reshape(-1, found.shape[-1]), chunk.targets.reshape(-1)
        total, nll_N = head.weighted_nll(
            head.matrices(rest), states_ND, targets_N, weights_SC.reshape(-1)
        )
        return total, (nll_N.reshape(weights_SC.shape), caches)

    return objective
