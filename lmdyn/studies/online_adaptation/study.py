"""Online adaptation, the whole trade (Rannen-Triki et al. 2024, arXiv 2403.01518; Krause et al.
2018, 2019): METHODS section 5.

For each seed, models of several sizes are trained on prose; one of them is also fine-tuned on
source code. They are then adapted online to held-out prose and code: by several rules, in many
places, with several contexts, with resets. Everything is compared with the same model unadapted,
over the same predictions, after those on which the learning rate was chosen.

Beyond the papers: adapting where a gradient profile says, starting at the checkpoint with the most
knowledge entropy, and starting at a point that was meta-learned.

With `model=`, a given model is adapted instead, by every rule, to the texts of `given`.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from lmdyn import checkpoints, data
from lmdyn.errors import InputError, check_least, check_types
from lmdyn.models import Compute, ModelConfig
from lmdyn.studies.folder import Folder
from lmdyn.studies.online_adaptation import claims as conclusions
from lmdyn.studies.online_adaptation import parts
from lmdyn.studies.online_adaptation.settings import Grid
from lmdyn.studies.workers import Task
from lmdyn.training import TrainConfig
from lmdyn.training.config import to_json
from lmdyn.types import Say

NAME = conclusions.STUDY


@dataclasses.dataclass(frozen=True)
class Meta:
    """The meta-learned start: training on the home text, in episodes of chunks. Part of
    `OnlineAdaptation`.

    Attributes:
      text: it learns from. chunks: of one episode, each of the grid's chunk. episodes: of one
        update.
      inner: rate of the updates inside an episode. outer: rate of Adam between episodes.
      updates: of the full gradient; the first-order one and plain training, which cost a third, get
        three times as many.
    """

    text: str
    chunks: int = 8
    episodes: int = 4
    inner: float = 0.3
    outer: float = 5e-4
    updates: int = 48


@dataclasses.dataclass(frozen=True)
class Size:
    """Another architecture, trained as `pretrain` is. Attributes: model. rate: of its optimizer;
    that of `pretrain` if None. Part of `OnlineAdaptation`.
    """

    model: ModelConfig
    rate: float | None = None


@dataclasses.dataclass(frozen=True)
class OnlineAdaptation:
    """What adapting online gives, under which shift, where in the model, by which rule, against
    which context, at which cost.

    Attributes:
      out: the study's folder. The same command goes on with a study that was stopped.
      grid: texts and settings for the models that are trained here.
      given: texts and settings for a given model.
      model: a model reference; None trains `pretrain` for each seed.
      pretrain: the run that is trained; its `out` and `seed` are set by the study. Its checkpoints
        are the series of one analysis.
      sizes: other architectures that are trained the same way, the smaller ones first.
      tune: the run that fine-tunes the model on the kind of text of the last stream; its `start` is
        set by the study.
      windows: contexts that are compared: kind, window, chunk.
      keep: first tokens that a cache never gives up.
      document: predictions of each document at its start, for the speed of adaptation.
      segment: predictions between two changes of text, for resets.
      meta: the meta-learned start.
      analyses: which are made; all of those that there is a model for.
      seeds: how many. seed: the first. workers: processes; 0: one a core on a CPU.
      compute: dtype and attention.
      small_version_of: the config of which this one is a small version, that shows how the study
        goes; the report then says that its verdicts decide nothing, and names that config to run.

    >>> grid = Grid(
    ...     home="builtin:docs:train",
    ...     streams=("builtin:docs:test", "text:mine.txt"),
    ...     tokens=4096,
    ...     prefix=1024,
    ...     rates={"SGD": (0.01, 0.03), "AdamW": (1e-4,)},
    ...     rules=("SGD", "AdamW"),
    ...     low_rank_rates=(1e-3,),
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

    out: str
    grid: Grid
    given: Grid
    model: str | None = None
    pretrain: Annotated[TrainConfig | None, tyro.conf.Fixed] = None
    sizes: Annotated[tuple[Size, ...], tyro.conf.Fixed] = ()
    tune: Annotated[TrainConfig | None, tyro.conf.Fixed] = None
    windows: Annotated[tuple[tuple[str, int, int], ...], tyro.conf.Fixed] = ()
    keep: int = 4
    document: int = 1024
    segment: int = 1024
    meta: Meta | None = None
    analyses: tuple[str, ...] = parts.ANALYSES
    seeds: int = 3
    seed: int = 0
    workers: int = 0
    compute: Compute = Compute()
    small_version_of: Annotated[str | None, tyro.conf.Fixed] = None

    def __post_init__(self) -> None:
        check_types(self)
        if self.model is None and self.pretrain is None:
            raise InputError(
                "give either model= (a model reference) or pretrain= (a run to make one)"
            )
        check_least(self, seeds=1, seed=0, keep=0, document=1, segment=1, workers=0)
        for name in self.analyses:
            if name not in parts.ANALYSES:
                raise InputError(
                    f"analyses: '{name}' is unknown; there are {', '.join(parts.ANALYSES)}"
                )
        for length in (self.document, self.segment):
            if length % self.grid.chunk:
                raise InputError(
                    f"document and segment are multiples of grid.chunk={self.grid.chunk}; {length}"
                    " is none"
                )


def run(config: OnlineAdaptation, command: list[str] | None = None, say: Say | None = None) -> Path:
    """The whole study; returns its report.

    Raises:
      InputError: whatever is wrong with the config, the texts or the model; it is looked for first.
    """
    check(config)
    folder = Folder(config.out, NAME, to_json(config), command, say)
    if config.model is not None:
        tasks = [
            Task(f"given-{number}", parts.given, (config, text))
            for number, text in enumerate(config.given.streams)
        ]
        rows = folder.parts(
            tasks, workers=config.workers or 1
        )  # one model at a time: it keeps all cores busy
    else:
        seeds = range(config.seed, config.seed + config.seeds)
        study = str(folder.path)
        runs = [
            Task(
                f"seed{seed}-{name}", parts.pretrained, (config, study, seed, name, folder.command)
            )
            for seed in seeds
            for name in parts.models(config)
            if name != "tuned"
        ]
        rows = folder.parts(runs, config.workers)
        if config.tune is not None:
            rows += folder.parts(
                [
                    Task(
                        f"seed{seed}-tuned",
                        parts.pretrained,
                        (config, study, seed, "tuned", folder.command),
                    )
                    for seed in seeds
                ],
                config.workers,
            )
        rows += folder.parts(
            [
                Task(
                    f"seed{seed}-{name.replace(' ', '-')}",
                    parts.MAKE[kind],
                    (config, study, seed, *more),
                )
                for seed in seeds
                for name, kind, more in parts.wanted(config)
            ],
            config.workers,
        )
    folder.tokens = sum(
        row["tokens"] or 0 for row in rows if row["metric"] in ("online_nll", "static_nll")
    )
    rows += conclusions.summary(rows)
    return folder.finish(rows, conclusions.claims(rows), config.seed)


def check(config: OnlineAdaptation) -> None:
    """Finds, before anything is trained, what can be wrong with texts and a given model.

    Raises:
      InputError: what the readers of texts and models find.
    """
    grid = config.grid if config.model is None else config.given
    for text in {grid.home, *grid.streams, *(() if grid.choose is None else (grid.choose,))}:
        data.documents(text)
    if config.model is not None:
        checkpoints.parse(config.model)
