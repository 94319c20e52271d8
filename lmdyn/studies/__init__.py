"""One module a paper: a config in; rows, figures and claims out."""

from lmdyn.studies import (
    entropy_decay,
    fact_learning,
    gradient_localization,
    knowledge_entropy,
    online_adaptation,
    saturation,
)
from lmdyn.studies.entropy_decay import EntropyDecay, Factor, Run
from lmdyn.studies.fact_learning import FactLearning
from lmdyn.studies.factorial import fraction
from lmdyn.studies.gradient_localization import GradientLocalization, Method, Streamed
from lmdyn.studies.knowledge_entropy import KnowledgeEntropy, Variant
from lmdyn.studies.lessons import Further, Tell
from lmdyn.studies.online_adaptation import Meta, OnlineAdaptation, Size
from lmdyn.studies.online_settings import Grid
from lmdyn.studies.saturation import Heads, Saturation, Target

__all__ = [
    "EntropyDecay",
    "FactLearning",
    "Factor",
    "Further",
    "GradientLocalization",
    "Grid",
    "Heads",
    "KnowledgeEntropy",
    "Meta",
    "Method",
    "OnlineAdaptation",
    "Run",
    "Saturation",
    "Size",
    "Streamed",
    "Target",
    "Tell",
    "Variant",
    "fraction",
]

RUN = {
    EntropyDecay: entropy_decay.run,
    FactLearning: fact_learning.run,
    GradientLocalization: gradient_localization.run,
    KnowledgeEntropy: knowledge_entropy.run,
    OnlineAdaptation: online_adaptation.run,
    Saturation: saturation.run,
}
"""What runs a study, by the type of its config: `run(config, command, say) -> Path` of the report."""
