"""The config of the fact-learning study."""

import dataclasses

from lmdyn.errors import check_least
from lmdyn.models import Compute
from lmdyn.studies.config import StudyConfig
from lmdyn.studies.injected_facts import ContinualTraining, FactInjection


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactLearning(StudyConfig):
    """Inject new facts at intervals, and probe them at three depths.

    Attributes:
      model: a model reference.
      injection: which facts are injected, and how.
      continual: the continual training into which they are injected.
      text: held-out text of the kind that the model knows, for what is forgotten; None measures
        none.
      tokens: predictions of one measurement of text.
      seed: of the order of texts.
      compute: dtype and attention.
      cache: folder of tokenised text.

    >>> study = FactLearning(
    ...     out="out/facts",
    ...     model="hf:EleutherAI/pythia-70m@step143000",
    ...     injection=FactInjection("facts.jsonl", count=16, rounds=8),
    ...     continual=ContinualTraining("builtin:code:train", held_out="builtin:code:test"),
    ...     text="builtin:docs:test",
    ... )
    >>> study.injection.rounds * study.injection.every + study.continual.steps_after  # updates
    144
    """

    model: str
    injection: FactInjection
    continual: ContinualTraining
    text: str | None = None
    tokens: int = 4096
    seed: int = 0
    compute: Compute = Compute()
    cache: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, tokens=1)
