"""The numbers of the knowledge-entropy study that are made of rows.

What each starting point gave, as arrays over seeds and checkpoints, and the combined score.

Shape letters: S seeds, K checkpoints of the series.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lmdyn import records
from lmdyn.analysis.statistics import interval
from lmdyn.studies.claims import seeds_of, where
from lmdyn.types import ArrayLike, Rows


class Series(NamedTuple):
    """What was measured from each checkpoint: arrays `[S, K]`.

    Attributes:
      steps: of the checkpoints.
      entropy: knowledge entropy of all layers, nats.
      nll: of the old domain, nats per token.
      acquisition: rise of new facts' log-probability, nats.
      forgetting: a share.
    """

    steps: list[int]
    entropy: np.ndarray
    nll: np.ndarray
    acquisition: np.ndarray
    forgetting: np.ndarray


def _value(rows, metric, **wanted) -> float:
    found = [r["value"] for r in where(rows, metric, **wanted)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} rows of {metric} with {wanted}; one was expected")
    return found[0]


def outcome(rows: Rows, seed: int, start: str) -> dict[str, float]:
    """What one starting point gave, and where it ended.

    `entropy`, `nll` (before the continual training), `acquisition`, `forgetting`; `new_after`,
    the new facts' log-probability at the end, and `old_after`, the negative of the old domain's
    nll there, both in nats, higher is better.
    """
    own = [
        r
        for r in rows
        if r.get("seed") == seed and r.get("start") == start and r.get("kind") != "pretraining"
    ]
    end = max((r["update"] for r in own if "update" in r), default=None)
    return {
        "entropy": _value(own, "knowledge_entropy", layer=None),
        "nll": _value(own, "nll", layer=None),
        "acquisition": _value(own, "acquisition", depth=None),
        "forgetting": _value(own, "forgetting", of="all"),
        "new_after": _value(own, "span_log_probability", depth=None, update=end),
        "old_after": -_value(own, "old_nll", update=end),
    }


def outcomes(rows: Rows, starts: Sequence[str], column: str) -> np.ndarray:
    """One number of `outcome`, `[S, starts]`."""
    return np.array(
        [[outcome(rows, seed, start)[column] for start in starts] for seed in seeds_of(rows)]
    )


def series(rows: Rows) -> Series:
    """The series of all seeds, checkpoints by step."""
    steps = sorted({r["step"] for r in rows if r.get("kind") == "series"})
    found = [[outcome(rows, seed, f"step {step}") for step in steps] for seed in seeds_of(rows)]
    return Series(
        steps,
        *(
            np.array([[one[k] for one in line] for line in found])
            for k in ("entropy", "nll", "acquisition", "forgetting")
        ),
    )


def starts_of(rows: Rows, kind: str) -> list[str]:
    """Starting points of a kind, in their order."""
    return list(dict.fromkeys(r["start"] for r in rows if r.get("kind") == kind))


def combined(table: Series) -> np.ndarray:
    """`[S, K]`, how good a checkpoint is all in all.

    The mean of nll, acquisition and retention, each put on a scale from 0, the worst of the
    seed's checkpoints, to 1, the best.
    """
    parts = [-table.nll, table.acquisition, -table.forgetting]
    spread = lambda x: np.ptp(x, axis=1, keepdims=True)
    return np.mean(
        [(x - x.min(1, keepdims=True)) / np.where(spread(x) > 0, spread(x), 1) for x in parts],
        axis=0,
    )


def at_equal_loss(table: Series, column: str, nll: ArrayLike) -> np.ndarray:
    """`[S]`: what the plain series has where its nll is the one given.

    Between its checkpoints by straight lines; beyond them, its nearest checkpoint.

    Args:
      table: the plain series.
      column: `acquisition`, `forgetting` or `entropy`.
      nll: `[S]`, one per seed.
    """
    values, found = getattr(table, column), []
    for seed, wanted in enumerate(np.asarray(nll)):
        order = np.argsort(table.nll[seed])
        found.append(np.interp(wanted, table.nll[seed][order], values[seed][order]))
    return np.array(found)


def acquisition_beyond(rows: Rows, table: Series, starts: Sequence[str]) -> np.ndarray:
    """`[S, starts]`: acquisition above that of the plain series at the same nll."""
    nll, acquisition = (outcomes(rows, starts, column) for column in ("nll", "acquisition"))
    plain = np.stack([at_equal_loss(table, "acquisition", one) for one in nll.T], axis=1)
    return acquisition - plain


def summary(rows: Rows) -> list[dict]:
    """Rows of what is computed from others.

    `combined_score` of each checkpoint and seed, and `recommended`, the step whose mean score
    is highest, with the share of single seeds that would have chosen it, its lead over the
    next, and the lead's interval.
    """
    table = series(rows)
    score, found = combined(table), []
    tags: dict[str, Any] = {"kind": "summary"}
    for line, seed in zip(score, seeds_of(rows), strict=True):
        found += [
            records.row("combined_score", v, "score", model="series", step=step, seed=seed, **tags)
            for v, step in zip(line, table.steps, strict=True)
        ]
    mean = score.mean(0)
    best, second = np.argsort(-mean)[:2]
    lead = interval(score[:, best] - score[:, second])
    about = {"agree": float(np.mean(score.argmax(1) == best)), "next": table.steps[second]}
    about |= {"lead": lead.mean, "low": lead.low, "high": lead.high}
    step = table.steps[best]
    found.append(
        records.row("recommended", float(step), "step", model="series", step=step, **about, **tags)
    )
    return found
