"""The study `fact_learning`."""

from lmdyn.report.studies import Larger, StudyPage
from lmdyn.studies.fact_learning import figures

PAGE = StudyPage(
    "Fact learning",
    "What does a pretrained model learn from being told: the words, the facts, what follows"
    " from them?",
    "Chang et al. 2024, arXiv 2406.11813",
    "configs/fact_learning.py",
    figures.figures,
    (
        Larger(
            "All facts of the file in place of some; the time grows with their number.",
            ("--tell.count", "None"),
        ),
    ),
)
