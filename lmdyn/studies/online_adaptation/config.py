"""The config of the study of online adaptation."""

import dataclasses
from typing import Annotated

import tyro

from lmdyn.errors import InputError, check_least
from lmdyn.models import ModelConfig
from lmdyn.studies.config import SeededStudyConfig
from lmdyn.studies.online_adaptation.rules import UPDATE_RULES
from lmdyn.training import TrainConfig

ANALYSES = (
    "rules",
    "places",
    "context",
    "sizes",
    "position",
    "resets",
    "localized",
    "checkpoints",
    "meta",
)
"""What the study measures of the models that it trains."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Texts, and what is tried on them. Part of `lmdyn.studies.OnlineAdaptation`.

    Attributes:
      home: text of the kind that the model knows.
      streams: the texts that are adapted to; the first is like home.
      tokens: predictions of a stream.
      prefix: the first of them, on which learning rates are chosen; what is reported is what
        follows.
      learning_rates: what is tried, by rule.
      low_rank_learning_rates: what is tried for adapters, which start at zero.
      choose_on: another text to choose learning rates on, once for all streams, over `tokens` of
        which `prefix`; nothing of a stream is then left out.
      chunk: tokens per chunk, C, where it is not varied.
      rules: of the table of rules.
      adapt: selector of what they change there.
      main_rule: the rule of everything else.
      rank: of the low-rank setting.
      ranks: the ladder of ranks.
      guard: nats that an online run may lose against the static one before it stops adapting.
      rms_batches: batches of `home` for the RMS rule.
    """

    home: str
    streams: tuple[str, ...]
    tokens: int
    prefix: int
    learning_rates: Annotated[dict[str, tuple[float, ...]], tyro.conf.Fixed]
    low_rank_learning_rates: tuple[float, ...]
    choose_on: str | None = None
    chunk: int = 64
    rules: tuple[str, ...] = ("SGD", "AdamW", "Adam, no momentum", "RMS rule")
    adapt: str = "all"
    main_rule: str = "AdamW"
    rank: int = 8
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    guard: float = 500.0
    rms_batches: int = 16

    def __post_init__(self) -> None:
        check_least(self, tokens=1, prefix=1, chunk=1, rank=1, rms_batches=1)
        if not self.streams:
            raise InputError("streams=(); give at least one text to adapt to")
        if self.prefix % self.chunk or self.tokens % self.prefix or self.tokens == self.prefix:
            raise InputError(
                f"prefix={self.prefix} and tokens={self.tokens}: chunks of {self.chunk} must tile"
                " the prefix, and prefixes the stream, at least twice"
            )
        for name in (*self.rules, self.main_rule):
            if name not in UPDATE_RULES:
                raise InputError(f"rule '{name}' is unknown; there are {', '.join(UPDATE_RULES)}")
            if not self.learning_rates.get(name):
                raise InputError(f"learning_rates: none for the rule '{name}'")


@dataclasses.dataclass(frozen=True)
class Meta:
    """The meta-learned start: training on the home text, in episodes of chunks.

    Part of `OnlineAdaptation`.

    Attributes:
      text: what it learns from.
      chunks: of one episode, each of the grid's chunk.
      episodes: of one update.
      inner_learning_rate: of the updates inside an episode.
      outer_learning_rate: of Adam between episodes.
      updates: of the full gradient; the first-order one and plain training, which cost a third, get
        three times as many.

    >>> Meta("builtin:docs:train", updates=24).chunks
    8
    """

    text: str
    chunks: int = 8
    episodes: int = 4
    inner_learning_rate: float = 0.3
    outer_learning_rate: float = 5e-4
    updates: int = 48


@dataclasses.dataclass(frozen=True)
class Size:
    """Another architecture, trained as `pretrain` is. Part of `OnlineAdaptation`.

    Attributes:
      model: the architecture.
      learning_rate: of its optimizer; that of `pretrain` if None.
    """

    model: ModelConfig
    learning_rate: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineAdaptation(SeededStudyConfig):
    """What adapting online gives.

    Under which shift, where in the model, by which rule, against which context, at which cost.

    Attributes:
      grid: texts and settings for the models that are trained here.
      given: texts and settings for a given model.
      model: a model reference; None trains `pretrain` for each seed.
      pretrain: the run that is trained; its `out` and `seed` are set by the study. Its checkpoints
        are the series of one analysis.
      sizes: other architectures that are trained the same way, the smaller ones first.
      fine_tune: the run that fine-tunes the model on the kind of text of the last stream; its
        `start` is set by the study.
      windows: contexts that are compared: kind, window, chunk.
      keep: first tokens that a cache never gives up.
      document_tokens: predictions of each document at its start, for the speed of adaptation.
      segment_tokens: predictions between two changes of text, for resets.
      meta: the meta-learned start.
      analyses: which are made; all of those that there is a model for.

    >>> grid = Grid(
    ...     home="builtin:docs:train",
    ...     streams=("builtin:docs:test", "text:mine.txt"),
    ...     tokens=4096,
    ...     prefix=1024,
    ...     learning_rates={"SGD": (0.01, 0.03), "AdamW": (1e-4,)},
    ...     rules=("SGD", "AdamW"),
    ...     low_rank_learning_rates=(1e-3,),
    ... )
    >>> small = ModelConfig(
    ...     vocab=1024, width=32, depth=2, heads=4, head_width=8, mlp_width=96, positions=256
    ... )
    >>> study = OnlineAdaptation(
    ...     out="out/online",
    ...     model="hf:EleutherAI/pythia-70m@step143000",
    ...     grid=grid,
    ...     given=grid,
    ...     sizes=(Size(small),),
    ...     meta=Meta("builtin:docs:train"),
    ... )
    >>> (
    ...     study.given.tokens - study.given.prefix
    ... )  # predictions of each stream that the numbers are means of
    3072
    """

    grid: Grid
    given: Grid
    model: str | None = None
    pretrain: Annotated[TrainConfig | None, tyro.conf.Fixed] = None
    sizes: Annotated[tuple[Size, ...], tyro.conf.Fixed] = ()
    fine_tune: Annotated[TrainConfig | None, tyro.conf.Fixed] = None
    windows: Annotated[tuple[tuple[str, int, int], ...], tyro.conf.Fixed] = ()
    keep: int = 4
    document_tokens: int = 1024
    segment_tokens: int = 1024
    meta: Meta | None = None
    analyses: tuple[str, ...] = ANALYSES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is None and self.pretrain is None:
            raise InputError(
                "give either model= (a model reference) or pretrain= (a run to make one)"
            )
        check_least(self, keep=0, document_tokens=1, segment_tokens=1)
        for name in self.analyses:
            if name not in ANALYSES:
                raise InputError(f"analyses: '{name}' is unknown; there are {', '.join(ANALYSES)}")
        for length in (self.document_tokens, self.segment_tokens):
            if length % self.grid.chunk:
                raise InputError(
                    f"document_tokens and segment_tokens are multiples of grid.chunk="
                    f"{self.grid.chunk}; {length} is none"
                )
