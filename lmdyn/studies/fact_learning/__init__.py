"""How a model learns facts that are injected at intervals (Chang et al. 2024)."""

from lmdyn.report.studies import Larger, StudyPage
from lmdyn.studies.fact_learning import figures
from lmdyn.studies.fact_learning.config import FactLearning
from lmdyn.studies.fact_learning.study import run

__all__ = ["CONFIG", "PAGE", "run"]

CONFIG = FactLearning
PAGE = StudyPage(
    "Fact learning",
    "What does a pretrained model learn from injected facts: the words, the facts, what follows"
    " from them?",
    "Chang et al. 2024, arXiv 2406.11813",
    "configs/fact_learning.py",
    figures.figures,
    (
        Larger(
            "All facts of the file in place of some; the time grows with their number.",
            "--injection.count None",
        ),
    ),
)
