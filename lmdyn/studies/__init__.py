"""One module a paper: a config in; rows, figures and claims out."""

from lmdyn.studies import entropy_decay, fact_learning, knowledge_entropy, saturation
from lmdyn.studies.entropy_decay import EntropyDecay, Factor, Run
from lmdyn.studies.fact_learning import FactLearning
from lmdyn.studies.factorial import fraction
from lmdyn.studies.knowledge_entropy import KnowledgeEntropy, Variant
from lmdyn.studies.lessons import Further, Tell
from lmdyn.studies.saturation import Heads, Saturation, Target

__all__ = ["EntropyDecay", "FactLearning", "Factor", "Further", "Heads", "KnowledgeEntropy", "Run", "Saturation", "Target", "Tell", "Variant", "fraction"]

RUN = {EntropyDecay: entropy_decay.run, FactLearning: fact_learning.run, KnowledgeEntropy: knowledge_entropy.run,
       Saturation: saturation.run}
"""What runs a study, by the type of its config: `run(config, command, say) -> Path` of the report."""
