"""The config of the saturation study."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated

import tyro

from lmdyn.errors import InputError, check_least, choose
from lmdyn.models import ModelConfig
from lmdyn.studies.config import SeededStudyConfig
from lmdyn.training import TrainConfig
from lmdyn.types import present

EXPERIMENTS = ("heads", "target")
"""What the study does besides training and measuring the ladder."""
MEASURED = ("nll", "anisotropy", "head_spectrum")
"""What the runs of the ladder measure."""


@dataclasses.dataclass(frozen=True)
class Heads:
    """Heads on a frozen body, whose states are computed once and kept on disk.

    Part of `Saturation`.

    Attributes:
      text: what they are trained on.
      tokens: predictions of it.
      ranks: the ladder, of the widest model. Rank D is added to it.
      scratch: train them from random parameters too, besides those from the truncated head.
      alternatives: other heads, trained from random parameters, as is a full one, on the body of
        width `width`.
      width: of that body, and of the models in which the same heads are trained jointly; None: the
        widest narrow one.
      joint: train whole models with `alternatives` too (a ladder trained here only).
      steps: updates of training heads. More than one pass over the tokens soon learns them by
        heart.
      batch: tokens per update.
      learning_rate: highest (Adam, falling to 0).
      alternatives_learning_rate: that of `alternatives` and the full head among them;
        `learning_rate` if None.
      climb: the share by which a loss is above that of rank D where it counts as climbing: it says
        of r*.

    >>> Heads("builtin:code:train", ranks=(8, 32, 128)).alternatives
    ('mixture:4', 'sigsoftmax')
    """

    text: str
    tokens: int = 524288
    ranks: tuple[int, ...] = (1, 2, 4, 8, 12, 16, 24, 32, 48)
    scratch: bool = True
    alternatives: tuple[str, ...] = ("mixture:4", "sigsoftmax")
    width: int | None = None
    joint: bool = True
    steps: int = 512
    batch: int = 1024
    learning_rate: float = 1e-2
    alternatives_learning_rate: float | None = None
    climb: float = 0.01


@dataclasses.dataclass(frozen=True)
class Target:
    """The rank of a text's next-token distributions. Part of `Saturation`.

    Attributes:
      text: which.
      contexts: tokens of context, each a matrix of its own.
      shares: of the text, in documents drawn by seed: how the rank grows.
      error: relative error of the best approximation whose rank is given.
      max_values: singular values that are computed, where the vocabulary is too large for all.
      min_count: contexts seen less often are left out.

    >>> Target("builtin:code:train", shares=(0.5, 1.0)).contexts
    (1, 2)
    """

    text: str
    contexts: tuple[int, ...] = (1, 2)
    shares: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0)
    error: float = 0.2
    max_values: int = 2000
    min_count: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saturation(SeededStudyConfig):
    """Godey et al. 2024 as one experiment.

    Saturation over a ladder of widths, spectra, ranks, and other heads.

    Attributes:
      text: held-out text: losses, anisotropy and heads are measured on it.
      heads: the experiments with heads; None leaves them out.
      target: the rank of the text; None leaves it out.
      experiments: which of the two are done: `heads,target`, one of them, or `none`.
      series: models to measure in place of a ladder trained here: references, each of which may
        name a series.
      pretrain: the run of the ladder; its `out`, `seed` and the width of its model are set by the
        study. It measures `nll,anisotropy,head_spectrum`.
      widths: of the ladder.
      narrow: models up to this width are the narrow ones; the scaling law is fitted to the others.
      learning_rates: one per width, in their order; that of `pretrain` for all if not given.
      fit_from: the law is fitted to the wide models from this share of their steps on, at eight
        steps.
      tokens_per_step: training tokens per step of given series; without it no scaling law is
        fitted to them.
      vocabulary: START:STOP, the tokens of the head that spectra of given models are of; all of
        them if not given.
      tokens: predictions of one measurement of given models and of heads' final loss.
      length: tokens of a window.
      batch: windows of a batch.
      cache: folder of tokenised text.
      states: folder of final states.

    >>> study = Saturation(
    ...     out="out/saturation",
    ...     text="builtin:code:test",
    ...     series=("hf:EleutherAI/pythia-14m@step1000,step143000",),
    ...     narrow=128,
    ...     heads=Heads("builtin:code:train", ranks=(8, 32, 128)),
    ...     target=Target("builtin:code:train"),
    ...     experiments="heads",
    ... )
    >>> study.does("heads"), study.does("target")
    (True, False)
    """

    text: str
    heads: Heads | None = None
    target: Target | None = None
    experiments: str = "heads,target"
    series: tuple[str, ...] = ()
    pretrain: Annotated[TrainConfig | None, tyro.conf.Fixed] = None
    widths: tuple[int, ...] = (8, 16, 32, 64)
    narrow: int = 16
    learning_rates: tuple[float, ...] = ()
    fit_from: float = 0.125
    tokens_per_step: int | None = None
    vocabulary: str | None = None
    tokens: int = 16384
    length: int = 256
    batch: int = 8
    cache: str | None = None
    states: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.series and self.pretrain is None:
            raise InputError("give either series= (checkpoints) or pretrain= (the run of a ladder)")
        check_least(self, tokens=1, length=1, batch=1, tokens_per_step=1)
        for name in self.experiments.split(","):
            choose("experiments", name, (*EXPERIMENTS, "none"))
        if self.vocabulary is not None and not re.fullmatch(r"\d*:\d*", self.vocabulary):
            raise InputError(f"vocabulary={self.vocabulary}; write START:STOP, such as 0:50254")
        if not 0 < self.fit_from < 1:
            raise InputError(
                f"fit_from={self.fit_from}; it is a share of the steps, above 0 and below 1"
            )
        if self.does("heads"):
            heads = present(self.heads)
            check_least(heads, "heads.", tokens=1, steps=1, batch=1)
            if not 0 < heads.climb < 1:
                raise InputError(f"heads.climb={heads.climb}; it is a share, such as 0.01")
            for kind in heads.alternatives:
                if kind == "full":
                    raise InputError(
                        "heads.alternatives: a full head is always among them; name the others"
                    )
        if self.does("target") and not all(0 < share <= 1 for share in present(self.target).shares):
            raise InputError(
                f"target.shares={present(self.target).shares}; a share of the text is above 0 and"
                " at most 1"
            )
        if not self.series:
            self._check_ladder()

    def _check_ladder(self):
        widths = sorted(set(self.widths))
        if len(widths) < 2 or len(widths) != len(self.widths):
            raise InputError(f"widths={self.widths}; a ladder needs two or more, each once")
        if not widths[0] <= self.narrow < widths[-1]:
            raise InputError(
                f"narrow={self.narrow} parts no widths of {widths}; use {widths[0]} to"
                f" {widths[-1] - 1}"
            )
        if self.learning_rates and len(self.learning_rates) != len(self.widths):
            raise InputError(
                f"learning_rates={self.learning_rates} for {len(self.widths)} widths; give one for"
                " each, or none"
            )
        if not all(rate > 0 for rate in self.learning_rates):
            raise InputError(f"learning_rates={self.learning_rates}; a learning rate is above 0")
        pretrain = present(self.pretrain)
        model = present(pretrain.model)
        for width in widths:
            if width < 1 or width % min(model.head_width, width):
                raise InputError(
                    f"width {width} is not a multiple of the heads' {model.head_width}; use one, or"
                    " another head_width"
                )
        evaluation = pretrain.evaluation
        if evaluation is None or not set(MEASURED) <= set(evaluation.metrics.split(",")):
            raise InputError(f"pretrain.evaluation must measure {','.join(MEASURED)}")
        if self.does("heads"):
            heads = present(self.heads)
            check_ranks(heads.ranks, widths[-1])
            if self.body not in widths:
                raise InputError(
                    f"heads.width={heads.width} is not a width of the ladder; use one of"
                    f" {', '.join(map(str, widths))}"
                )
            for kind in heads.alternatives:  # refuses what this width cannot have
                dataclasses.replace(resized(model, self.body), head=kind, tied_head=False)
                if model.tied_head:
                    raise InputError(
                        "pretrain.model has a tied head, and heads.alternatives need one of their"
                        " own; set tied_head=False, or heads.alternatives=()"
                    )

    def does(self, part: str) -> bool:
        """Whether `heads` or `target` is done."""
        return getattr(self, part) is not None and part in self.experiments.split(",")

    @property
    def body(self) -> int:
        """The width of the body that other heads are tried on."""
        own = None if self.heads is None else self.heads.width
        return own if own is not None else max(w for w in self.widths if w <= self.narrow)


def parse_slice(text: str | None) -> slice | None:
    """`START:STOP` as Python has it; None for None.

    >>> parse_slice("0:50254"), parse_slice(":9")
    (slice(0, 50254, None), slice(None, 9, None))
    """
    if text is None:
        return None
    return slice(*(int(end) if end else None for end in text.split(":")))


def resized(config: ModelConfig, width: int) -> ModelConfig:
    """The same architecture at another width.

    Heads keep their size where they can, the MLP its ratio.

    >>> made = resized(
    ...     ModelConfig(
    ...         vocab=9, width=32, depth=2, heads=2, head_width=16, mlp_width=96, positions=8
    ...     ),
    ...     48,
    ... )
    >>> made.heads, made.head_width, made.mlp_width
    (3, 16, 144)
    """
    head = min(config.head_width, width)
    return dataclasses.replace(
        config,
        width=width,
        heads=width // head,
        kv_heads=width // head,
        head_width=head,
        mlp_width=max(1, round(config.mlp_width * width / config.width)),
    )


def check_ranks(ranks: Sequence[int], width: int) -> None:
    """Refuses a rank that a model of a width cannot have."""
    for rank in ranks:
        if not 1 <= rank <= width:
            raise InputError(
                f"heads.ranks: rank {rank} of a model of width {width}; use 1 to {width}"
            )
