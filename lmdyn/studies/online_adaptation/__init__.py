"""Online adaptation, the whole trade (Rannen-Triki et al. 2024)."""

from lmdyn.report.studies import MORE_SEEDS, Larger, StudyPage
from lmdyn.studies.online_adaptation import figures
from lmdyn.studies.online_adaptation.config import OnlineAdaptation
from lmdyn.studies.online_adaptation.study import run

__all__ = ["CONFIG", "PAGE", "run"]

CONFIG = OnlineAdaptation
PAGE = StudyPage(
    "Online adaptation",
    "What does a model gain by learning from the text that it reads, at what cost, and where"
    " in it?",
    "Rannen-Triki et al. 2024, arXiv 2403.01518; Krause et al. 2018, arXiv 1709.07432",
    "configs/online_adaptation.py",
    figures.figures,
    (
        MORE_SEEDS,
        Larger(
            "A pretrained model, by every rule, on texts of your own.",
            "--model hf:EleutherAI/pythia-70m@step143000 --given.streams text:first.txt"
            " text:second.txt",
        ),
    ),
)
