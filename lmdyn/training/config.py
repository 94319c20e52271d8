"""What a training run is, as typed dataclasses.

So a misspelt field or a value of the wrong type is an error at once.
"""

import dataclasses
import json
from typing import Annotated, Any

import tyro

from lmdyn.models.config import Compute, ModelConfig
from lmdyn.training.optimizer_config import Apply, Optimizer, Recall
from lmdyn.training.validation import check
from lmdyn.types import Bos

__all__ = [
    "MAY_CHANGE",
    "Apply",
    "CheckpointPolicy",
    "Data",
    "Evaluation",
    "Intervention",
    "LoRA",
    "Objective",
    "Optimizer",
    "Recall",
    "Review",
    "Source",
    "TrainConfig",
    "differences",
    "to_json",
]


@dataclasses.dataclass(frozen=True)
class Source:
    """A text to train on, and its share of the windows. Part of `Data`.

    The share is `weight` over the sum of all weights.

    `every` takes only every n-th document: 8 leaves an eighth of the text, which is then
    repeated eight times as often.

    >>> Source("builtin:docs:train", weight=3.0).every
    1
    """

    ref: str
    weight: float = 1.0
    every: int = 1


@dataclasses.dataclass(frozen=True)
class Review:
    """MixReview (He et al. 2021): old text is read again beside new text. Part of `Data`.

    Less of it from epoch to epoch of the new text.

    Attributes:
      ref: the old text.
      ratio: its windows to one of the new text, in the new text's first epoch.
      decay: what the ratio is multiplied by from epoch to epoch.

    >>> Review("builtin:docs:train", ratio=0.5).decay
    0.7
    """

    ref: str
    ratio: float = 1.0
    decay: float = 0.7


@dataclasses.dataclass(frozen=True)
class Data:
    """What is read, and how it is cut.

    Attributes:
      sources: the texts (`lmdyn.data.documents` says how they are named), mixed by weight.
      tokenizer: `bytes`, `bpe:VOCAB` (trained on the sources), `hf:ORG/NAME`, or the path of a
        `tokenizer.json`. A model to start from brings its own.
      length: T, tokens of a window.
      batch: B, windows of one step, over all devices and hosts.
      attend_across: False: attention stays inside a document.
      predict_across: False: the first token of a document is not predicted.
      review: old text that takes the place of some rows, fewer and fewer (MixReview).
      cache: folder where tokenised text is kept; the user's cache folder if None.

    >>> data = Data(
    ...     sources=(Source("builtin:docs:train", 3.0), Source("builtin:code:train", 1.0)),
    ...     tokenizer="bpe:1024",
    ...     length=128,
    ...     batch=16,
    ...     review=Review("text:old.txt", ratio=0.5),
    ... )
    >>> data.batch * data.length  # predictions of a step
    2048
    """

    sources: Annotated[tuple[Source, ...], tyro.conf.Fixed]
    tokenizer: str = "bytes"
    length: int = 512
    batch: int = 32
    attend_across: bool = True
    predict_across: bool = True
    review: Annotated[Review | None, tyro.conf.Fixed] = None
    cache: str | None = None


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised, by name. Part of `TrainConfig`.

    `Objective("entropy_bonus", {"weight": 0.1})`, say.

    Attributes:
      name: a function that returns an objective (see `lmdyn.training.objectives`), as
        `package.module.function`.
      arguments: its keyword arguments, as JSON holds them.

    >>> Objective("entropy_bonus", {"weight": 0.1}).arguments
    {'weight': 0.1}
    """

    name: str
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Intervention:
    """A change of the parameters during the run, after a measurement. Part of `TrainConfig`.

    Reactivation, say.

    It is made after every `every`-th step but the last, before that step's measurement and
    checkpoint. The optimizer's state stays.

    Attributes:
      name: a function that returns a `lmdyn.transforms.Measured`, as `package.module.function`.
      data: the text that is measured on.
      every: steps between two changes.
      arguments: the function's keyword arguments, as JSON holds them.
      until: the last step after which it may be made; None sets no limit.
      tokens: predictions of one measurement.

    >>> Intervention("lmdyn.transforms.reactivation", "builtin:docs:train", every=64).tokens
    8192
    """

    name: str
    data: str
    every: int
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    until: int | None = None
    tokens: int = 8192


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Low-rank adapters, trained instead of the matrices beside them. Part of `TrainConfig`.

    See `lmdyn.params.low_rank` (Hu et al. 2021, arXiv 2106.09685).

    Attributes:
      where: selector of those matrices.
      rank: R.
      scale: s of `W + s A B`.

    >>> LoRA("blocks.mlp", rank=4).scale
    1.0
    """

    where: str = "blocks"
    rank: int = 8
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is measured inside the run, on the same held-out text every time. Part of `TrainConfig`.

    Attributes:
      data: the held-out text.
      metrics: names joined by commas, as for `lmdyn measure`.
      every: steps between two measurements; the first is before step 1, the last after the last
        step.
      tokens: predictions of one measurement.
      batch: windows of one forward pass; as many as one training step has, if 0.

    >>> Evaluation("builtin:docs:test", metrics="nll").every
    50
    """

    data: str
    metrics: str = (
        "nll,knowledge_entropy,attention_entropy,prediction_entropy,anisotropy,singular_entropy"
    )
    every: int = 50
    tokens: int = 4096
    batch: int = 0


@dataclasses.dataclass(frozen=True)
class CheckpointPolicy:
    """Which checkpoints are made and kept. Part of `TrainConfig`.

    Kept for good: at every `every`-th step, at powers of two, the first and the last. And, so that
    a stopped run loses little, one every `save` steps, of which the `last` newest stay.

    Attributes:
      every: steps between two checkpoints that are kept for good; None keeps none by this rule.
      powers_of_two: keep those at steps 1, 2, 4, 8 and so on.
      save: steps between two checkpoints that a stopped run resumes from.
      last: how many of these are kept.

    >>> CheckpointPolicy(every=64, last=1).powers_of_two
    True
    """

    every: int | None = None
    powers_of_two: bool = True
    save: int = 500
    last: int = 2


def _mesh(words: list[str]) -> tuple[int, int, int]:
    try:
        data, fsdp, tensor = (int(n) for n in words[0].split(","))
    except ValueError:
        raise ValueError(f"'{words[0]}' is not a mesh; write three numbers such as 4,8,2") from None
    return data, fsdp, tensor


Mesh = Annotated[
    tuple[int, int, int],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="DATA,FSDP,TENSOR",
        instance_from_str=_mesh,
        is_instance=lambda value: isinstance(value, tuple) and len(value) == 3,
        str_from_instance=lambda value: [",".join(map(str, value))],
    ),
]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Pretrain a model, or train a given one further, into a run.

    A run is a folder: checkpoints, log, measurements, and what made them. The same command again
    resumes the run where it stopped, with the same bits as if it had not. run:DIR@STEP then names a
    checkpoint wherever a model is expected, run:DIR@* all of them.

    Attributes:
      data: the texts to train on, and how they are cut into windows.
      steps: optimizer steps of the whole run.
      out: the run's folder.
      model: the architecture of a model that is trained from scratch; leave it out with `start`.
      start: a model to train further instead: hf:, dir:, gguf: or run:.
      train: selector of the parameters that are trained; the others cost no gradient and no
        optimizer state.
      adapters: train low-rank adapters instead, of the model in `start`; checkpoints hold the model
        with them added in.
      optimizer: the optimizer and its learning-rate schedule.
      evaluation: what is measured during training; None measures nothing.
      checkpoints: which checkpoints are made and kept.
      objective: what is minimised; None: the likelihood.
      interventions: changes of the parameters during training, in order.
      accumulate: number of parts that each batch is run in, one after another.
      seed: of the initial parameters and of the order of the data.
      bos: where beginning-of-text tokens go: auto: before each document, if the tokenizer does
        so; document; window: before each window; none. The run's checkpoints are read as they were
        trained.
      end_of_text: the token between documents, or its id, in place of the tokenizer's own.
      compute: dtype, attention kernel and rematerialisation.
      mesh: devices along data, fsdp and tensor; -1 takes what is left.
      log_every: steps between two lines of the log.

    >>> model = ModelConfig(
    ...     vocab=256, width=64, depth=2, heads=4, head_width=16, mlp_width=192, positions=128
    ... )
    >>> run = TrainConfig(
    ...     model=model,
    ...     data=Data(sources=(Source("builtin:docs:train"),), length=128, batch=16),
    ...     steps=320,
    ...     out="runs/mine",
    ...     objective=Objective("lmdyn.training.objectives.entropy_bonus", {"weight": 0.1}),
    ...     interventions=(
    ...         Intervention(
    ...             "lmdyn.transforms.reactivation",
    ...             "builtin:docs:train",
    ...             every=64,
    ...             arguments={"ratio": 0.25},
    ...         ),
    ...     ),
    ...     evaluation=Evaluation(
    ...         "builtin:docs:test", metrics="nll,knowledge_entropy", every=32
    ...     ),
    ...     checkpoints=CheckpointPolicy(every=64, last=1),
    ... )
    >>> run.steps * run.data.batch * run.data.length
    655360
    >>> further = TrainConfig(
    ...     start="run:runs/mine@320",
    ...     adapters=LoRA("blocks.mlp", rank=4),
    ...     data=run.data,
    ...     steps=64,
    ...     out="runs/further",
    ... )
    >>> further.compute.dtype
    'auto'
    """

    data: Data
    steps: int
    out: str
    model: ModelConfig | None = None
    start: str | None = None
    train: str = "all"
    adapters: Annotated[LoRA | None, tyro.conf.Fixed] = None
    optimizer: Optimizer = Optimizer()
    evaluation: Evaluation | None = None
    checkpoints: CheckpointPolicy = CheckpointPolicy()
    objective: Annotated[Objective | None, tyro.conf.Fixed] = None
    interventions: Annotated[tuple[Intervention, ...], tyro.conf.Fixed] = ()
    accumulate: int = 1
    seed: int = 0
    bos: Bos = "auto"
    end_of_text: str | None = None
    compute: Compute = Compute()
    mesh: Mesh = (-1, 1, 1)
    log_every: int = 10

    def __post_init__(self) -> None:
        check(self)


MAY_CHANGE = ("out", "mesh", "log_every", "checkpoints", "evaluation", "data.cache")
"""Fields that may change when a run is resumed: no number depends on them (on `mesh`, rounding)."""


def to_json(config: Any) -> dict:
    """The config as JSON holds it.

    >>> to_json(Source("builtin:docs", 2.0))
    {'ref': 'builtin:docs', 'weight': 2.0, 'every': 1}
    """
    return json.loads(json.dumps(dataclasses.asdict(config)))


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """The fields, beyond those of `MAY_CHANGE`, in which two configs differ: `field: old -> new`.

    >>> differences({"a": {"b": 1, "c": 2}, "out": "x"}, {"a": {"b": 1, "c": 3}, "out": "y"})
    ['a.c: 2 -> 3']
    """
    found = []
    for key in dict.fromkeys([*old, *new]):
        path, before, after = f"{prefix}{key}", old.get(key), new.get(key)
        if path in MAY_CHANGE or before == after:
            continue
        if key not in old and after in (None, [], "auto"):  # a run that is older than the field
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{path}.")
        else:
            found.append(f"{path}: {before} -> {after}")
    return found
