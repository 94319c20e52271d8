"""The config of the study of entropy decay."""

import dataclasses
from typing import Annotated

import tyro

from lmdyn.analysis import factorials
from lmdyn.errors import InputError, check_least
from lmdyn.studies.config import StudyConfig
from lmdyn.training import TrainConfig

NEEDED = {"nll", "knowledge_entropy"}
"""What every run measures."""


@dataclasses.dataclass(frozen=True)
class Factor:
    """One thing that is varied. Part of `EntropyDecay`.

    Attributes:
      name: short.
      low: what its low level is called.
      high: what its high level is called.

    >>> Factor("MLP", low="plain", high="gated").high
    'gated'
    """

    name: str
    low: str
    high: str


@dataclasses.dataclass(frozen=True)
class FactorialRun:
    """One run of the design. Part of `EntropyDecay`.

    Attributes:
      levels: -1 (low) or 1 (high) of each factor, in their order.
      train: the run; its `out` is set by the study. It measures `nll,knowledge_entropy`.
    """

    levels: tuple[int, ...]
    train: TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EntropyDecay(StudyConfig):
    """A factorial of pretraining runs, in which knowledge entropy is measured from the first step.

    Attributes:
      factors: what is varied.
      runs: the design (`lmdyn.analysis.factorials.fraction` makes one).
      workers: processes that train side by side; 0: one per core on a CPU, one elsewhere.

    >>> from lmdyn.models import ModelConfig
    >>> from lmdyn.training import Data, Optimizer, Source, Evaluation
    >>> from lmdyn.studies import fraction
    >>> model = lambda width: ModelConfig(
    ...     vocab=256,
    ...     width=width,
    ...     depth=2,
    ...     heads=4,
    ...     head_width=16,
    ...     mlp_width=192,
    ...     positions=128,
    ... )
    >>> def train(rate, width):
    ...     return TrainConfig(
    ...         model=model((32, 64)[width > 0]),
    ...         optimizer=Optimizer(learning_rate=(1e-3, 4e-3)[rate > 0]),
    ...         steps=64,
    ...         out="set by the study",
    ...         data=Data((Source("builtin:docs:train"),), length=128),
    ...         evaluation=Evaluation(
    ...             "builtin:docs:test", metrics="nll,knowledge_entropy", every=16
    ...         ),
    ...     )
    >>> factors = (
    ...     Factor("learning rate", low="0.001", high="0.004"),
    ...     Factor("width", low="32", high="64"),
    ... )
    >>> study = EntropyDecay(
    ...     out="out/decay",
    ...     factors=factors,
    ...     runs=tuple(
    ...         FactorialRun(tuple(levels), train(*levels))
    ...         for levels in fraction(("learning rate", "width")).tolist()
    ...     ),
    ... )
    >>> [run.levels for run in study.runs]
    [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    """

    factors: Annotated[tuple[Factor, ...], tyro.conf.Fixed]
    runs: Annotated[tuple[FactorialRun, ...], tyro.conf.Fixed]
    workers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, workers=0)
        for number, run in enumerate(self.runs):
            if len(run.levels) != len(self.factors) or not set(run.levels) <= {-1, 1}:
                raise InputError(
                    f"runs[{number}].levels={run.levels}; give -1 or 1 for each of the"
                    f" {len(self.factors)} factors"
                )
            evaluation = run.train.evaluation
            if evaluation is None or not set(evaluation.metrics.split(",")) >= NEEDED:
                raise InputError(
                    f"runs[{number}].train.evaluation must measure nll,knowledge_entropy"
                )
            if (run.train.steps // 2) % evaluation.every:
                raise InputError(
                    f"runs[{number}]: half of its {run.train.steps} steps is not a multiple of"
                    f" evaluation.every={evaluation.every}"
                )
        factorials.check_design([run.levels for run in self.runs])
