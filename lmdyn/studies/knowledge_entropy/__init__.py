"""Knowledge entropy over pretraining, and its repair (Kim et al. 2024)."""

from lmdyn.report.studies import MORE_SEEDS, Larger, StudyPage
from lmdyn.studies.knowledge_entropy import figures
from lmdyn.studies.knowledge_entropy.config import KnowledgeEntropy
from lmdyn.studies.knowledge_entropy.study import run

__all__ = ["CONFIG", "PAGE", "run"]

CONFIG = KnowledgeEntropy
PAGE = StudyPage(
    "Knowledge entropy",
    "On how many of its memories does a model draw, how does that change over pretraining, and"
    " does it decide what can still be learnt?",
    "Kim et al. 2024, arXiv 2410.01380",
    "configs/knowledge_entropy.py",
    figures.figures,
    (
        MORE_SEEDS,
        Larger(
            "The paper's own checkpoints, which the hub has, and its facts (paraphrase70.json,"
            " published with its code); a GPU is wanted.",
            "--series"
            " hf:allenai/OLMo-1B-hf@step1000-tokens4B,step117850-tokens494B,step330000-tokens1384B"
            " --known-probes None --injection.facts paraphrase70.json --continual.length 1024",
        ),
    ),
)
