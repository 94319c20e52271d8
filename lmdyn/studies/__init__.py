"""One module a paper: a config in; rows, figures and claims out."""

from lmdyn.analysis.factorials import fraction
from lmdyn.studies.entropy_decay import study as entropy_decay
from lmdyn.studies.entropy_decay.study import EntropyDecay, Factor, Run
from lmdyn.studies.fact_learning import study as fact_learning
from lmdyn.studies.fact_learning.study import FactLearning
from lmdyn.studies.gradient_localization import study as gradient_localization
from lmdyn.studies.gradient_localization.study import GradientLocalization, Method, Streamed
from lmdyn.studies.knowledge_entropy import study as knowledge_entropy
from lmdyn.studies.knowledge_entropy.study import KnowledgeEntropy, Variant
from lmdyn.studies.lessons import Further, Tell
from lmdyn.studies.online_adaptation import study as online_adaptation
from lmdyn.studies.online_adaptation.settings import Grid
from lmdyn.studies.online_adaptation.study import Meta, OnlineAdaptation, Size
from lmdyn.studies.saturation import study as saturation
from lmdyn.studies.saturation.study import Heads, Saturation, Target

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
