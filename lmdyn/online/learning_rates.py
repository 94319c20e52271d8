"""The learning rate of a stream, chosen on its first tokens, before the rest is seen."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from lmdyn.errors import InputError
from lmdyn.models import LanguageModel
from lmdyn.online.config import OnlineConfig
from lmdyn.online.dynamic_evaluation import Outcome, evaluate
from lmdyn.online.streams import ChunkStream, chunk_stream
from lmdyn.online.update_rules import learning_rate_as_state
from lmdyn.types import Params


@dataclasses.dataclass(frozen=True)
class LearningRateSearch:
    """Which learning rates are tried, and on what.

    Attributes:
      rule: `learning rate -> optax.GradientTransformation`, such as `optax.sgd`; see
        `learning_rate_as_state`. One program serves all learning rates.
      learning_rates: what is tried.
      prefix: predictions that they are tried on, rounded up to whole chunks; something must be left
        after them.

    Raises:
      InputError: no learning rate, or one that is negative or not a number; no prefix.

    >>> import optax
    >>> LearningRateSearch(optax.sgd, (0.01, 0.1), prefix=2048).learning_rates
    (0.01, 0.1)
    """

    rule: Callable
    learning_rates: Sequence[float]
    prefix: int

    def __post_init__(self) -> None:
        if not self.learning_rates or not all(0 <= rate < np.inf for rate in self.learning_rates):
            raise InputError(
                f"learning_rates={self.learning_rates}: give at least one, each 0 or a positive"
                " number"
            )
        if self.prefix < 1:
            raise InputError(f"prefix={self.prefix}: they are tried on at least 1 prediction")


class ChosenLearningRate(NamedTuple):
    """The learning rate chosen on a prefix of the stream. Made by `choose_learning_rate`.

    Attributes:
      learning_rate: the one with the lowest online nll on the prefix; the smallest of equals.
      tried: `{learning rate: mean nll on the prefix, in nats}`; infinity where it diverged.
      prefix: how many predictions these are means of. The choice used nothing after them.
      outcome: of the whole stream at that learning rate, from its first chunk on; its `flops` are
        those of this run alone.
      flops: of everything, trials included.
      seconds: wall time of the run over the whole stream, compilation excluded.
    """

    learning_rate: float
    tried: Mapping[float, float]
    prefix: int
    outcome: Outcome
    flops: float
    seconds: float

    @property
    def rest(self) -> float:
        """Mean nll of what follows the prefix, in nats: the number that no choice has touched."""
        return float(self.outcome.nll[self.prefix :].mean(dtype=np.float64))


def choose_learning_rate(
    model: LanguageModel,
    params: Params,
    documents: ChunkStream | Sequence[np.ndarray] | np.ndarray,
    search: LearningRateSearch,
    config: OnlineConfig = OnlineConfig(),
    *,
    static: np.ndarray | None = None,
    progress: bool = False,
    donate: bool = False,
) -> ChosenLearningRate:
    """Tries learning rates on the first chunks of a stream, and evaluates all of it at the best.

    Args:
      model: as for `evaluate`.
      params: as for `evaluate`.
      documents: as for `evaluate`.
      search: which learning rates, on what prefix.
      config: as for `evaluate` (one stream, not documents side by side); `piece` is the whole
        prefix, if not given.
      static: as for `evaluate`.
      progress: as for `evaluate`.
      donate: as for `evaluate`.

    Returns:
      A `ChosenLearningRate`.

    Raises:
      InputError: a prefix that leaves nothing; and as `evaluate`.

    >>> import lmdyn.models as models, optax
    >>> sizes = dict(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(models.ModelConfig(**sizes))
    >>> text, search = (
    ...     np.arange(61) % 11,
    ...     LearningRateSearch(optax.adam, (0.0, 0.01), prefix=20),
    ... )
    >>> found = choose_learning_rate(
    ...     model, models.init(model), text, search, OnlineConfig(chunk=4)
    ... )
    >>> found.learning_rate, sorted(found.tried), found.prefix, len(found.outcome.nll)
    (0.01, [0.0, 0.01], 20, 60)
    """
    chunks = chunk_stream(documents, config)
    done_n = np.cumsum(chunks.mask.sum(1))
    count = int(np.searchsorted(done_n, search.prefix)) + 1
    if count >= len(done_n):
        raise InputError(
            f"prefix={search.prefix}: learning rates are tried on it, and the stream, of"
            f" {done_n[-1]:,} predictions in chunks of {config.chunk}, must continue after it; use"
            " a shorter prefix or a longer text"
        )
    first, prefix = jax.tree.map(lambda array: array[:count], chunks), int(done_n[count - 1])
    # Trials on the prefix share one program: learning rates are state, pieces have one length.
    make = learning_rate_as_state(search.rule)
    config = dataclasses.replace(config, piece=config.piece or count)
    tried, flops = {}, 0.0
    for rate in map(float, search.learning_rates):
        known = None if static is None else static[:prefix]
        trial = evaluate(model, params, first, make(rate), config, static=known, progress=progress)
        flops += trial.flops
        tried[rate] = trial.mean if np.isfinite(trial.mean) else np.inf
    # The whole stream, from its first chunk on, at the best of them.
    best = min(sorted(tried), key=lambda rate: tried[rate])
    started = time.perf_counter()
    outcome = evaluate(
        model, params, chunks, make(best), config, static=static, progress=progress, donate=donate
    )
    seconds = time.perf_counter() - started
    return ChosenLearningRate(best, tried, prefix, outcome, flops + outcome.flops, seconds)
