"""From the rows of the knowledge-entropy study to its claims.

Every number here is made of rows, so it can be made again from them.

Shape letters: S seeds, K checkpoints of the series.
"""

import functools
from collections.abc import Iterator

import numpy as np

from lmdyn.analysis.statistics import best_elsewhere, correlation
from lmdyn.studies.claims import OURS, Claim, claim, over_seeds
from lmdyn.studies.knowledge_entropy.series import (
    Series,
    acquisition_beyond,
    combined,
    outcomes,
    series,
    starts_of,
)
from lmdyn.types import Rows

SOURCE = "Kim et al. 2024"
CELL = "at the ratio and gain that are best in the other seeds"
_claim = functools.partial(claim, source=SOURCE)


def claims(rows: Rows) -> list[Claim]:
    """What the study ends in: the paper's sentences, and what is beyond it."""
    table = series(rows)
    return [*_series(table), *_reactivation(rows, table), *_variants(rows, table)]


def _peak(values: np.ndarray) -> np.ndarray | None:
    """`[S]`: the earlier checkpoint that is best in the other seeds, less the last one."""
    best = best_elsewhere(values[:, :-1])
    return None if best is None else best - values[:, -1]


def _middle(score: np.ndarray) -> np.ndarray | None:
    """By how much the best checkpoint between first and last beats the better of these two."""
    inner = best_elsewhere(score[:, 1:-1])
    return None if inner is None else inner - np.maximum(score[:, 0], score[:, -1])


def _series(table: Series) -> list[Claim]:
    """The sentences about the series of checkpoints."""
    retention = -table.forgetting
    lead = (
        "of the earlier checkpoint that is best in the other seeds, less the last checkpoint's;"
        " mean over seeds"
    )
    return [
        _claim(
            "entropy-falls",
            "Knowledge entropy falls from its peak as pretraining goes on.",
            over_seeds(_peak(table.entropy)),
            f"Knowledge entropy {lead}.",
            "nats",
            "series",
        ),
        _claim(
            "acquisition-falls",
            "The ability to learn new facts falls as pretraining goes on.",
            over_seeds(_peak(table.acquisition)),
            f"Rise of new facts' log-probability {lead}.",
            "nats",
            "series",
        ),
        _claim(
            "retention-falls",
            "The ability to keep what was known falls as pretraining goes on.",
            over_seeds(_peak(retention)),
            f"Retention, the negative of forgetting, {lead}.",
            "share",
            "series",
        ),
        _claim(
            "entropy-acquisition",
            "Checkpoints with higher knowledge entropy learn more.",
            correlation(table.entropy, table.acquisition),
            "Pearson's correlation over checkpoints of knowledge entropy and acquisition.",
            "correlation",
            "against-entropy",
        ),
        _claim(
            "entropy-retention",
            "Checkpoints with higher knowledge entropy forget less.",
            correlation(table.entropy, retention),
            "Pearson's correlation over checkpoints of knowledge entropy and retention.",
            "correlation",
            "against-entropy",
        ),
        _claim(
            "middle-best",
            "A checkpoint from the middle of pretraining is the best to continue from.",
            over_seeds(_middle(combined(table))),
            "Combined score (nll, acquisition, retention, each from 0 to 1 over the series) of the"
            " checkpoint between the ends that is best in the other seeds, less the better of the"
            " first and the last.",
            "score",
            "balance",
        ),
    ]


def _reactivation(rows: Rows, table: Series) -> Iterator[Claim]:
    starts = starts_of(rows, "reactivated")
    if not starts:
        return
    random = outcomes(rows, starts_of(rows, "random"), "acquisition")
    acquisition, forgetting = (outcomes(rows, starts, k) for k in ("acquisition", "forgetting"))
    make = functools.partial(_claim, figure="reactivation")
    yield make(
        "reactivation-acquisition",
        "Reactivating dormant coefficients of the last checkpoint raises acquisition.",
        over_seeds(best_elsewhere(acquisition - table.acquisition[:, -1:])),
        f"Acquisition, reactivated less unchanged, {CELL}.",
        "nats",
    )
    yield make(
        "reactivation-retention",
        "Reactivating dormant coefficients of the last checkpoint raises retention.",
        over_seeds(best_elsewhere(table.forgetting[:, -1:] - forgetting)),
        f"Forgetting, unchanged less reactivated, {CELL}.",
        "share",
    )
    yield make(
        "reactivation-control",
        "Reactivation helps because the coefficients are dormant: it beats as many coefficients"
        " chosen at random.",
        over_seeds(best_elsewhere(acquisition - random)),
        f"Acquisition, reactivated less random control, {CELL}.",
        "nats",
    )
    for name, column, what in (("new", "new_after", "new facts"), ("old", "old_after", "old text")):
        plain = outcomes(rows, [f"step {table.steps[-1]}"], column)
        yield make(
            f"reactivation-{name}-level",
            f"After the continual training, the reactivated model predicts the {what} better"
            " than the unchanged one.",
            over_seeds(best_elsewhere(outcomes(rows, starts, column) - plain)),
            f"Log-probability of {what} at the end, reactivated less unchanged, {CELL}."
            " Acquisition and forgetting are measured from where a model begins, and"
            " reactivation worsens that; this is where it ends.",
            "nats",
            source=OURS,
        )
    yield _by_entropy(rows, table)


def _by_entropy(rows: Rows, table: Series) -> Claim:
    by_entropy = starts_of(rows, "by entropy")
    # reactivation of equal strength at the same ratios and gains
    equal = [name.replace("by entropy", "reactivated", 1) for name in by_entropy]
    beyond = lambda starts: acquisition_beyond(rows, table, starts)
    return claim(
        "reactivation-by-entropy",
        "Reactivation is better spent where a layer's entropy is lowest, at equal loss.",
        over_seeds(best_elsewhere(beyond(by_entropy) - beyond(equal))),
        "Acquisition above the plain series' at equal nll: strength by measured entropy less"
        f" equal strength, {CELL}.",
        "nats",
        "reactivation",
    )


def _variants(rows: Rows, table: Series) -> Iterator[Claim]:
    make = functools.partial(claim, unit="nats", figure="variants")
    starts = starts_of(rows, "variant")
    if not starts:
        return
    gained, entropy = (acquisition_beyond(rows, table, starts), outcomes(rows, starts, "entropy"))

    for number, name in enumerate(starts):
        slug = name.replace(" ", "-")
        yield make(
            f"{slug}-entropy",
            f"Pretraining with {name} ends with more knowledge entropy.",
            over_seeds(entropy[:, number] - table.entropy[:, -1]),
            f"Knowledge entropy at the end, with {name} less without.",
        )
        yield make(
            f"{slug}-acquisition",
            f"Pretraining with {name} helps to learn new facts, at equal loss.",
            over_seeds(gained[:, number]),
            f"Acquisition at the end with {name}, less that of the plain series where its nll"
            " is the same.",
        )
