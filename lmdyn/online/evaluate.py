"""Dynamic evaluation: score a chunk, then learn from it (Krause et al. 2018; Rannen-Triki et al.
2024).

Shape letters: n chunks, C predictions a chunk, N predictions in all, W window.
"""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmdyn.costs import evaluation_flops
from lmdyn.data import check_tokens
from lmdyn.errors import InputError
from lmdyn.models import LanguageModel
from lmdyn.online import contexts, core, lanes, resets, rules
from lmdyn.online.core import Watch, start
from lmdyn.online.streams import Stream, stream
from lmdyn.params import LowRank, partition
from lmdyn.transforms import Localized
from lmdyn.types import Params, present


class Outcome(NamedTuple):
    """What `evaluate` returns.

    Attributes:
      nll: `[N]` float32 nats, each token scored before the update that learns from it.
      flops: floating-point operations, by formula (`lmdyn.costs.evaluation_flops`).
      params: the parameters after the last chunk, low-rank adapters added in; those passed in, if
        nothing adapts or documents are read side by side.
      adapted: what was adapted, after the last chunk: the chosen parameters, or the adapters; else
        None.
      resets: how many predictions were made before each alarm of `reset=change(...)`, integers in
        order.
      stopped: how many predictions were made when the guard stopped adaptation; None if it did not.
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


@functools.lru_cache(maxsize=256)
def _compiled(model, part, update, context, steps, change, guard):
    """The jitted core, which owns its carry: the old parameters' memory is used for the new ones.

    Optimizers that share an `update` share the program, and differ in their states
    (`lmdyn.online.at_any_rate`).
    """
    optimizer = None if update is None else optax.GradientTransformation(rules.never, update)
    run = functools.partial(
        core.adapt, model, part, optimizer, context, steps=steps, change=change, guard=guard
    )
    return jax.jit(run, donate_argnums=2)


def evaluate(
    model: LanguageModel,
    params: Params,
    documents: Stream | Sequence[np.ndarray] | np.ndarray,
    *,
    optimizer: optax.GradientTransformation | None = None,
    chunk: int = 512,
    context: contexts.Context = contexts.none(),
    adapt: str | LowRank | Localized = "all",
    steps: int = 1,
    every: int = 1,
    reset: str | resets.Change = "never",
    guard: float | None = None,
    static: np.ndarray | None = None,
    parallel: int = 1,
    end_of_text: int | None = None,
    tokens: int | None = None,
    piece: int | None = None,
    progress: bool = False,
    donate: bool = False,
) -> Outcome:
    """Evaluates a text, adapting to it on the way if an optimizer is given.

    For every chunk: score it with the current parameters, record its nll, *then* take an optimizer
    step on its mean nll. Without an optimizer the same evaluation is static.

    Args:
      model, params: as `lmdyn.load` returns them. `params` are not changed (but see `donate`).
      documents: token ids, an integer array a document (see `lmdyn.data.tokenize`), or a `Stream`.
      optimizer: any optax transformation, applied to the adapted parameters only; None for static
        evaluation.
      chunk: C, predictions between two updates.
      context: `none()`, `cache(window)` or `overlap(window)`.
      adapt: what adapts: a selector of parameters, e.g. `"blocks[10:20].mlp"`,
        `lmdyn.params.low_rank(...)`, or `lmdyn.transforms.localized(profile, mode)`. The
        backward pass stops at the lowest block of them.
      steps: optimizer steps on every chunk.
      every: k; the model changes after every k chunks only, by the mean of their gradients (of each
        of their steps). What is left at the end of a document or stream is not learned from.
      reset: `never`; `document`: every document starts from `params`, a fresh optimizer state and
        no context; or `change(...)`: at an alarm of the detector the model goes back to `params`,
        or part of the way, with a fresh optimizer state and its context.
      guard: nats, all tokens together, that may be lost against the static model before adaptation
        stops for good. From then on the static model's nll is reported. An nll that is no number
        stops it, too, and counts as the static one.
      static: nll `[N]` of the static evaluation of the same stream, which `change` and `guard`
        compare with; by default it is computed, and its cost added.
      parallel: with `reset="document"`, this many documents are read side by side, each with a copy
        of its own of what adapts; the body is there once. The same numbers to rounding, and small
        chunks go much faster.
      end_of_text: joins documents when `reset="never"`.
      tokens: stop after this many predictions.
      piece: chunks of one run of the compiled program, which then serves texts of any length; the
        numbers are the same.
      progress: show a bar on standard error (the scan then runs in several pieces, with the same
        numbers).
      donate: the memory of `params` may be used for the adapted ones; `params` are gone afterwards.

    Returns:
      An `Outcome`.

    Raises:
      InputError: a context that the model cannot have, a selector that matches nothing, an empty
        text, `parallel` without documents that are reset or with a guard, `static` of another
        length, fewer than 1 step, chunk between updates or chunk a piece, an optimizer whose state
        cannot be carried over a reset.

    >>> import lmdyn.models as models, optax
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> text = np.arange(30) % 11
    >>> outcome = evaluate(
    ...     model,
    ...     models.init(model),
    ...     text,
    ...     optimizer=optax.sgd(0.1),
    ...     chunk=4,
    ...     adapt="blocks.mlp",
    ... )
    >>> outcome.nll.shape
    (29,)
    """
    contexts.check(context, chunk, model.config)
    change = reset if isinstance(reset, resets.Change) else None
    if parallel < 1 or (parallel > 1 and (reset != "document" or guard is not None)):
        raise InputError(
            f"parallel={parallel} with reset={reset!r}, guard={guard}: it is how many documents are"
            " read side by side, at least 1, and more than 1 need reset='document' and no guard"
        )
    if steps < 1:
        raise InputError(f"steps={steps}: a chunk is learned from in at least 1 step")
    if every < 1:
        raise InputError(f"every={every}: the model changes after every k chunks, k at least 1")
    if piece is not None and piece < 1:
        raise InputError(f"piece={piece}: a run of the program takes at least 1 chunk")
    if guard is not None and not guard >= 0:
        raise InputError(f"guard={guard}: the nats that may be lost are 0 or more")
    chunks = (
        documents
        if isinstance(documents, Stream)
        else stream(
            documents,
            chunk=chunk,
            context=context,
            reset="never" if isinstance(reset, resets.Change) else reset,
            end_of_text=end_of_text,
            tokens=tokens,
        )
    )
    check_tokens(chunks.inputs, model.config.vocab)
    check_tokens(chunks.targets, model.config.vocab)
    optimizer = optimizer if optimizer is None or every == 1 else rules.every(optimizer, every)
    part = (
        None
        if optimizer is None
        else partition(params, adapt)
        if isinstance(adapt, str)
        else adapt.partition(params)
    )
    if part is not None and isinstance(adapt, Localized):
        optimizer = adapt.after(present(optimizer))
    chosen, rest = (None, params) if part is None else part.split(params)
    if part is not None:
        _check_state(optimizer, chosen)
    if parallel > 1:
        nll, flops = _side_by_side(
            model, part, optimizer, context, chosen, rest, chunks, parallel, steps, progress
        )
        return Outcome(nll, flops, params, None)
    watched = part is not None and (change is not None or guard is not None)
    flops, still = evaluation_flops(model.config, chunks.sizes(context), part, steps), None
    if watched:
        if static is None:
            static, more, *_ = evaluate(
                model,
                params,
                chunks,
                chunk=chunk,
                context=context,
                reset="document",
                progress=progress,
            )
            flops += more
        if np.shape(static) != (chunks.tokens,):
            raise InputError(
                f"static has shape {np.shape(static)}; the stream has {chunks.tokens} predictions"
            )
        still = np.zeros(chunks.targets.shape, np.float32)
        still[chunks.mask] = static
    again = watched or (reset == "document" and int(chunks.first.sum()) > 1)
    watch = Watch(resets.unseen(), jnp.float32(0), jnp.bool_(False)) if watched else None
    fresh = start(model, chosen, optimizer, context)._replace(watch=watch) if again else None
    carry = start(
        model,
        chosen if donate and not again else jax.tree.map(jnp.copy, chosen),
        optimizer,
        context,
    )
    carry = carry._replace(watch=jax.tree.map(jnp.copy, watch))
    update = None if optimizer is None else optimizer.update
    run = functools.partial(
        _compiled(model, part, update, context, steps, change, guard), fresh, rest
    )
    pieces = (
        _cut((chunks, still), piece)
        if piece
        else _pieces((chunks, still), flops)
        if progress
        else [(chunks, still)]
    )
    with _bar(chunks.tokens, part, progress) as bar:
        carry, (nll, events) = _through(run, carry, pieces, bar)
    params = params if part is None else part.join(carry.chosen, rest)
    alarms, stopped = (), None
    if events is not None:
        done = np.cumsum(chunks.mask.sum(1))
        alarms = tuple(done[events.alarm].tolist())
        stopped = int(done[events.stopped.argmax()]) if events.stopped.any() else None
    return Outcome(nll[chunks.mask], flops, params, carry.chosen, alarms, stopped)


def _check_state(optimizer, chosen):
    """Refuses an optimizer whose state has another form after an update: no scan can carry it, and
    no reset restore it.
    """
    before = jax.eval_shape(optimizer.init, chosen)
    after = jax.eval_shape(
        lambda chosen: optimizer.update(chosen, optimizer.init(chosen), chosen)[1], chosen
    )
    form = lambda tree: (
        jax.tree.structure(tree),
        [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)],
    )
    if form(before) != form(after):
        raise InputError(
            "the optimizer's state has another form after an update than at its start, so it cannot"
            " be carried over chunks and resets; use one whose update returns a state of the same"
            " shapes and types as init"
        )


def _side_by_side(
    model,
    part,
    optimizer,
    context,
    chosen,
    rest,
    chunks: Stream,
    parallel: int,
    steps: int,
    progress: bool,
):
    """`(nll, flops)` of documents in lanes (`lmdyn.online.lanes`)."""
    order = lanes.schedule(chunks.first, parallel)
    each = evaluation_flops(model.config, chunks.sizes(context)._replace(count=1), part, steps)
    parts = lanes.segments(
        order, worth=30 * _rate() / each
    )  # half a minute's work pays for another program
    fresh = start(model, chosen, optimizer, context)
    carry = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (order.shape[1], *jnp.shape(leaf))), fresh
    )
    run = functools.partial(
        lanes.compiled(
            model, part, None if optimizer is None else optimizer.update, context, steps
        ),
        fresh,
        rest,
    )
    nll = np.zeros(chunks.targets.shape, np.float32)
    with _bar(chunks.tokens, part, progress) as bar:
        for places in parts:
            carry = jax.tree.map(lambda leaf: jnp.array(leaf[: places.shape[1]]), carry)
            placed = lanes.laid_out(chunks, places)
            pieces = _pieces((placed,), each * places.size) if progress else [(placed,)]
            carry, found = _through(run, carry, pieces, bar)
            nll[places[places >= 0]] = found[places >= 0]
    return nll[chunks.mask], each * sum(places.size for places in parts)


def _through(run, carry, pieces, bar):
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


def _rate() -> float:
    """Operations a second, roughly."""
    return 1e11 if jax.default_backend() == "cpu" else 1e14


def _pieces(chunks: tuple, flops: float) -> list[tuple]:
    """The stream, and what lies beside it, in equal runs of chunks: short enough to watch, equal so
    that one program serves all.
    """
    count = len(chunks[0].first)
    longest = max(1, int(count * _rate() / max(flops, 1.0)))
    return _cut(chunks, max(k for k in range(1, count + 1) if count % k == 0 and k <= longest))


def _cut(chunks: tuple, size: int) -> list[tuple]:
    """Runs of so many chunks, the last one of what is left."""
    return [
        jax.tree.map(lambda array: array[i : i + size], chunks)
        for i in range(0, len(chunks[0].first), size)
    ]
