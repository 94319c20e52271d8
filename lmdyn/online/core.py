"""The pure core of dynamic evaluation: one scan over chunks, each scored before it is learned from.

Shape letters: n chunks, C predictions of a chunk.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lmdyn.models import LanguageModel, loss, new_cache
from lmdyn.online.change_detection import ChangeDetector, CusumState, start_cusum, update_cusum
from lmdyn.online.contexts import Context, forward_inputs, none, update_cache
from lmdyn.online.streams import ChunkStream
from lmdyn.online.traced_updates import TracedOptimizer
from lmdyn.params import Adapters, Partition
from lmdyn.types import Array, Tree, present


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """What adapts to what: all that a scan over chunks is compiled for.

    Attributes:
      model: the model.
      part: which parameters adapt; None for static evaluation.
      optimizer: how; None for static evaluation.
      context: what a chunk looks back on.
      steps: optimizer steps on every chunk.
      detector: resets the model where the text changes; None does not look.
      guard: nats that may be lost against the static model; None does not look.

    >>> from lmdyn import models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> Adaptation(models.LanguageModel(config)).context  # static evaluation
    Context(kind='none', window=0, keep=0)
    """

    model: LanguageModel
    part: Partition | Adapters | None = None
    optimizer: optax.GradientTransformation | TracedOptimizer | None = None
    context: Context = none()
    steps: int = 1
    detector: ChangeDetector | None = None
    guard: float | None = None


class Comparison(NamedTuple):
    """How the adapted model has done so far beside the static one. Made by `start_comparison`.

    Attributes:
      cusum: state of the change detector.
      excess: online minus static nll so far, in nats, summed over tokens.
      stopped: whether the guard has ended adaptation.
    """

    cusum: CusumState
    excess: jax.Array
    stopped: jax.Array


class Carry(NamedTuple):
    """The state that `adapt` carries from chunk to chunk. Made by `start`.

    Attributes:
      trainable: the adapted parameters; None when nothing adapts.
      optimizer: state of the optimizer.
      cache: of the context; None where it has none.
      comparison: None where nothing is compared with the static model.
    """

    trainable: Any
    optimizer: Any
    cache: Any
    comparison: Comparison | None = None


class Events(NamedTuple):
    """What happened at each chunk: `[n]` booleans. Made by `adapt`.

    Attributes:
      alarm: the change detector raised an alarm.
      stopped: the guard has stopped adaptation, at this chunk or before.
    """

    alarm: jax.Array
    stopped: jax.Array


def start(adaptation: Adaptation, trainable: Tree) -> Carry:
    """The carry before the first chunk of a document.

    Args:
      adaptation: what adapts to what.
      trainable: the parameters that adapt, as `part.split` gives them; None for static evaluation.

    >>> from lmdyn import models, online
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> carry = start(Adaptation(model, context=online.cache(window=8)), None)
    >>> carry.cache["position"].shape  # one stream, 8 slots
    (1, 8)
    """
    optimizer, context = adaptation.optimizer, adaptation.context
    state = None if optimizer is None else optimizer.init(trainable)
    cache = new_cache(adaptation.model, 1, context.window) if context.kind == "cache" else None
    return Carry(trainable, state, cache)


def start_comparison() -> Comparison:
    """Nothing lost, nothing stopped.

    >>> bool(start_comparison().stopped)
    False
    """
    return Comparison(start_cusum(), jnp.float32(0), jnp.bool_(False))


def take_steps(
    gradient: Callable, update: Callable, trainable: Tree, state: Tree, steps: int
) -> tuple[Tree, Tree, Any]:
    """Takes a chunk's optimizer steps.

    Args:
      gradient: `trainable -> (gradients, aux)`.
      update: an optimizer's.
      trainable: parameters before the chunk.
      state: the optimizer's.
      steps: how many, at least 1.

    Returns:
      Parameters and state after `steps` updates, and the aux of the first gradient, which is from
      before any update.

    >>> gradient, rule = jax.grad(lambda x: (x**2, x), has_aux=True), optax.sgd(0.25)
    >>> state = rule.init(jnp.float32(4))
    >>> x, _, before = take_steps(gradient, rule.update, jnp.float32(4), state, steps=2)
    >>> float(x), float(before)
    (1.0, 4.0)
    """

    def once(trainable, state):
        gradients, aux = gradient(trainable)
        updates, state = update(gradients, state, trainable)
        return (optax.apply_updates(trainable, updates), state), aux

    now, aux = once(trainable, state)
    if steps > 1:
        now = jax.lax.fori_loop(1, steps, lambda _, now: once(*now)[0], now)
    return now[0], now[1], aux


def adapt(
    adaptation: Adaptation,
    fresh: Carry | None,
    rest: Tree,
    carry: Carry,
    chunks: ChunkStream,
    static: Array | None = None,
) -> tuple[Carry, Any]:
    """The pure core: one `lax.scan` over chunks, scoring each before learning from it.

    Args:
      adaptation: what adapts to what.
      fresh: the carry to return to where a document begins, at an alarm, or for good; None never
        resets.
      rest: parameters that do not adapt (all of them for static evaluation).
      carry: from `start`, or an earlier call.
      chunks: a `ChunkStream`, or a run of consecutive chunks of one.
      static: `[n, C]` static nll in nats, for the detector and the guard.

    Returns:
      The carry after the last chunk; and nll `[n, C]` in nats with, if `static` is given, `Events`.

    >>> import numpy as np
    >>> from lmdyn import models, online
    >>> from lmdyn.params import partition
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> params = models.init(model)
    >>> part = partition(params, "blocks.mlp")
    >>> trainable, rest = part.split(params)
    >>> adaptation = Adaptation(model, part, optax.sgd(0.1))
    >>> chunks = online.chunk_stream(np.arange(9), online.OnlineConfig(chunk=4))
    >>> carry, (nll, _) = adapt(adaptation, None, rest, start(adaptation, trainable), chunks)
    >>> nll.shape  # [n, C] nats, each chunk scored before it is learned from
    (2, 4)
    """

    def step(carry: Carry, given):
        chunk, static_C = given
        if fresh is not None:  # where a document begins, all starts again but the comparison
            restart = lambda old: present(fresh)._replace(comparison=old.comparison)
            carry = jax.lax.cond(chunk.first, restart, lambda old: old, carry)
        after, nll_C = _score_then_learn(adaptation, rest, carry, chunk)
        if static_C is None:
            return after, (nll_C, None)
        return _compare(adaptation, present(fresh), carry, after, (nll_C, static_C, chunk.mask))

    return jax.lax.scan(step, carry, (chunks, static))


@functools.lru_cache(maxsize=128)
def compiled(adaptation: Adaptation) -> Callable:
    """`adapt`, jitted; equal adaptations share one program.

    It donates its carry: the memory of the old parameters is reused for the new ones. Optimizers
    are equal if their updates compute the same (`lmdyn.online.traced_updates`).

    >>> from lmdyn import models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> compiled(Adaptation(model)) is compiled(Adaptation(model))
    True
    """
    return jax.jit(functools.partial(adapt, adaptation), donate_argnums=2)


def _score_then_learn(
    adaptation: Adaptation, rest: Tree, carry: Carry, chunk: ChunkStream
) -> tuple[Carry, Array]:
    """The carry after a chunk's updates, and its nll `[C]` before them."""
    part, context = adaptation.part, adaptation.context
    inputs_1T, targets_1C = chunk.inputs[None], chunk.targets[None]
    # The chunk's mean nll is what is learned from; padding has no weight.
    weights_1C = chunk.mask.astype(jnp.float32)[None] / jnp.maximum(chunk.mask.sum(), 1)
    options = forward_inputs(context, carry.cache, chunk)

    def objective(trainable):
        params = rest if part is None else part.merge(trainable, rest)
        total, (nll_1C, out) = loss(
            adaptation.model, params, inputs_1T, targets_1C, weights_1C, **options
        )
        cache = update_cache(context, carry.cache, out.cache, targets_1C.shape[1])
        return total, (nll_1C[0], cache)

    if part is None:
        _, (nll_C, cache) = objective(None)
        return carry._replace(cache=cache), nll_C
    # The forward pass that scores is that of the first gradient.
    trainable, state, (nll_C, cache) = take_steps(
        jax.grad(objective, has_aux=True),
        present(adaptation.optimizer).update,
        carry.trainable,
        carry.optimizer,
        adaptation.steps,
    )
    return Carry(trainable, state, cache, carry.comparison), nll_C


def _compare(
    adaptation: Adaptation, fresh: Carry, before: Carry, after: Carry, scores: tuple
) -> tuple[Carry, tuple[Array, Events]]:
    """What the detector and the guard make of a chunk.

    Args:
      adaptation: has the detector, the guard, or both.
      fresh: the carry to return to.
      before: the carry before the chunk.
      after: the carry after the chunk's updates.
      scores: online nll, static nll and mask of the chunk, `[C]` each.

    Returns:
      The carry that the next chunk starts from, and the nll to report with `Events`.
    """
    detector, guard = adaptation.detector, adaptation.guard
    nll_C, static_C, mask_C = scores
    cusum, past, stopped = present(before.comparison)
    excess = jnp.sum(jnp.where(mask_C, nll_C - static_C, 0))
    total, alarm = past + excess, jnp.bool_(False)
    if guard is not None:
        # Predictions that are not numbers are known not to be before the text is: they were never
        # made. (Not `total > guard`: what is not a number must stop adaptation, too.)
        nll_C = jnp.where(stopped | ~jnp.isfinite(excess), static_C, nll_C)
        stopped |= ~(total <= guard)
    if detector is not None:
        cusum, alarm = update_cusum(detector, cusum, excess / jnp.maximum(mask_C.sum(), 1))
        alarm &= ~stopped

    def back(share):  # a share of the way back to where the model began: p + share (prior - p)
        to = lambda old, prior: jnp.where(share == 1, prior, old + share * (prior - old))
        return jax.tree.map(to, before.trainable, fresh.trainable), fresh.optimizer

    share = jnp.where(stopped, 1.0, detector.back if detector is not None else 1.0)
    trainable, state = jax.lax.cond(
        alarm | stopped, lambda: back(share), lambda: (after.trainable, after.optimizer)
    )
    # What a broken model wrote into the cache may not be numbers.
    empty = lambda new, empty: jnp.where(stopped, empty, new)
    cache = jax.tree.map(empty, after.cache, fresh.cache)
    comparison = Comparison(cusum, total, stopped)
    return Carry(trainable, state, cache, comparison), (nll_C, Events(alarm, stopped))
