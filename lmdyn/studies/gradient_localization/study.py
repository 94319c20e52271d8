"""Gradient localization and targeted updates: the experiment of Fernandez et al. 2024 (arXiv
2411.04448); METHODS section 3.

For each seed: a model that knows a world at time 0 (trained here, or given) is asked where updated,
new and unchanged facts light up, against random spans of its pretraining text. Then it is trained
further on the world at time 1, by several methods, each of them unrestricted, restricted to the
layers that the profile names (`freeze`), with layers' rates scaled by it (`scale`), and with three
controls: as many layers drawn at random, the layers that the profile does not name, and all layers
without what lies outside of them. Each is run at several rates. Last, the same restrictions in
online adaptation.

Facts whose spans make the profile and facts that are asked for afterwards are of different
entities.

Rows of a run carry `seed`, `method`, `mode` and `factor` (of the rate); `moment` is the updates
done.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from lmdyn import checkpoints, data
from lmdyn.errors import InputError, check_least, check_types
from lmdyn.models import Compute
from lmdyn.studies.folder import Folder
from lmdyn.studies.gradient_localization import claims as conclusions
from lmdyn.studies.gradient_localization import training_parts as parts
from lmdyn.studies.workers import Task
from lmdyn.training import Data, LoRA, MixReview, Optimizer, Recall, TrainConfig
from lmdyn.training.config import to_json
from lmdyn.training.prepare import make_tokenizer
from lmdyn.types import Say, present

NAME = "gradient localization"


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of continual pretraining; none of the three is plain training. Part of
    `GradientLocalization`.

    Attributes:
      name: in rows and figures.
      adapters: low-rank adapters are trained. review: pretraining text is read again. recall: a
        pull to the old weights.
      rate: multiplies the rate of the study's optimizer.
    """

    name: str
    adapters: LoRA | None = None
    review: MixReview | None = None
    recall: Recall | None = None
    rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class Streamed:
    """The online adaptation of the study: Adam without momentum, a step or two on every chunk. Part
    of `GradientLocalization`.

    Attributes:
      text: the stream; `{seed}` becomes the seed. tokens: predictions of it.
      chunk: C.
      rates: learning rates that are tried; each restriction is reported at the one that is best in
        the other seeds.
    """

    text: str
    tokens: int = 8192
    chunk: int = 64
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)


@dataclasses.dataclass(frozen=True)
class GradientLocalization:
    """Fernandez et al. 2024 as one experiment: profiles by kind of knowledge, and continual
    pretraining restricted or scaled by them.

    `{seed}` in a text or in probes becomes the seed: each seed has its own world, its own order of
    texts and its own model.

    Attributes:
      out: the study's folder. The same command goes on with a study that was stopped.
      probes: probes of what is true now, with their kind (updated, new, unchanged): of a world, or
        published files, see `lmdyn.data.read_probes`. All three kinds are needed; they may come
        from several files.
      data: the text of the continual pretraining, which tells the updated and new facts;
        `tokenizer` does not count.
      text: held-out pretraining text, for what is forgotten.
      reference: pretraining text that random spans are taken from.
      model: a model reference; None trains `pretrain` for each seed.
      pretrain: the run that is trained where no model is given; its `out` and `seed` are set by the
        study.
      methods: of continual pretraining. The first is the one that the others are told beside; it
        also has the running profile.
      steps: updates of a run.
      optimizer: of all runs. Its state begins anew. (Clipping would count frozen layers' gradients,
        too.)
      factors: what the rate is multiplied by, one run each, ascending.
      leave_out: frozen layers are left out of the compiled step, so that they cost neither gradient
        nor optimizer state: for models of size. Else their updates are multiplied by 0, so that
        tiny models go through one program, which is compiled once. The numbers are the same.
      online: the online adaptation; None leaves it out.
      traced, limit: at most so many probes of a kind, for the profile, and for asking.
      spans: random spans that the profile is relative to.
      ask: how often a run is asked what it knows, after its beginning.
      tokens: predictions of one measurement of text.
      seeds: how many. seed: the first.
      workers: processes; 0: as many as there are cores on a CPU, one elsewhere.
      compute: dtype and attention. cache: folder of tokenised text.
      small_version_of: the config of which this one is a small version, that shows how the study
        goes; the report then says that its verdicts decide nothing, and names that config to run.

    >>> from lmdyn.training import LoRA, Source
    >>> study = GradientLocalization(
    ...     out="out/where",
    ...     model="hf:EleutherAI/pythia-70m@step143000",
    ...     probes=("probes.jsonl",),
    ...     data=Data((Source("text:new.txt"),)),
    ...     text="builtin:docs:test",
    ...     reference="builtin:docs:train",
    ...     online=Streamed("text:new.txt"),
    ...     methods=(Method("plain"), Method("adapters", adapters=LoRA(rank=4), rate=3.0)),
    ... )
    >>> [method.name for method in study.methods], study.factors
    (['plain', 'adapters'], (0.25, 1.0, 4.0))
    """

    out: str
    probes: tuple[str, ...]
    data: Data
    text: str
    reference: str
    model: str | None = None
    pretrain: Annotated[TrainConfig | None, tyro.conf.Fixed] = None
    methods: Annotated[tuple[Method, ...], tyro.conf.Fixed] = (Method("plain"),)
    steps: int = 72
    optimizer: Optimizer = Optimizer(
        learning_rate=1e-3, schedule="constant", warmup=5, weight_decay=0.0, clip=None
    )
    factors: tuple[float, ...] = (0.25, 1.0, 4.0)
    leave_out: bool = False
    online: Annotated[Streamed | None, tyro.conf.Fixed] = None
    traced: int = 192
    limit: int = 64
    spans: int = 256
    ask: int = 2
    tokens: int = 8192
    seeds: int = 3
    seed: int = 0
    workers: int = 0
    compute: Compute = Compute()
    cache: str | None = None
    small_version_of: Annotated[str | None, tyro.conf.Fixed] = None

    def __post_init__(self) -> None:
        check_types(self)
        if (self.model is None) == (self.pretrain is None):
            raise InputError(
                "give either model= (a model reference) or pretrain= (a run to make one), and not"
                " both"
            )
        check_least(
            self, seeds=1, seed=0, steps=1, traced=2, limit=2, spans=2, ask=1, tokens=1, workers=0
        )
        if not self.probes:
            raise InputError("probes=(); name at least one file or dataset of probes")
        if self.ask > self.steps:
            raise InputError(f"ask={self.ask} is more than the {self.steps} steps of a run")
        for name, values in (
            ("factors", self.factors),
            ("online.rates", self.online.rates if self.online else (1.0,)),
        ):
            if (
                not values
                or not all(0 < value < 1e6 for value in values)
                or list(values) != sorted(set(values))
            ):
                raise InputError(f"{name}={values}; give ascending positive numbers, at least one")
        names = [method.name for method in self.methods]
        if not names or len(set(names)) < len(names):
            raise InputError(
                f"methods are named {', '.join(names) or 'nothing'}; give at least one, each with a"
                " name of its own"
            )
        for method in self.methods:
            if not 0 < method.rate < 1e6:
                raise InputError(
                    f"method {method.name}: rate={method.rate}; it must be a positive number"
                )
            if method.recall is not None and self.optimizer.name != "adamw":
                raise InputError(
                    f"method {method.name}: recall needs optimizer.name=adamw, not"
                    f" {self.optimizer.name}"
                )
        if self.online is not None and (self.online.chunk < 1 or self.online.tokens < 1):
            raise InputError(
                f"online.chunk={self.online.chunk}, online.tokens={self.online.tokens}; both must"
                " be at least 1"
            )


def run(
    config: GradientLocalization, command: list[str] | None = None, say: Say | None = None
) -> Path:
    """The whole study; returns its report.

    Raises:
      InputError: whatever is wrong with the config, the texts or the probes; it is looked for
        first.
    """
    check(config)
    folder = Folder(config.out, NAME, to_json(config), command, say)
    seeds, rows = range(config.seed, config.seed + config.seeds), []
    if config.model is None:
        rows += folder.parts(
            [Task(f"pretraining-seed{seed}", parts.pretrain, (config, seed)) for seed in seeds],
            config.workers,
        )
    profiles = folder.parts(
        [Task(f"profile-seed{seed}", parts.profile, (config, seed)) for seed in seeds],
        config.workers,
    )
    rows += profiles
    traced = {seed: parts.traced(profiles, seed) for seed in seeds}
    runs = [
        Task(
            f"seed{seed}-{_slug(method.name)}",
            parts.train_further,
            (config, seed, method, traced[seed]),
        )
        for method in config.methods
        for seed in seeds
    ]
    runs += [
        Task(
            f"seed{seed}-running",
            parts.train_running,
            (config, seed, parts.batch_norms(profiles, seed)),
        )
        for seed in seeds
    ]
    if config.online is not None:
        runs += [
            Task(f"seed{seed}-online", parts.adapt_online, (config, seed, traced[seed]))
            for seed in seeds
        ]
    rows += folder.parts(runs, config.workers)
    folder.tokens = sum(r["tokens_trained"] for r in rows if "tokens_trained" in r)
    rows += conclusions.summary(rows)
    return folder.finish(rows, conclusions.claims(rows), config.seed)


def _slug(name: str) -> str:
    return name.replace(" ", "-")


def check(config: GradientLocalization) -> None:
    """Finds, before anything is trained, what can be wrong with texts, probes and a given model.

    Raises:
      InputError: what the readers of texts and probes find; probes without a kind that is needed,
        or too few entities; a method that does not fit the model.
    """
    for text in (config.text, config.reference):
        data.documents(text)
    first = config.seed
    for source in config.data.sources:
        data.documents(source.ref.replace("{seed}", str(first)))
    for method in config.methods:
        if method.review is not None:
            data.documents(method.review.ref.replace("{seed}", str(first)))
    if config.online is not None:
        data.documents(config.online.text.replace("{seed}", str(first)))
    if config.model is None:
        run = parts.pretraining(config, first)
        tokenizer = make_tokenizer(
            run, [data.documents(source.ref)[:: source.every] for source in run.data.sources]
        )
        architecture = present(run.model)
    else:
        loaded = checkpoints.load(config.model, config.compute)
        tokenizer, architecture = loaded.tokenizer, loaded.model.config
    data.check_vocabulary(tokenizer, architecture)
    parts.questions(config, tokenizer, first, architecture)
    for method in config.methods:
        parts.part_of(method, architecture)
