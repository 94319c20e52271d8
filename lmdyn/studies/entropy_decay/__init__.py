"""When knowledge entropy decays during pretraining: a factorial of small runs."""

from lmdyn.report.studies import Larger, StudyPage
from lmdyn.studies.entropy_decay import figures
from lmdyn.studies.entropy_decay.config import EntropyDecay
from lmdyn.studies.entropy_decay.study import run

__all__ = ["CONFIG", "PAGE", "run"]

CONFIG = EntropyDecay
PAGE = StudyPage(
    "Entropy decay",
    "When does knowledge entropy fall over training, and which choice of model and rate makes it?",
    "after Kim et al. 2024, arXiv 2410.01380",
    "configs/entropy_decay.py",
    figures.figures,
    (
        Larger(
            "Widths, steps and levels stand in the first lines of configs/entropy_decay.py:"
            " copy the file, change them, and run the copy. Runs go side by side, one per core:"
            " {cores}.",
            "--workers 16",
        ),
    ),
)
