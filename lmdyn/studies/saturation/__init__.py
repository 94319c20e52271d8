"""Why small models saturate (Godey et al. 2024)."""

from lmdyn.report.studies import MORE_SEEDS, Larger, StudyPage
from lmdyn.studies.saturation import figures
from lmdyn.studies.saturation.config import Saturation
from lmdyn.studies.saturation.study import run

__all__ = ["CONFIG", "PAGE", "run"]

CONFIG = Saturation
PAGE = StudyPage(
    "Saturation",
    "Do narrow models end worse than they should because their output head is a bottleneck?",
    "Godey et al. 2024, arXiv 2404.07647",
    "configs/saturation.py",
    figures.figures,
    (
        MORE_SEEDS,
        Larger(
            "The paper's own models, which the hub has.",
            "--series hf:EleutherAI/pythia-70m@step1000,step16000,step143000"
            " hf:EleutherAI/pythia-410m@step143000 --narrow 512 --tokens-per-step 2097152"
            " --vocabulary 0:50254 --length 1024 --batch 1 --experiments none",
        ),
    ),
)
