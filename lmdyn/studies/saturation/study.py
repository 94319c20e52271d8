"""Why small models saturate: the experiment of Godey et al. 2024 (arXiv 2404.07647) on any models;
METHODS section 4.

For each seed a ladder of models that differ in width alone is trained for long, and watched:
held-out loss, anisotropy at every depth, the head's spectrum. A scaling law is fitted to the wide
ones, and the narrow ones are held against it. On the widest model's frozen body heads of every rank
are trained; on a narrow one's, and inside a narrow model that is trained anew, other kinds of head.
The text itself says how many directions its next tokens take. Or checkpoints are given (`series`),
and nothing is trained but heads.

Rows of a model carry `kind` (`ladder`, `joint`, `given`), `name`, `seed`, `width`, `narrow`,
`parameters` (N), `head`; those of a step also `trained` (T, tokens so far).
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from lmdyn import checkpoints, data
from lmdyn.errors import InputError, check_least, check_types, choose
from lmdyn.models import Compute, ModelConfig
from lmdyn.models.config import parse_head
from lmdyn.studies.folder import Folder
from lmdyn.studies.saturation import claims as conclusions
from lmdyn.studies.saturation import parts
from lmdyn.studies.workers import Task
from lmdyn.training import TrainConfig
from lmdyn.training.config import to_json
from lmdyn.types import Say, present

NAME = "saturation"
ALSO = ("heads", "target")
WATCHED = ("nll", "anisotropy", "head_spectrum")


@dataclasses.dataclass(frozen=True)
class Heads:
    """Heads on a frozen body, whose states are computed once and kept on disk. Part of
    `Saturation`.

    Attributes:
      text: what they are trained on. tokens: predictions of it.
      ranks: the ladder, of the widest model. Rank D is added to it.
      scratch: train them from random parameters too, beside those from the truncated head.
      kinds: other heads, trained from random parameters beside a full one on the body of width
        `width`.
      width: of that body, and of the models in which the same kinds are trained jointly; None: the
        widest narrow one.
      joint: train whole models with `kinds` too (a ladder of our own only).
      steps, batch, rate: of training heads: updates, tokens of one, highest rate (Adam, falling to
        0). Steps beyond one pass over the tokens soon learn them by heart.
      kind_rate: the rate of `kinds` and the full head beside them; `rate` if None.
      climb: the share by which a loss is above that of rank D where it counts as climbing: it says
        where r* lies.
    """

    text: str
    tokens: int = 524288
    ranks: tuple[int, ...] = (1, 2, 4, 8, 12, 16, 24, 32, 48)
    scratch: bool = True
    kinds: tuple[str, ...] = ("mixture:4", "sigsoftmax")
    width: int | None = None
    joint: bool = True
    steps: int = 512
    batch: int = 1024
    rate: float = 1e-2
    kind_rate: float | None = None
    climb: float = 0.01


@dataclasses.dataclass(frozen=True)
class Target:
    """The rank of a text's next-token distributions. Part of `Saturation`.

    Attributes:
      text: which. contexts: tokens of context, each a matrix of its own.
      shares: of the text, in documents drawn by seed: how the rank grows.
      error: relative error of the best approximation whose rank is told.
      values: singular values that are computed, where the vocabulary is too large for all.
      least: contexts seen less often are left out.
    """

    text: str
    contexts: tuple[int, ...] = (1, 2)
    shares: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0)
    error: float = 0.2
    values: int = 2000
    least: int = 1


@dataclasses.dataclass(frozen=True)
class Saturation:
    """Godey et al. 2024 as one experiment: saturation over a ladder of widths, spectra, ranks, and
    other heads.

    Attributes:
      out: the study's folder. The same command goes on with a study that was stopped.
      text: held-out text: losses, anisotropy and heads are measured on it.
      heads: the experiments with heads. target: the rank of the text. None leaves them out.
      also: which of the two are done: `heads,target`, one of them, or `none`.
      series: models to measure in place of a ladder of our own: references, each of which may name
        a series.
      pretrain: the run of the ladder; its `out`, `seed` and the width of its model are set by the
        study. It watches `nll,anisotropy,head_spectrum`.
      widths: of the ladder. narrow: models up to this width are the narrow ones; the scaling law is
        fitted to the others.
      rates: learning rate of each width, in their order; that of `pretrain` for all if not given.
      fit_from: the law is fitted to the wide models from this share of their steps on, at eight
        moments.
      tokens_per_step: training tokens of one step of given series; without it no scaling law is
        fitted to them.
      vocabulary: START:STOP, the tokens of the head that spectra of given models are of; all of
        them if not given.
      tokens, length, batch: predictions of one measurement of given models and of heads' final
        loss, tokens of a window, windows of a batch.
      seeds: how many. seed: the first.
      workers: parts made at once, in processes; 0: on a CPU one a core, elsewhere one.
      compute: dtype and attention. cache: folder of tokenised text; states: of final states.
      small_version_of: the config of which this one is a small version, that shows how the study
        goes; the report then says that its verdicts decide nothing, and names that config to run.

    >>> study = Saturation(
    ...     out="out/saturation",
    ...     text="builtin:code:test",
    ...     series=("hf:EleutherAI/pythia-14m@step1000,step143000",),
    ...     narrow=128,
    ...     heads=Heads("builtin:code:train", ranks=(8, 32, 128)),
    ...     target=Target("builtin:code:train"),
    ...     also="heads",
    ... )
    >>> study.does("heads"), study.does("target")
    (True, False)
    """

    out: str
    text: str
    heads: Heads | None = None
    target: Target | None = None
    also: str = "heads,target"
    series: tuple[str, ...] = ()
    pretrain: Annotated[TrainConfig | None, tyro.conf.Fixed] = None
    widths: tuple[int, ...] = (8, 16, 32, 64)
    narrow: int = 16
    rates: tuple[float, ...] = ()
    fit_from: float = 0.125
    tokens_per_step: int | None = None
    vocabulary: str | None = None
    tokens: int = 16384
    length: int = 256
    batch: int = 8
    seeds: int = 3
    seed: int = 0
    workers: int = 0
    compute: Compute = Compute()
    cache: str | None = None
    states: str | None = None
    small_version_of: Annotated[str | None, tyro.conf.Fixed] = None

    def __post_init__(self) -> None:
        check_types(self)
        if not self.series and self.pretrain is None:
            raise InputError("give either series= (checkpoints) or pretrain= (the run of a ladder)")
        check_least(
            self, seeds=1, seed=0, tokens=1, length=1, batch=1, workers=0, tokens_per_step=1
        )
        for name in self.also.split(","):
            choose("also", name, (*ALSO, "none"))
        if not 0 < self.fit_from < 1:
            raise InputError(
                f"fit_from={self.fit_from}; it is a share of the steps, above 0 and below 1"
            )
        if self.does("heads"):
            heads = present(self.heads)
            check_least(heads, "heads.", tokens=1, steps=1, batch=1)
            if not 0 < heads.climb < 1:
                raise InputError(f"heads.climb={heads.climb}; it is a share, such as 0.01")
            for kind in heads.kinds:
                if parse_head(kind)[0] == "full":
                    raise InputError(
                        "heads.kinds: a full head is always among them; name the others"
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
        if self.rates and len(self.rates) != len(self.widths):
            raise InputError(
                f"rates={self.rates} for {len(self.widths)} widths; give one for each, or none"
            )
        if not all(rate > 0 for rate in self.rates):
            raise InputError(f"rates={self.rates}; a learning rate is above 0")
        pretrain = present(self.pretrain)
        watch = pretrain.evaluation
        if watch is None or not set(WATCHED) <= set(watch.metrics.split(",")):
            raise InputError(f"pretrain.evaluation must measure {','.join(WATCHED)}")
        if self.does("heads"):
            heads = present(self.heads)
            _check_ranks(heads.ranks, widths[-1])
            if self.body not in widths:
                raise InputError(
                    f"heads.width={heads.width} is no width of the ladder; use one of"
                    f" {', '.join(map(str, widths))}"
                )
            for kind in heads.kinds:  # refuses what this width cannot have
                model = present(pretrain.model)
                dataclasses.replace(resized(model, self.body), head=kind, tied_head=False)
                if model.tied_head:
                    raise InputError(
                        "pretrain.model has a tied head, and heads.kinds need one of their own; set"
                        " tied_head=False, or heads.kinds=()"
                    )

    def does(self, part: str) -> bool:
        """Whether `heads` or `target` is done."""
        return getattr(self, part) is not None and part in self.also.split(",")

    @property
    def body(self) -> int:
        """The width whose body other kinds of head are tried on."""
        own = None if self.heads is None else self.heads.width
        return own if own is not None else max(w for w in self.widths if w <= self.narrow)


def parse_slice(text: str | None) -> slice | None:
    """`START:STOP` as Python has it; None for None.

    Raises:
      InputError: it cannot be read.

    >>> parse_slice("0:50254"), parse_slice(":9")
    (slice(0, 50254, None), slice(None, 9, None))
    """
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    if not colon or not all(end == "" or end.isdecimal() for end in (start, stop)):
        raise InputError(f"vocabulary={text}; write START:STOP, such as 0:50254")
    return slice(*(int(end) if end else None for end in (start, stop)))


def resized(config: ModelConfig, width: int) -> ModelConfig:
    """The same architecture at another width: heads keep their size where they can, the MLP its
    ratio.

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
    if width < 1 or width % head:
        raise InputError(
            f"width {width} is no multiple of the heads' {head}; use one, or another head_width"
        )
    return dataclasses.replace(
        config,
        width=width,
        heads=width // head,
        kv_heads=width // head,
        head_width=head,
        mlp_width=max(1, round(config.mlp_width * width / config.width)),
    )


def _check_ranks(ranks, width: int):
    for rank in ranks:
        if not 1 <= rank <= width:
            raise InputError(
                f"heads.ranks: rank {rank} of a model of width {width}; use 1 to {width}"
            )


def run(config: Saturation, command: list[str] | None = None, say: Say | None = None) -> Path:
    """The whole study; returns its report.

    Raises:
      InputError: whatever is wrong with the config, the models or the texts; most of it is looked
        for first.
    """
    given = check(config)
    folder = Folder(config.out, NAME, to_json(config), command, say)
    rows = folder.parts(_given(config, given) if given else _ladder(config, folder), config.workers)
    rows += folder.parts(_further(config, folder, given), config.workers)
    try:
        rows += conclusions.summary(rows, config.fit_from)
    except InputError as err:  # too few wide models for a law: the rest of the study stands
        folder.say(f"no scaling law: {err}")
        rows += conclusions.summary(rows, None)
    folder.tokens = sum(
        max((r["trained"] for r in rows if r.get("run") == run), default=0)
        for run in {r["run"] for r in rows if "run" in r}
    )
    return folder.finish(rows, conclusions.claims(rows), config.seed)


def check(config: Saturation) -> list[checkpoints.Reference] | None:
    """Finds, before anything is trained, what can be wrong with texts and given models; returns
    their references, or None.

    Raises:
      InputError: what the readers find; a rank above a given model's width; an empty slice of its
        vocabulary; a tied head is fine, since ranks and spectra are of the matrix that predicts,
        whoever owns it.
    """
    data.documents(config.text)
    for part in ALSO:
        if config.does(part):
            data.documents(getattr(config, part).text)
    parse_slice(config.vocabulary)
    if not config.series:
        pretrain = present(config.pretrain)
        for width in config.widths:
            resized(present(pretrain.model), width)
        for source in pretrain.data.sources:
            data.documents(source.ref)
        return None
    given = [reference for series in config.series for reference in checkpoints.series(series)]
    if config.does("heads"):
        _check_ranks(present(config.heads).ranks, parts.architecture(str(given[-1])).width)
    return given


def _ladder(config: Saturation, folder: Folder) -> list[Task]:
    """Every training run, the longest first, so that none is left alone at the end."""
    wanted = [(width, "full") for width in sorted(config.widths, reverse=True)]
    if config.does("heads") and (heads := present(config.heads)).joint:
        wanted[1:1] = [(config.body, kind) for kind in heads.kinds]
    tasks = []
    for width, head in wanted:
        for seed in _seeds(config):
            name = _name(seed, width, head)
            run = present(config.pretrain)
            model, rule = (
                dataclasses.replace(resized(present(run.model), width), head=head),
                run.optimizer,
            )
            if config.rates:
                rule = dataclasses.replace(rule, rate=config.rates[config.widths.index(width)])
            train = dataclasses.replace(
                run, model=model, optimizer=rule, seed=seed, out=str(folder.path / "runs" / name)
            )
            tasks.append(
                Task(name, parts.train, (train, _tags(config, seed, width, head), folder.command))
            )
    return tasks


def _name(seed: int, width: int, head: str = "full") -> str:
    return f"seed{seed}-width{width}" + ("" if head == "full" else f"-{head.replace(':', '')}")


def _tags(config: Saturation, seed: int, width: int, head: str) -> dict:
    kind = "ladder" if head == "full" else "joint"
    return {
        "kind": kind,
        "name": f"width {width}",
        "seed": seed,
        "width": width,
        "narrow": width <= config.narrow,
        "head": head,
    }


def _given(config: Saturation, given) -> list[Task]:
    measurement = parts.Measurement(
        config.text,
        config.tokens,
        config.length,
        config.batch,
        parse_slice(config.vocabulary),
        config.compute,
    )
    return [
        Task(
            f"measured{number}",
            parts.measured,
            (str(reference), reference.step, measurement, config.narrow, config.tokens_per_step),
        )
        for number, reference in enumerate(given)
    ]


def _further(config: Saturation, folder: Folder, given) -> list[Task]:
    """Heads on frozen bodies, and the text's own rank."""
    tasks, last = [], str(given[-1]) if given else None
    frozen = parts.Frozen(
        config.text,
        config.tokens,
        config.length,
        config.batch,
        config.compute,
        config.cache,
        config.states,
    )
    if config.does("heads"):
        for seed in _seeds(config):
            body = last or f"run:{folder.path / 'runs' / _name(seed, max(config.widths))}"
            tasks.append(
                Task(f"ranks-seed{seed}", parts.head_ranks, (body, config.heads, frozen, seed))
            )
        for seed in _seeds(config) if present(config.heads).kinds else ():
            body = last or f"run:{folder.path / 'runs' / _name(seed, config.body)}"
            tasks.append(
                Task(
                    f"kinds-seed{seed}", parts.head_alternatives, (body, config.heads, frozen, seed)
                )
            )
    if config.does("target"):
        body = last or f"run:{folder.path / 'runs' / _name(config.seed, max(config.widths))}"
        tasks += [
            Task(
                f"target{context}-seed{seed}",
                parts.target,
                (body, config.target, context, seed, config.cache),
            )
            for context in present(config.target).contexts
            for seed in _seeds(config)
        ]
    return tasks


def _seeds(config) -> range:
    return range(config.seed, config.seed + config.seeds)
