"""Gradient localization and targeted updates (Fernandez et al. 2024)."""

from lmdyn.report.studies import MORE_SEEDS, Larger, StudyPage
from lmdyn.studies.gradient_localization import figures
from lmdyn.studies.gradient_localization.config import GradientLocalization
from lmdyn.studies.gradient_localization.study import run

__all__ = ["CONFIG", "PAGE", "run"]

CONFIG = GradientLocalization
PAGE = StudyPage(
    "Gradient localization",
    "In which layers are the gradients of new facts large, and is it enough to update those?",
    "Fernandez et al. 2024, arXiv 2411.04448",
    "configs/gradient_localization.py",
    figures.figures,
    (
        MORE_SEEDS,
        Larger(
            "A pretrained model: in a copy of the configuration, give model= in place of"
            " pretrain=, with probes, data and learning rates that fit it."
        ),
    ),
)
