"""The config of the study of knowledge entropy."""

import dataclasses
from typing import Annotated

import tyro

from lmdyn.errors import InputError, check_least
from lmdyn.studies.config import SeededStudyConfig
from lmdyn.studies.injected_facts import ContinualTraining, FactInjection
from lmdyn.training import Intervention, Objective, TrainConfig


@dataclasses.dataclass(frozen=True)
class Variant:
    """Another way to pretrain. Part of `KnowledgeEntropy`.

    The same run with another objective, or with interventions during training.

    Attributes:
      name: in rows and figures.
      objective: see `lmdyn.training.TrainConfig`.
      interventions: see `lmdyn.training.TrainConfig`.

    >>> Variant(
    ...     "entropy bonus", Objective("lmdyn.training.objectives.entropy_bonus")
    ... ).interventions
    ()
    """

    name: str
    objective: Objective | None = None
    interventions: tuple[Intervention, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnowledgeEntropy(SeededStudyConfig):
    """Kim et al. 2024 as one experiment.

    Entropy over a series, acquisition and retention from each checkpoint, reactivation.

    `{seed}` in a text, facts or probes becomes the seed: each seed has its own world, its own order
    of texts and its own model. A given series is processed by one worker unless `workers` says
    otherwise, since its models may be large.

    Attributes:
      text: held-out pretraining text: entropies are measured on it, reactivation too, and
        forgetting.
      injection: which new facts are injected, and how.
      continual: the continual training into which they are injected.
      series: a series of checkpoints, such as hf:allenai/OLMo-1B-hf@step1000-tokens4B,...; None
        trains `pretrain` for each seed.
      pretrain: the run that is trained where no series is given; its `out` and `seed` are set by
        the study.
      compare_steps: the steps of `pretrain` to compare; None takes all that are kept but step 0.
      variants: other ways to pretrain, compared at equal loss. A given series has none.
      known_probes: probes of facts that pretraining contains, by reference; None: forgetting is of
        the text alone.
      known_limit: at most this many of them.
      ratios: shares of coefficients that are reactivated.
      gains: strengths of reactivation, tried with each ratio.
      tokens: predictions of one measurement of text, in windows of `continual.length`.
      cache: folder of tokenised text.

    >>> study = KnowledgeEntropy(
    ...     out="out/entropy",
    ...     text="builtin:docs:test",
    ...     series="hf:EleutherAI/pythia-70m@step1000,step16000,step143000",
    ...     injection=FactInjection("facts.jsonl", rounds=8),
    ...     continual=ContinualTraining("builtin:code:train"),
    ...     variants=(
    ...         Variant(
    ...             "bonus",
    ...             objective=Objective(
    ...                 "lmdyn.training.objectives.entropy_bonus", {"weight": 1.0}
    ...             ),
    ...         ),
    ...     ),
    ... )
    >>> len(study.ratios) * len(study.gains)  # reactivations that are tried
    4
    """

    text: str
    injection: FactInjection
    continual: ContinualTraining
    series: str | None = None
    pretrain: Annotated[TrainConfig | None, tyro.conf.Fixed] = None
    compare_steps: tuple[int, ...] | None = None
    variants: Annotated[tuple[Variant, ...], tyro.conf.Fixed] = ()
    known_probes: str | None = None
    known_limit: int = 256
    ratios: tuple[float, ...] = (0.25, 0.5)
    gains: tuple[float, ...] = (1.0, 2.0)
    tokens: int = 16384
    cache: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.series is None and self.pretrain is None:
            raise InputError("give either series= (checkpoints) or pretrain= (a run to make them)")
        check_least(self, tokens=1, known_limit=1)
        for ratio in self.ratios:
            if not 0 < ratio <= 1:
                raise InputError(
                    f"ratios: {ratio}; a ratio of reactivation is above 0 and at most 1"
                )
        for gain in self.gains:
            if not 0 < gain < 1e6:
                raise InputError(f"gains: {gain}; a gain of reactivation is a positive number")
