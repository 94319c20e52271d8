"""The study `gradient_localization`."""

from lmdyn.report.studies import MORE_SEEDS, Larger, StudyPage
from lmdyn.studies.gradient_localization import figures

PAGE = StudyPage(
    "Gradient localization",
    "Which layers do new facts light up, and is it enough to update those?",
    "Fernandez et al. 2024, arXiv 2411.04448",
    "configs/gradient_localization.py",
    figures.figures,
    (
        MORE_SEEDS,
        Larger(
            "A pretrained model: in a copy of the configuration, give model= in place of"
            " pretrain=, with probes, data and rates that fit it."
        ),
    ),
)
