"""One module a paper: a config in; rows, figures and claims out."""

from lmdyn.studies import entropy_decay, fact_learning, knowledge_entropy, online_adaptation
from lmdyn.studies.entropy_decay import EntropyDecay, Factor, Run
from lmdyn.studies.fact_learning import FactLearning
from lmdyn.studies.factorial import fraction
from lmdyn.studies.knowledge_entropy import KnowledgeEntropy, Variant
from lmdyn.studies.lessons import Further, Tell
from lmdyn.studies.online_adaptation import Meta, OnlineAdaptation, Size
from lmdyn.studies.online_settings import Grid

__all__ = ["EntropyDecay", "FactLearning", "Factor", "Further", "Grid", "KnowledgeEntropy", "Meta", "OnlineAdaptation", "Run", "Size", "Tell", "Variant", "fraction"]

RUN = {EntropyDecay: entropy_decay.run, FactLearning: fact_learning.run, KnowledgeEntropy: knowledge_entropy.run,
       OnlineAdaptation: online_adaptation.run}
"""What runs a study, by the type of its config: `run(config, command, say) -> Path` of the report."""
