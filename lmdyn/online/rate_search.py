"""The learning rate of a stream, chosen on its first tokens, before the rest is seen."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lmdyn.errors import InputError
from lmdyn.models import LanguageModel
from lmdyn.online import contexts
from lmdyn.online.evaluate import Outcome, evaluate
from lmdyn.online.resets import Change
from lmdyn.online.rules import at_any_rate
from lmdyn.online.streams import Stream, stream
from lmdyn.types import Params


class Chosen(NamedTuple):
    """What `choose_rate` returns.

    Attributes:
      rate: the one whose online nll on the prefix is lowest; of equal ones the lowest.
      tried: `{rate: mean nll on the prefix, in nats}`; infinity where it is no number.
      prefix: how many predictions these are means of. What comes after them took no part in the
        choice.
      outcome: of the whole stream at that rate, from its first chunk on; its `flops` are those of
        this run alone.
      flops: of all of it, trials included.
      seconds: wall time of the run over the whole stream, its program compiled before.
    """

    rate: float
    tried: Mapping[float, float]
    prefix: int
    outcome: Outcome
    flops: float
    seconds: float

    @property
    def rest(self) -> float:
        """Mean nll of what follows the prefix, in nats: the number that no choice has touched."""
        return float(self.outcome.nll[self.prefix :].mean(dtype=np.float64))


def choose_rate(
    model: LanguageModel,
    params: Params,
    documents: Stream | Sequence[np.ndarray] | np.ndarray,
    *,
    rule: Callable,
    rates: Sequence[float],
    prefix: int,
    chunk: int = 512,
    context: contexts.Context = contexts.none(),
    static: np.ndarray | None = None,
    tokens: int | None = None,
    reset: str | Change = "never",
    end_of_text: int | None = None,
    piece: int | None = None,
    **options: Any,
) -> Chosen:
    """Tries every rate on the first chunks of a stream, and evaluates all of it at the best.

    Args:
      model, params, documents: as for `evaluate`.
      rule: `rate -> optax.GradientTransformation`, such as `optax.sgd`; see `at_any_rate`. One
        program serves all rates.
      rates: what is tried.
      prefix: predictions of the prefix, rounded up to whole chunks; something must be left after
        it.
      piece: as for `evaluate`; the whole prefix, if not given.
      chunk, context, static, tokens, reset, end_of_text, options: as for `evaluate` (one stream,
        not documents side by side).

    Raises:
      InputError: no rate, or one that is negative or no number; a prefix that leaves nothing; and
        as `evaluate`.

    >>> import lmdyn.models as models, optax
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model, text = models.LanguageModel(config), np.arange(61) % 11
    >>> found = choose_rate(
    ...     model,
    ...     models.init(model),
    ...     text,
    ...     rule=optax.adam,
    ...     rates=(0.0, 0.01),
    ...     prefix=20,
    ...     chunk=4,
    ... )
    >>> found.rate, sorted(found.tried), found.prefix, len(found.outcome.nll)
    (0.01, [0.0, 0.01], 20, 60)
    """
    rates = [float(rate) for rate in rates]
    if not rates or not all(0 <= rate < np.inf for rate in rates):
        raise InputError(
            f"rates={rates}: give at least one learning rate, each 0 or a positive number"
        )
    chunks = (
        documents
        if isinstance(documents, Stream)
        else stream(
            documents,
            chunk=chunk,
            context=context,
            reset=reset if isinstance(reset, str) else "never",
            end_of_text=end_of_text,
            tokens=tokens,
        )
    )
    done = np.cumsum(chunks.mask.sum(1))
    count = int(np.searchsorted(done, prefix)) + 1
    if prefix < 1 or count >= len(done):
        raise InputError(
            f"prefix={prefix}: rates are tried on at least 1 prediction, and the stream, of"
            f" {done[-1]:,} in chunks of {chunk}, must go on after it; use a shorter prefix or a"
            " longer text"
        )
    first = jax.tree.map(lambda part: part[:count], chunks)
    make, seen, piece = at_any_rate(rule), int(done[count - 1]), piece or count
    options = {"chunk": chunk, "context": context, "reset": reset, **options}
    tried, flops = {}, 0.0
    for rate in rates:
        still = None if static is None else static[:seen]
        trial = evaluate(
            model,
            params,
            first,
            optimizer=make(rate),
            static=still,
            piece=piece,
            **{**options, "donate": False},
        )
        flops += trial.flops
        tried[rate] = trial.mean if np.isfinite(trial.mean) else np.inf
    best = min(sorted(tried), key=lambda rate: tried[rate])
    started = time.perf_counter()
    outcome = evaluate(
        model, params, chunks, optimizer=make(best), static=static, piece=piece, **options
    )
    return Chosen(best, tried, seen, outcome, flops + outcome.flops, time.perf_counter() - started)
