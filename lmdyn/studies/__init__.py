"""Studies: a config in; rows, figures and claims out. One package per study, found by its name."""

from lmdyn.analysis.factorials import fraction
from lmdyn.studies.entropy_decay.config import EntropyDecay, Factor, FactorialRun
from lmdyn.studies.fact_learning.config import FactLearning
from lmdyn.studies.gradient_localization.config import GradientLocalization, Method, OnlineStream
from lmdyn.studies.injected_facts import ContinualTraining, FactInjection
from lmdyn.studies.knowledge_entropy.config import KnowledgeEntropy, Variant
from lmdyn.studies.online_adaptation.config import Grid, Meta, OnlineAdaptation, Size
from lmdyn.studies.saturation.config import Heads, Saturation, Target

__all__ = [
    "ContinualTraining",
    "EntropyDecay",
    "FactInjection",
    "FactLearning",
    "Factor",
    "FactorialRun",
    "GradientLocalization",
    "Grid",
    "Heads",
    "KnowledgeEntropy",
    "Meta",
    "Method",
    "OnlineAdaptation",
    "OnlineStream",
    "Saturation",
    "Size",
    "Target",
    "Variant",
    "fraction",
]
