"""Ways to adapt online, and what each gives on a text, as rows.

A setting is a rule, what it changes, and what a chunk looks back on. Its learning rate is chosen on
the first predictions of the stream (or on another text), and every number reported is a mean over
the predictions after them, the same for all settings of a stream.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from lmdyn import data, metrics, online, records, transforms
from lmdyn.costs.flop_counts import block_weights
from lmdyn.data import ProbeBatch
from lmdyn.errors import InputError
from lmdyn.online import ChunkStream, Context
from lmdyn.params import LowRank, low_rank, partition
from lmdyn.studies.config import StudyConfig, load_model
from lmdyn.studies.online_adaptation.config import Grid
from lmdyn.studies.online_adaptation.rules import UPDATE_RULES
from lmdyn.types import Params, present

BINS = 32
"""Runs of predictions along a stream, whose means are rows."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to adapt.

    Attributes:
      name: of the setting in rows and figures.
      rule: a name of `UPDATE_RULES`; None for static evaluation.
      adapt: selector of what adapts.
      rank: of adapters at it; None: the parameters themselves.
      chunk: tokens per chunk.
      context: what a chunk looks back on.
    """

    name: str
    rule: str | None = "AdamW"
    adapt: str = "all"
    rank: int | None = None
    chunk: int = 64
    context: Context = online.none()

    @property
    def part(self) -> str | LowRank:
        """What adapts, for `lmdyn.online.OnlineConfig`."""
        return self.adapt if self.rank is None else low_rank(self.adapt, rank=self.rank)

    def config(self, **more: Any) -> online.OnlineConfig:
        """What `lmdyn.online.evaluate` takes; `more` are further fields of it."""
        return online.OnlineConfig(chunk=self.chunk, context=self.context, adapt=self.part, **more)

    @property
    def tags(self) -> dict[str, Any]:
        """The fields of a row that say what the setting is."""
        return {
            "setting": self.name,
            "rule": self.rule,
            "adapt": self.adapt if self.rule else None,
            "rank": self.rank,
            "chunk": self.chunk,
            "context": self.context.kind,
            "window": self.context.window,
        }


class Bench:
    """A model, texts and gradient statistics, each made when first used.

    Args:
      config: of the study: how the model is run, and its special tokens.
      reference: of the model.
      grid: texts and learning rates.
      compute: how it is run.
      tags: fields of every row.
    """

    def __init__(self, config: StudyConfig, reference: str, grid: Grid, tags: dict) -> None:
        self.reference, self.grid, self.tags = reference, grid, tags
        self.model, self.params, self.tokenizer, _, self.step = load_model(config, reference)
        data.check_vocabulary(self.tokenizer, self.model.config)
        self.known: dict = {}

    @property
    def size(self) -> int:
        """Parameters of the blocks, and of the head: what a token costs."""
        config = self.model.config
        return config.depth * block_weights(config) + config.width * config.vocab

    @property
    def skipped(self) -> int:
        """Predictions at the beginning of a stream that its numbers leave out.

        Those on which the learning rate was chosen.
        """
        return 0 if self.grid.choose_on is not None else self.grid.prefix

    @functools.cached_property
    def rms(self) -> transforms.GradientRMS:
        """Root mean square gradients over text of home, in batches of one chunk."""
        length = self.grid.chunk
        batches = data.batches(
            self.grid.home, self.tokenizer, length, 1, self.grid.rms_batches * length
        )
        return transforms.gradient_rms(self.model, self.params, batches)

    def rule(self, setting: Setting) -> Callable[[float], optax.GradientTransformation]:
        """`rate -> optimizer` of a setting."""
        if setting.rule != "RMS rule":
            return present(UPDATE_RULES[present(setting.rule)])
        if "RMS rule" not in self.known:
            rms = self.rms.of(partition(self.params, setting.adapt))
            eps = rms.mean / 2

            def make(rate):
                return optax.chain(
                    transforms.scale_by_prior_rms(rms, eps),
                    optax.scale_by_learning_rate(rate),
                    transforms.decay_to_prior(0.002, rms),
                )

            self.known["RMS rule"] = make
        return self.known["RMS rule"]

    def learning_rates(self, setting: Setting) -> tuple[float, ...]:
        """What is tried."""
        return (
            self.grid.low_rank_learning_rates
            if setting.rank is not None
            else self.grid.learning_rates[present(setting.rule)]
        )

    def text(self, reference: str) -> np.ndarray:
        """`tokens + 1` token ids of a text."""
        need = self.grid.tokens + 1
        if reference not in self.known:
            found = data.join(
                data.tokenize(reference, self.tokenizer, self.grid.tokens),
                self.tokenizer.end_of_text,
            )
            if len(found) < need:
                raise InputError(
                    f"{reference} has {len(found):,} tokens, and a stream of"
                    f" tokens={self.grid.tokens:,} needs {need:,}"
                )
            self.known[reference] = found[:need]
        return self.known[reference]

    def static(
        self, key: Any, stream: ChunkStream, setting: Setting, params: Params | None = None
    ) -> tuple[online.Outcome, float]:
        """The static evaluation of a stream in a setting's context, and the seconds it took.

        Once for all settings that share it.
        """
        place = ("static", key, setting.chunk, setting.context)
        if place not in self.known:
            piece = 1 if self.grid.choose_on is not None else self.grid.prefix // setting.chunk
            begin = self.params if params is None else params
            online.evaluate(
                self.model,
                begin,
                jax.tree.map(lambda part: part[:piece], stream),
                config=setting.config(piece=piece),
            )  # so that the second one's time is not the compiler's
            started = time.perf_counter()
            found = online.evaluate(self.model, begin, stream, config=setting.config(piece=piece))
            self.known[place] = found, time.perf_counter() - started
        return self.known[place]


def cut(bench: Bench, text: np.ndarray, setting: Setting) -> ChunkStream:
    """A text as the chunks of a setting."""
    how = setting.config(first=bench.tokenizer.window_token, tokens=len(text) - 1)
    return online.chunk_stream(text, how)


def adapted(
    bench: Bench,
    key: Any,
    stream: ChunkStream,
    setting: Setting,
    params: Params | None = None,
    **options: Any,
) -> tuple[online.ChosenLearningRate, np.ndarray, np.ndarray]:
    """One setting on one stream: `(ChosenLearningRate, nll that counts, static nll of the same)`.

    Args:
      bench: the model and texts.
      key: names the stream, and the starting point.
      stream: what is adapted to.
      setting: how.
      params: where adaptation starts; the bench's if None.
      **options: of `lmdyn.online.OnlineConfig`, such as `reset`.
    """
    grid, begin = bench.grid, bench.params if params is None else params
    static, _ = bench.static(key, stream, setting, begin)
    rates, prefix = bench.learning_rates(setting), grid.prefix
    if grid.choose_on is not None:
        rates, prefix = (_rate_elsewhere(bench, setting),), setting.chunk
    found = online.choose_learning_rate(
        bench.model,
        begin,
        stream,
        online.LearningRateSearch(bench.rule(setting), rates, prefix),
        setting.config(guard=grid.guard, **options),
        static=static.nll,
    )
    return found, found.outcome.nll[bench.skipped :], static.nll[bench.skipped :]


def _rate_elsewhere(bench: Bench, setting: Setting) -> float:
    """The rate that is best on the text that is there to choose by."""
    place = ("rate", setting)
    if place not in bench.known:
        rates, grid = bench.learning_rates(setting), bench.grid
        text, trials = bench.text(present(grid.choose_on))[: grid.prefix + setting.chunk + 1], {}
        if len(rates) > 1:
            stream = cut(bench, text, setting)
            trials = online.choose_learning_rate(
                bench.model,
                bench.params,
                stream,
                online.LearningRateSearch(bench.rule(setting), rates, grid.prefix),
                setting.config(piece=1, guard=grid.guard),
                static=bench.static("choose", stream, setting)[0].nll,
            ).tried
        bench.known[place] = (
            min(trials, key=lambda rate: trials[rate]) if trials else next(iter(rates))
        )
    return bench.known[place]


def measured(
    bench: Bench,
    reference: str,
    setting: Setting,
    analysis: str,
    along: bool = False,
    params: Params | None = None,
    start: str = "last",
    **tags: Any,
) -> list[dict]:
    """The rows of one setting on one text.

    `online_nll` (or `static_nll`), and with `along` `nll_along`, in `BINS` runs of predictions.

    Rows carry the setting's tags, `static` (nll of the same predictions and context without
    adapting), `flops` and `seconds` per token, `rate`, `tried`, and `stopped` where the guard ended
    adaptation.

    Args:
      bench: the model and texts.
      reference: of the text.
      setting: how it is adapted.
      analysis: in rows.
      along: also the nll along the stream.
      params: where adaptation starts; the bench's if None.
      start: what these are called.
      **tags: fields added to every row.
    """
    stream = cut(bench, bench.text(reference), setting)
    key, count = (reference, start), stream.tokens
    about = {"tokens": count, "step": bench.step, "analysis": analysis, "stream": reference}
    about |= {"start": start, "size": bench.size, **bench.tags, **setting.tags, **tags}
    make = lambda metric, nll, **more: records.row(
        metric, nll.mean(dtype=np.float64), "nats", model=bench.reference, **about | more
    )
    if setting.rule is None:
        static, seconds = bench.static(key, stream, setting, params)
        counted = static.nll[bench.skipped :]
        cost = {"flops": static.flops / count, "seconds": seconds / count}
        return [make("static_nll", counted, **cost)]
    found, nll, still = adapted(bench, key, stream, setting, params)
    numbers = {
        "static": float(still.mean(dtype=np.float64)),
        "flops": found.outcome.flops / count,
        "trials": found.flops / count,
        "seconds": found.seconds / count,
        "rate": found.learning_rate,
        "tried": {f"{rate:g}": min(value, 1e9) for rate, value in found.tried.items()},
        "stopped": found.outcome.stopped,
    }
    rows = [make("online_nll", nll, **numbers)]
    edges = np.linspace(0, len(nll), BINS + 1).astype(int) if along else []
    for a, b in itertools.pairwise(edges):
        still_here = float(still[a:b].mean(dtype=np.float64))
        rows.append(make("nll_along", nll[a:b], begin=int(a), end=int(b), static=still_here))
    return rows


def profile(bench: Bench, reference: str) -> Any:
    """Where the gradient of a text's first chunks is large, relative to text of home.

    `lmdyn.metrics.RelativeGradients` by attention and MLP of every block.
    """
    grid = bench.grid
    other = reference if grid.choose_on is None else grid.choose_on
    gradients = []
    for ids in (bench.text(other)[: grid.prefix + 1], _home(bench)):
        inputs, targets = (part.reshape(-1, grid.chunk) for part in (ids[:-1], ids[1:]))
        if (first := bench.tokenizer.window_token) is not None:
            inputs = np.concatenate([np.full_like(inputs[:, :1], first), inputs[:, 1:]], axis=1)
        every = np.ones(inputs.shape, bool)
        gradients.append(
            metrics.layer_gradients(
                bench.model,
                bench.params,
                ProbeBatch(inputs, targets, every, every),
                batch=8,
                groups=["attention", "mlp"],
            )
        )
    return metrics.relative_gradients(*gradients)


def _home(bench: Bench) -> np.ndarray:
    need = bench.grid.prefix + 1
    found = data.join(
        data.tokenize(bench.grid.home, bench.tokenizer, need), bench.tokenizer.end_of_text
    )
    if len(found) < need:
        raise InputError(
            f"{bench.grid.home} has {len(found):,} tokens; gradients are compared with those of"
            f" {need:,}"
        )
    return found[:need]
