"""Dynamic evaluation: score a chunk, then learn from it.

Krause et al. 2018 (arXiv 1709.07432); Rannen-Triki et al. 2024 (arXiv 2403.01518). Shape letters: n
chunks, C predictions of a chunk, S lanes, N predictions in all.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmdyn.costs import evaluation_flops
from lmdyn.data import check_tokens
from lmdyn.errors import InputError
from lmdyn.models import LanguageModel
from lmdyn.online import lanes
from lmdyn.online.config import OnlineConfig
from lmdyn.online.contexts import check_reach
from lmdyn.online.core import Adaptation, Carry, compiled, start, start_comparison
from lmdyn.online.streams import ChunkStream, chunk_stream
from lmdyn.online.traced_updates import trace_optimizer
from lmdyn.online.update_rules import every
from lmdyn.transforms import Localized
from lmdyn.types import Params


class Outcome(NamedTuple):
    """What `evaluate` returns.

    Attributes:
      nll: `[N]` float32 nats, each token scored before the update that learns from it.
      flops: floating-point operations, by formula (`lmdyn.costs.evaluation_flops`).
      params: the parameters after the last chunk, low-rank adapters added in; those passed in, if
        nothing adapts or documents are read side by side.
      adapted: what was adapted, after the last chunk: the trainable parameters, or the adapters;
        else None.
      resets: how many predictions were made before each alarm of the detector of changes, integers
        in order.
      stopped: how many predictions were made when the guard stopped adaptation; None if it did not.

    >>> Outcome(np.zeros(3, np.float32), 1e6, None, None).perplexity
    1.0
    """

    nll: np.ndarray
    flops: float
    params: Any
    adapted: Any
    resets: tuple[int, ...] = ()
    stopped: int | None = None

    @property
    def mean(self) -> float:
        """Mean nll in nats."""
        return float(self.nll.mean(dtype=np.float64))

    @property
    def perplexity(self) -> float:
        """`exp(mean nll)`."""
        return float(np.exp(self.mean))


class _EvaluationPlan(NamedTuple):
    """What `evaluate` runs.

    Attributes:
      adaptation: what adapts to what.
      chunks: the text.
      static: `[n, C]` static nll in nats, where something is compared with it.
      trainable: the parameters that adapt, before the first chunk; None for static evaluation.
      rest: the others.
      flops: of all of it, by formula; of lanes, of one chunk.
    """

    adaptation: Adaptation
    chunks: ChunkStream
    static: np.ndarray | None
    trainable: Any
    rest: Any
    flops: float


def evaluate(
    model: LanguageModel,
    params: Params,
    documents: ChunkStream | Sequence[np.ndarray] | np.ndarray,
    optimizer: optax.GradientTransformation | None = None,
    config: OnlineConfig = OnlineConfig(),
    *,
    static: np.ndarray | None = None,
    progress: bool = False,
    donate: bool = False,
) -> Outcome:
    """Evaluates a text, adapting to it on the way if an optimizer is given.

    For every chunk: score it with the current parameters, record its nll, *then* take an optimizer
    step on its mean nll. Without an optimizer the same evaluation is static.

    Calls that differ in nothing but an equal optimizer, such as `optax.adam(1e-3)` built anew,
    share one compiled program; `learning_rate_as_state` makes optimizers of all learning rates
    share one.

    Args:
      model: as `lmdyn.load` returns it.
      params: its parameters. They are not changed (but see `donate`).
      documents: token ids, one integer array per document (see `lmdyn.data.tokenize`), or a
        `ChunkStream` of the same config.
      optimizer: any optax transformation, applied to the adapted parameters only; None for static
        evaluation.
      config: chunks, context, what adapts, resets.
      static: nll `[N]` of the static evaluation of the same stream, which the detector and the
        guard compare with; by default it is computed, and its cost added.
      progress: show a bar on standard error (the scan then runs in several pieces, with the same
        numbers).
      donate: the memory of `params` may be used for the adapted ones; `params` are gone afterwards.

    Returns:
      An `Outcome`.

    Raises:
      InputError: a context that the model cannot have, a selector that matches nothing, an empty
        text, `static` of another length, an optimizer whose state cannot be carried over a reset.

    >>> import lmdyn.models as models, optax
    >>> sizes = dict(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(models.ModelConfig(**sizes))
    >>> text, config = np.arange(30) % 11, OnlineConfig(chunk=4, adapt="blocks.mlp")
    >>> evaluate(model, models.init(model), text, optax.sgd(0.1), config).nll.shape
    (29,)
    """
    chunks = chunk_stream(documents, config)
    _check(model, chunks, config)
    plan = _plan(model, params, chunks, optimizer, config)
    if config.parallel > 1:
        nll, flops = _run_lanes(plan, config, progress)
        return Outcome(nll, flops, params, None)
    if plan.adaptation.part is not None and config.compares:
        plan = _with_static(plan, model, params, config, static, progress)
    carry, nll_nC, events = _run(plan, config, progress, donate)
    return _gather(plan, params, carry, nll_nC, events)


def _check(model: LanguageModel, chunks: ChunkStream, config: OnlineConfig) -> None:
    """Refuses a text or context that the model cannot have."""
    check_reach(config.context, config.chunk, model.config)
    check_tokens(chunks.inputs, model.config.vocab)
    check_tokens(chunks.targets, model.config.vocab)


def _plan(
    model: LanguageModel,
    params: Params,
    chunks: ChunkStream,
    optimizer: optax.GradientTransformation | None,
    config: OnlineConfig,
) -> _EvaluationPlan:
    """What is compiled, what it runs over, and what that costs."""
    if optimizer is None:
        adaptation, trainable, rest = Adaptation(model, context=config.context), None, params
    else:
        part = config.partition(params)
        optimizer = optimizer if config.every == 1 else every(optimizer, config.every)
        if isinstance(config.adapt, Localized):
            optimizer = config.adapt.after(optimizer)
        # Equal optimizers are found by what their updates compute, and share a program.
        trainable, rest = part.split(params)
        traced = trace_optimizer(optimizer, trainable)
        adaptation = Adaptation(
            model, part, traced, config.context, config.steps, config.detector, config.guard
        )
    sizes = chunks.sizes(config.context)
    sizes = sizes._replace(count=1) if config.parallel > 1 else sizes
    flops = evaluation_flops(model.config, sizes, adaptation.part, config.steps)
    return _EvaluationPlan(adaptation, chunks, None, trainable, rest, flops)


def _with_static(
    plan: _EvaluationPlan,
    model: LanguageModel,
    params: Params,
    config: OnlineConfig,
    static: np.ndarray | None,
    progress: bool,
) -> _EvaluationPlan:
    """The plan with the static nll that the adapted model is compared with."""
    chunks, flops = plan.chunks, plan.flops
    if static is None:
        plain = OnlineConfig(config.chunk, config.context, reset="document")
        static, more, *_ = evaluate(model, params, chunks, None, plain, progress=progress)
        flops += more
    if np.shape(static) != (chunks.tokens,):
        raise InputError(
            f"static has shape {np.shape(static)}; the stream has {chunks.tokens} predictions"
        )
    static_nC = np.zeros(chunks.targets.shape, np.float32)
    static_nC[chunks.mask] = static
    return plan._replace(static=static_nC, flops=flops)


def _run(
    plan: _EvaluationPlan, config: OnlineConfig, progress: bool, donate: bool
) -> tuple[Carry, np.ndarray, Any]:
    """The carry after the last chunk, nll `[n, C]`, and `Events` or None."""
    adaptation, chunks = plan.adaptation, plan.chunks
    compares = plan.static is not None
    resets = compares or (config.reset == "document" and int(chunks.first.sum()) > 1)
    # The program owns its carry, and what it returns to must outlive it.
    comparison = lambda: jax.tree.map(jnp.copy, start_comparison()) if compares else None
    begin = lambda trainable: start(adaptation, trainable)._replace(comparison=comparison())
    fresh = begin(plan.trainable) if resets else None
    carry = begin(
        plan.trainable if donate and not resets else jax.tree.map(jnp.copy, plan.trainable)
    )
    # One scan, or runs of equal length that share a program, for the progress bar.
    run = functools.partial(compiled(adaptation), fresh, plan.rest)
    given = (chunks, plan.static)
    pieces = (
        _cut(given, config.piece)
        if config.piece
        else _pieces(given, plan.flops)
        if progress
        else [given]
    )
    with _bar(chunks.tokens, adaptation.part, progress) as bar:
        carry, (nll_nC, events) = _through(run, carry, pieces, bar)
    return carry, nll_nC, events


def _run_lanes(
    plan: _EvaluationPlan, config: OnlineConfig, progress: bool
) -> tuple[np.ndarray, float]:
    """`(nll [N], flops)` of documents side by side (`lmdyn.online.lanes`)."""
    adaptation, chunks = plan.adaptation, plan.chunks
    order_nS = lanes.schedule(chunks.first, config.parallel)
    # Half a minute's work pays for another program, where lanes have ended.
    parts = lanes.segments(order_nS, worth=30 * _flops_per_second() / plan.flops)
    fresh = start(adaptation, plan.trainable)
    carry = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (order_nS.shape[1], *jnp.shape(leaf))), fresh
    )
    run = functools.partial(lanes.compiled_lanes(adaptation), fresh, plan.rest)
    nll_nC = np.zeros(chunks.targets.shape, np.float32)
    with _bar(chunks.tokens, adaptation.part, progress) as bar:
        for order in parts:
            carry = jax.tree.map(lambda leaf, width=order.shape[1]: jnp.array(leaf[:width]), carry)
            placed = lanes.place_chunks(chunks, order)
            flops = plan.flops * order.size
            pieces = _pieces((placed,), flops) if progress else [(placed,)]
            carry, found = _through(run, carry, pieces, bar)
            nll_nC[order[order >= 0]] = found[order >= 0]
    return nll_nC[chunks.mask], plan.flops * sum(order.size for order in parts)


def _gather(
    plan: _EvaluationPlan, params: Params, carry: Carry, nll_nC: np.ndarray, events: Any
) -> Outcome:
    """The outcome: predictions in order, parameters whole, events as counts of predictions."""
    part, mask_nC = plan.adaptation.part, plan.chunks.mask
    params = params if part is None else part.join(carry.trainable, plan.rest)
    alarms, stopped = (), None
    if events is not None:
        done_n = np.cumsum(mask_nC.sum(1))
        alarms = tuple(done_n[events.alarm].tolist())
        stopped = int(done_n[events.stopped.argmax()]) if events.stopped.any() else None
    return Outcome(nll_nC[mask_nC], plan.flops, params, carry.trainable, alarms, stopped)


def _through(run: Callable, carry: Carry, pieces: list[tuple], bar: Any) -> tuple[Carry, Any]:
    """The carry after all pieces, and what they gave, joined, as NumPy arrays."""
    found = []
    for piece in pieces:
        carry, out = run(carry, *piece)
        found.append(jax.tree.map(np.asarray, out))
        if bar is not None:
            bar.update(piece[0].tokens)
    return carry, jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def _bar(tokens: int, part, progress: bool):
    """A bar on standard error, or nothing."""
    if not progress:
        return contextlib.nullcontext()
    from tqdm.auto import tqdm

    return tqdm(
        total=tokens, desc="static" if part is None else "adapting", unit="token", leave=False
    )


def _flops_per_second() -> float:
    """FLOPs per second, roughly."""
    return 1e11 if jax.default_backend() == "cpu" else 1e14


def _pieces(chunks: tuple, flops: float) -> list[tuple]:
    """The stream, and what lies beside it, in equal runs of chunks, so that one program serves all.

    They are short enough to watch.
    """
    count = len(chunks[0].first)
    longest = max(1, int(count * _flops_per_second() / max(flops, 1.0)))
    return _cut(chunks, max(k for k in range(1, count + 1) if count % k == 0 and k <= longest))


def _cut(chunks: tuple, size: int) -> list[tuple]:
    """Runs of n chunks, the last one of what is left."""
    starts = range(0, len(chunks[0].first), size)
    return [jax.tree.map(lambda array, i=i: array[i : i + size], chunks) for i in starts]
