"""Ways to adapt online, and what each gives on a text: the rows that the study of online adaptation
is made of.

A setting is a rule, what it changes, and what a chunk looks back on. Its rate is chosen on the
first predictions of the stream (or on another text), and every number reported is a mean over the
predictions after them, the same for all settings of a stream.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from typing import Annotated, Any

import jax
import numpy as np
import optax
import tyro

from lmdyn import checkpoints, data, metrics, online, records, transforms
from lmdyn.costs.flop_counts import block_weights
from lmdyn.data import ProbeBatch
from lmdyn.errors import InputError, check_least
from lmdyn.models.config import Compute
from lmdyn.online import Context, Stream
from lmdyn.online import contexts as windows
from lmdyn.params import LowRank, low_rank, partition
from lmdyn.types import Params, present

BINS = 32


def adam_without_momentum(rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Adam with b1 = 0: each coordinate's step is its gradient over a running root mean square of
    it.
    """
    return optax.adam(rate, b1=0.0)


RULES = {
    "SGD": optax.sgd,
    "AdamW": optax.adamw,
    "Adam, no momentum": adam_without_momentum,
    "RMS rule": None,
}
"""`rate -> optimizer` by name; the RMS rule needs a model's gradient statistics."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to adapt.

    Attributes:
      name: of the setting in rows and figures.
      rule: a name of `RULES`; None for static evaluation.
      adapt: selector of what adapts. rank: of adapters at it; None: the parameters themselves.
      chunk, context: as for `lmdyn.online.evaluate`.
    """

    name: str
    rule: str | None = "AdamW"
    adapt: str = "all"
    rank: int | None = None
    chunk: int = 64
    context: Context = online.none()

    @property
    def part(self) -> str | LowRank:
        """What `lmdyn.online.evaluate` takes as `adapt`."""
        return self.adapt if self.rank is None else low_rank(self.adapt, rank=self.rank)

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


@dataclasses.dataclass(frozen=True)
class Grid:
    """Texts, and what is tried on them. Part of `lmdyn.studies.OnlineAdaptation`.

    Attributes:
      home: text of the kind that the model knows. streams: the texts that are adapted to; the first
        is like home.
      tokens: predictions of a stream. prefix: the first of them, on which rates are chosen; what is
        reported is what follows.
      choose: another text to choose rates on, once for all streams, over `tokens` of which
        `prefix`; nothing of a stream is then left out.
      chunk: C, where it is not varied.
      rates: learning rates that are tried, by rule.
      rules: of the table of rules. adapt: what they change there. main: the rule of everything
        else.
      rank: of the low-rank setting. ranks: the ladder. low_rank_rates: rates of adapters, which
        start at zero.
      guard: nats that an online run may lose against the static one before it stops adapting.
      statistics: batches of `home` for the RMS rule.
    """

    home: str
    streams: tuple[str, ...]
    tokens: int
    prefix: int
    rates: Annotated[dict[str, tuple[float, ...]], tyro.conf.Fixed]
    low_rank_rates: tuple[float, ...]
    choose: str | None = None
    chunk: int = 64
    rules: tuple[str, ...] = ("SGD", "AdamW", "Adam, no momentum", "RMS rule")
    adapt: str = "all"
    main: str = "AdamW"
    rank: int = 8
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    guard: float = 500.0
    statistics: int = 16

    def __post_init__(self) -> None:
        check_least(self, tokens=1, prefix=1, chunk=1, rank=1, statistics=1)
        if not self.streams:
            raise InputError("streams=(); give at least one text to adapt to")
        if self.prefix % self.chunk or self.tokens % self.prefix or self.tokens == self.prefix:
            raise InputError(
                f"prefix={self.prefix} and tokens={self.tokens}: chunks of {self.chunk} must tile"
                " the prefix, and prefixes the stream, at least twice"
            )
        for name in (*self.rules, self.main):
            if name not in RULES:
                raise InputError(f"rule '{name}' is unknown; there are {', '.join(RULES)}")
            if not self.rates.get(name):
                raise InputError(f"rates: none for the rule '{name}'")


class Bench:
    """A model, texts and gradient statistics, each made when first asked for.

    Args:
      reference: of the model. grid: texts and rates. tags: fields of every row. compute: how it is
        run.
    """

    def __init__(self, reference: str, grid: Grid, compute: Compute, tags: dict) -> None:
        self.reference, self.grid, self.tags = reference, grid, tags
        self.model, self.params, self.tokenizer, _, self.step = checkpoints.load(reference, compute)
        data.check_vocabulary(self.tokenizer, self.model.config)
        self.known: dict = {}

    @property
    def size(self) -> int:
        """Parameters of the blocks, and of the head: what a token costs."""
        config = self.model.config
        return config.depth * block_weights(config) + config.width * config.vocab

    @functools.cached_property
    def rms(self) -> transforms.GradientRMS:
        """Root mean square gradients over text of home, in batches of one chunk."""
        length = self.grid.chunk
        batches = data.batches(
            self.grid.home, self.tokenizer, length, 1, self.grid.statistics * length
        )
        return transforms.gradient_rms(self.model, self.params, batches)

    def rule(self, setting: Setting) -> Callable[[float], optax.GradientTransformation]:
        """`rate -> optimizer` of a setting."""
        if setting.rule != "RMS rule":
            return present(RULES[present(setting.rule)])
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

    def rates(self, setting: Setting) -> tuple[float, ...]:
        """What is tried."""
        return (
            self.grid.low_rank_rates
            if setting.rank is not None
            else self.grid.rates[present(setting.rule)]
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
        self, key: Any, stream: Stream, setting: Setting, params: Params | None = None
    ) -> tuple[online.Outcome, float]:
        """The static evaluation of a stream in a setting's context, and the seconds it took; once
        for all settings that share it.
        """
        place = ("static", key, setting.chunk, setting.context)
        if place not in self.known:
            piece = 1 if self.grid.choose is not None else self.grid.prefix // setting.chunk
            begin = self.params if params is None else params
            online.evaluate(
                self.model,
                begin,
                jax.tree.map(lambda part: part[:piece], stream),
                chunk=setting.chunk,
                context=setting.context,
                piece=piece,
            )  # so that the second one's time is not the compiler's
            started = time.perf_counter()
            found = online.evaluate(
                self.model, begin, stream, chunk=setting.chunk, context=setting.context, piece=piece
            )
            self.known[place] = found, time.perf_counter() - started
        return self.known[place]


def cut(bench: Bench, text: np.ndarray, setting: Setting) -> Stream:
    """A text as the chunks of a setting."""
    windows.check(setting.context, setting.chunk, bench.model.config)
    return online.stream(text, chunk=setting.chunk, context=setting.context)


def adapted(
    bench: Bench,
    key: Any,
    stream: Stream,
    setting: Setting,
    params: Params | None = None,
    **options: Any,
) -> tuple[online.Chosen, np.ndarray, np.ndarray]:
    """`(Chosen, nll of the predictions that count, static nll of the same)` of one setting on one
    stream.

    Args:
      key: names the stream, and the starting point. params: where adaptation starts; the bench's if
        None.
      options: of `lmdyn.online.choose_rate`, such as `reset`.
    """
    grid, begin = bench.grid, bench.params if params is None else params
    static, _ = bench.static(key, stream, setting, begin)
    rates, prefix = bench.rates(setting), grid.prefix
    if grid.choose is not None:
        rates, prefix = (_rate_elsewhere(bench, setting),), setting.chunk
    found = online.choose_rate(
        bench.model,
        begin,
        stream,
        rule=bench.rule(setting),
        rates=rates,
        prefix=prefix,
        chunk=setting.chunk,
        context=setting.context,
        adapt=setting.part,
        static=static.nll,
        guard=grid.guard,
        **options,
    )
    after = 0 if grid.choose is not None else grid.prefix
    return found, found.outcome.nll[after:], static.nll[after:]


def _rate_elsewhere(bench: Bench, setting: Setting) -> float:
    """The rate that is best on the text that is there to choose by."""
    place = ("rate", setting)
    if place not in bench.known:
        rates, grid = bench.rates(setting), bench.grid
        text, trials = bench.text(present(grid.choose))[: grid.prefix + setting.chunk + 1], {}
        if len(rates) > 1:
            stream = cut(bench, text, setting)
            trials = online.choose_rate(
                bench.model,
                bench.params,
                stream,
                rule=bench.rule(setting),
                rates=rates,
                prefix=grid.prefix,
                chunk=setting.chunk,
                context=setting.context,
                adapt=setting.part,
                piece=1,
                guard=grid.guard,
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
    """The rows of one setting on one text: `online_nll` (or `static_nll`), and with `along`
    `nll_along`, in `BINS` runs of predictions.

    Rows carry the setting's tags, `static` (nll of the same predictions and context without
    adapting), `flops` and `seconds` a token, `rate`, `tried`, and `stopped` where the guard ended
    adaptation.
    """
    stream = cut(bench, bench.text(reference), setting)
    key = (reference, start)
    about = {
        "tokens": stream.tokens,
        "step": bench.step,
        "analysis": analysis,
        "stream": reference,
        "start": start,
        "size": bench.size,
        **bench.tags,
        **setting.tags,
        **tags,
    }
    make = lambda metric, value, unit, **more: records.row(
        bench.reference, metric, float(value), unit, **about | more
    )
    static, static_seconds = bench.static(key, stream, setting, params)
    count = stream.tokens
    if setting.rule is None:
        after = 0 if bench.grid.choose is not None else bench.grid.prefix
        return [
            make(
                "static_nll",
                static.nll[after:].mean(dtype=np.float64),
                "nats",
                flops=static.flops / count,
                seconds=static_seconds / count,
            )
        ]
    found, nll, still = adapted(bench, key, stream, setting, params)
    numbers = {
        "static": float(still.mean(dtype=np.float64)),
        "flops": found.outcome.flops / count,
        "trials": found.flops / count,
        "seconds": found.seconds / count,
        "rate": found.rate,
        "tried": {f"{rate:g}": min(value, 1e9) for rate, value in found.tried.items()},
        "stopped": found.outcome.stopped,
    }
    rows = [make("online_nll", nll.mean(dtype=np.float64), "nats", **numbers)]
    if along:
        edges = np.linspace(0, len(nll), BINS + 1).astype(int)
        rows += [
            make(
                "nll_along",
                nll[a:b].mean(dtype=np.float64),
                "nats",
                begin=int(a),
                end=int(b),
                static=float(still[a:b].mean(dtype=np.float64)),
            )
            for a, b in itertools.pairwise(edges)
        ]
    return rows


def profile(bench: Bench, reference: str) -> Any:
    """Where the gradient of a text's first chunks is large, relative to text of home:
    `lmdyn.metrics.RelativeGradients` by attention and MLP of every block.
    """
    grid = bench.grid
    sequences = lambda tokens: tokens[: grid.prefix + 1]
    gradients = []
    for name in (reference if grid.choose is None else grid.choose, grid.home):
        ids = sequences(bench.text(name) if name != grid.home else _home(bench))
        inputs, targets = (part.reshape(-1, grid.chunk) for part in (ids[:-1], ids[1:]))
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
