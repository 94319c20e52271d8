"""The config of the study of gradient localization."""

import dataclasses
from typing import Annotated

import tyro

from lmdyn.errors import InputError, check_least
from lmdyn.studies.config import SeededStudyConfig
from lmdyn.training import Data, LoRA, Optimizer, Recall, Review, TrainConfig


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of continual pretraining; with none of the three it is plain training.

    Part of `GradientLocalization`.

    Attributes:
      name: in rows and figures.
      adapters: low-rank adapters are trained.
      review: pretraining text is read again.
      recall: a pull to the old weights.
      learning_rate_factor: multiplies the learning rate of the study's optimizer.

    >>> Method("low-rank", adapters=LoRA(rank=4), learning_rate_factor=3.0).name
    'low-rank'
    """

    name: str
    adapters: LoRA | None = None
    review: Review | None = None
    recall: Recall | None = None
    learning_rate_factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class OnlineStream:
    """The online adaptation of the study: Adam without momentum, a step or two per chunk.

    Part of `GradientLocalization`.

    Attributes:
      text: the stream; `{seed}` becomes the seed.
      tokens: predictions of it.
      chunk: tokens per chunk, C.
      learning_rates: what is tried; each restriction is reported at the one that is best in the
        other seeds.

    >>> OnlineStream("text:new.txt", tokens=4096).chunk
    64
    """

    text: str
    tokens: int = 8192
    chunk: int = 64
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientLocalization(SeededStudyConfig):
    """Fernandez et al. 2024 as one experiment.

    Profiles by kind of knowledge, and continual pretraining restricted or scaled by them.

    `{seed}` in a text or in probes becomes the seed: each seed has its own world, its own order of
    texts and its own model.

    Attributes:
      probes: probes of what is true now, with their kind (updated, new, unchanged): of a world, or
        published files, see `lmdyn.data.read_probes`. All three kinds are needed; they may come
        from several files.
      data: the text of the continual pretraining, which contains the updated and new facts;
        `tokenizer` does not count.
      text: held-out pretraining text, for what is forgotten.
      reference: pretraining text that random spans are taken from.
      model: a model reference; None trains `pretrain` for each seed.
      pretrain: the run that is trained where no model is given; its `out` and `seed` are set by the
        study.
      methods: of continual pretraining. The first is the one that the others are compared with; it
        also has the running profile.
      steps: updates of a run.
      optimizer: of all runs. Its state is new. (Clipping would count frozen layers' gradients,
        too.)
      learning_rate_factors: what the learning rate is multiplied by, one run each, ascending.
      leave_out_frozen: frozen layers are left out of the compiled step, so that they cost neither
        gradient nor optimizer state: for large models. Otherwise their updates are multiplied by
        0, so that tiny models go through one program, which is compiled once. The numbers are the
        same.
      online: the online adaptation; None leaves it out.
      profile_limit: at most this many probes per kind for the profile.
      ask_limit: at most this many probes per kind that runs are asked.
      spans: random spans that the profile is relative to.
      evaluations: how often a run is asked what it knows, after its beginning.
      tokens: predictions of one measurement of text.
      cache: folder of tokenised text.

    >>> from lmdyn.training import LoRA, Source
    >>> study = GradientLocalization(
    ...     out="out/localization",
    ...     model="hf:EleutherAI/pythia-70m@step143000",
    ...     probes=("probes.jsonl",),
    ...     data=Data((Source("text:new.txt"),)),
    ...     text="builtin:docs:test",
    ...     reference="builtin:docs:train",
    ...     online=OnlineStream("text:new.txt"),
    ...     methods=(Method("plain"), Method("adapters", adapters=LoRA(rank=4))),
    ... )
    >>> [method.name for method in study.methods], study.learning_rate_factors
    (['plain', 'adapters'], (0.25, 1.0, 4.0))
    """

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
    learning_rate_factors: tuple[float, ...] = (0.25, 1.0, 4.0)
    leave_out_frozen: bool = False
    online: Annotated[OnlineStream | None, tyro.conf.Fixed] = None
    profile_limit: int = 192
    ask_limit: int = 64
    spans: int = 256
    evaluations: int = 2
    tokens: int = 8192
    cache: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.model is None) == (self.pretrain is None):
            raise InputError(
                "give either model= (a model reference) or pretrain= (a run to make one), and not"
                " both"
            )
        check_least(self, steps=1, profile_limit=2, ask_limit=2, spans=2, evaluations=1, tokens=1)
        if not self.probes:
            raise InputError("probes=(); name at least one file or dataset of probes")
        if self.evaluations > self.steps:
            raise InputError(
                f"evaluations={self.evaluations} is more than the {self.steps} steps of a run"
            )
        _check_ascending("learning_rate_factors", self.learning_rate_factors)
        if self.online is not None:
            _check_ascending("online.learning_rates", self.online.learning_rates)
            check_least(self.online, "online.", chunk=1, tokens=1)
        self._check_methods()

    def _check_methods(self) -> None:
        names = [method.name for method in self.methods]
        if not names or len(set(names)) < len(names):
            raise InputError(
                f"methods are named {', '.join(names) or 'nothing'}; give at least one, each with a"
                " name of its own"
            )
        for method in self.methods:
            if not 0 < method.learning_rate_factor < 1e6:
                raise InputError(
                    f"method {method.name}: learning_rate_factor={method.learning_rate_factor}; it"
                    " must be a positive number"
                )
            if method.recall is not None and self.optimizer.name != "adamw":
                raise InputError(
                    f"method {method.name}: recall needs optimizer.name=adamw, not"
                    f" {self.optimizer.name}"
                )


def _check_ascending(name: str, values: tuple[float, ...]) -> None:
    ascending = list(values) == sorted(set(values))
    if not values or not ascending or not all(0 < value < 1e6 for value in values):
        raise InputError(f"{name}={values}; give ascending positive numbers, at least one")
