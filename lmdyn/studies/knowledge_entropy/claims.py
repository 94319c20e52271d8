"""From the rows of the knowledge-entropy study to its claims. Every number here is made of rows, so
it can be made again from them.

Shape letters: S seeds, K checkpoints of the series.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lmdyn import records
from lmdyn.analysis.statistics import Interval, correlation, interval
from lmdyn.studies.claims import Claim, claim
from lmdyn.types import ArrayLike, Row

STUDY, SOURCE, OURS = "knowledge entropy", "Kim et al. 2024", "lmdyn"


class Series(NamedTuple):
    """What was measured from each checkpoint: arrays `[S, K]`.

    `entropy` nats, all layers; `nll` nats, of the old domain; `acquisition` nats; `forgetting` a
    share.
    """

    steps: list[int]
    entropy: np.ndarray
    nll: np.ndarray
    acquisition: np.ndarray
    forgetting: np.ndarray


def _value(rows, metric, **wanted) -> float:
    found = [
        r["value"]
        for r in rows
        if r["metric"] == metric and all(r.get(k) == v for k, v in wanted.items())
    ]
    if len(found) != 1:
        raise ValueError(f"{len(found)} rows of {metric} with {wanted}; one was expected")
    return found[0]


def outcome(rows: Sequence[Row], seed: int, start: str) -> dict[str, float]:
    """What one starting point gave: `entropy`, `nll` (before the lesson), `acquisition`,
    `forgetting`; and where it ended: `new_after`, the new facts' log-probability, and `old_after`,
    the negative of the old domain's nll, both in nats, higher is better.
    """
    own = [
        r
        for r in rows
        if r.get("seed") == seed and r.get("start") == start and r.get("kind") != "pretraining"
    ]
    end = max((r["moment"] for r in own if "moment" in r), default=None)
    return {
        "entropy": _value(own, "knowledge_entropy", layer=None),
        "nll": _value(own, "nll", layer=None),
        "acquisition": _value(own, "acquisition", depth=None),
        "forgetting": _value(own, "forgetting", of="all"),
        "new_after": _value(own, "span_log_probability", depth=None, moment=end),
        "old_after": -_value(own, "old_nll", moment=end),
    }


def seeds(rows: Sequence[Row]) -> list[int]:
    """The seeds of a study's rows."""
    return sorted({r["seed"] for r in rows if "seed" in r})


def series(rows: Sequence[Row]) -> Series:
    """The series of all seeds, checkpoints by step."""
    steps = sorted({r["step"] for r in rows if r.get("kind") == "series"})
    found = [[outcome(rows, seed, f"step {step}") for step in steps] for seed in seeds(rows)]
    return Series(
        steps,
        *(
            np.array([[one[k] for one in line] for line in found])
            for k in ("entropy", "nll", "acquisition", "forgetting")
        ),
    )


def combined(table: Series) -> np.ndarray:
    """`[S, K]`, how good a checkpoint is all in all: the mean of nll, acquisition and retention,
    each put on a scale from 0, the worst of the seed's checkpoints, to 1, the best.
    """
    parts = [-table.nll, table.acquisition, -table.forgetting]
    spread = lambda x: np.ptp(x, axis=1, keepdims=True)
    return np.mean(
        [(x - x.min(1, keepdims=True)) / np.where(spread(x) > 0, spread(x), 1) for x in parts],
        axis=0,
    )


def best_elsewhere(values: ArrayLike) -> np.ndarray | None:
    """`[S]`: for each seed, its value in the column that is best in the *other* seeds; None for one
    seed.

    Choosing the best column on the same numbers would make any column look good; what is chosen
    elsewhere does not.

    >>> best_elsewhere([[1.0, 5.0], [4.0, 2.0], [3.0, 2.0]]).tolist()
    [1.0, 2.0, 2.0]
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return None
    others = (values.sum(0) - values) / (len(values) - 1)
    return values[np.arange(len(values)), others.argmax(1)]


def at_equal_loss(table: Series, column: str, nll: ArrayLike) -> np.ndarray:
    """`[S]`: what the plain series has where its nll is the one given, between its checkpoints;
    beyond them, its nearest checkpoint.

    Args:
      column: `acquisition`, `forgetting` or `entropy`. nll: `[S]`, one a seed.
    """
    values, found = getattr(table, column), []
    for seed, wanted in enumerate(np.asarray(nll)):
        order = np.argsort(table.nll[seed])
        found.append(np.interp(wanted, table.nll[seed][order], values[seed][order]))
    return np.array(found)


def _over(values) -> Interval | None:
    return None if values is None else interval(values)


def _middle(score: np.ndarray) -> np.ndarray | None:
    """By how much the best checkpoint between the first and the last beats the better of these two."""
    inner = best_elsewhere(score[:, 1:-1])
    return None if inner is None else inner - np.maximum(score[:, 0], score[:, -1])


def names(rows: Sequence[Row], kind: str) -> list[str]:
    """Starting points of a kind, in their order."""
    return list(dict.fromkeys(r["start"] for r in rows if r.get("kind") == kind))


def claims(rows: Sequence[Row]) -> list[Claim]:
    """What the study ends in: the paper's sentences, and what is beyond it."""
    table = series(rows)
    make = lambda *args, source=SOURCE: claim(STUDY, source, *args)
    peak = lambda values: (
        None if (best := best_elsewhere(values[:, :-1])) is None else best - values[:, -1]
    )
    score = combined(table)
    retention = -table.forgetting
    lead = (
        "of the earlier checkpoint that is best in the other seeds, less the last checkpoint's;"
        " mean over seeds"
    )
    found = [
        make(
            "entropy-falls",
            "Knowledge entropy falls from its peak as pretraining goes on.",
            _over(peak(table.entropy)),
            "nats",
            "series",
            f"Knowledge entropy {lead}.",
        ),
        make(
            "acquisition-falls",
            "The ability to learn new facts falls as pretraining goes on.",
            _over(peak(table.acquisition)),
            "nats",
            "series",
            f"Rise of new facts' log-probability {lead}.",
        ),
        make(
            "retention-falls",
            "The ability to keep what was known falls as pretraining goes on.",
            _over(peak(retention)),
            "share",
            "series",
            f"Retention, the negative of forgetting, {lead}.",
        ),
        make(
            "entropy-acquisition",
            "Checkpoints with higher knowledge entropy learn more.",
            correlation(table.entropy, table.acquisition),
            "correlation",
            "against-entropy",
            "Pearson's correlation over checkpoints of knowledge entropy and acquisition.",
        ),
        make(
            "entropy-retention",
            "Checkpoints with higher knowledge entropy forget less.",
            correlation(table.entropy, retention),
            "correlation",
            "against-entropy",
            "Pearson's correlation over checkpoints of knowledge entropy and retention.",
        ),
        make(
            "middle-best",
            "A checkpoint from the middle of pretraining is the best to go on from.",
            _over(_middle(score)),
            "score",
            "balance",
            "Combined score (nll, acquisition, retention, each from 0 to 1 over the series) of the"
            " checkpoint between the ends that is best in the other seeds, less the better of the"
            " first and the last.",
        ),
    ]
    found += _reactivation(rows, table, make)
    found += _variants(rows, table, make)
    return found


def _grid(rows, kind, column) -> np.ndarray:
    """`[S, cells]` of one kind of reactivation."""
    return np.array(
        [
            [outcome(rows, seed, start)[column] for start in names(rows, kind)]
            for seed in seeds(rows)
        ]
    )


def _reactivation(rows, table, make) -> list[Claim]:
    if not names(rows, "reactivated"):
        return []
    gained = _grid(rows, "reactivated", "acquisition") - table.acquisition[:, -1:]
    kept = table.forgetting[:, -1:] - _grid(rows, "reactivated", "forgetting")
    random = _grid(rows, "reactivated", "acquisition") - _grid(rows, "random", "acquisition")
    cell = "at the ratio and gain that are best in the other seeds"
    found = [
        make(
            "reactivation-acquisition",
            "Reactivating dormant coefficients of the last checkpoint raises acquisition.",
            _over(best_elsewhere(gained)),
            "nats",
            "reactivation",
            f"Acquisition, reactivated less unchanged, {cell}.",
        ),
        make(
            "reactivation-retention",
            "Reactivating dormant coefficients of the last checkpoint raises retention.",
            _over(best_elsewhere(kept)),
            "share",
            "reactivation",
            f"Forgetting, unchanged less reactivated, {cell}.",
        ),
        make(
            "reactivation-control",
            "Reactivation helps by waking what is dormant: it beats as many coefficients chosen at"
            " random.",
            _over(best_elsewhere(random)),
            "nats",
            "reactivation",
            f"Acquisition, reactivated less random control, {cell}.",
        ),
    ]
    for name, column, what in (("new", "new_after", "new facts"), ("old", "old_after", "old text")):
        plain = np.array(
            [[outcome(rows, seed, f"step {table.steps[-1]}")[column]] for seed in seeds(rows)]
        )
        found.append(
            make(
                f"reactivation-{name}-level",
                f"After the continual training, the reactivated model predicts the {what} better"
                " than the unchanged one.",
                _over(best_elsewhere(_grid(rows, "reactivated", column) - plain)),
                "nats",
                "reactivation",
                f"Log-probability of {what} at the end, reactivated less unchanged, {cell}."
                " Acquisition and forgetting are measured from where a model begins, and"
                " reactivation worsens that; this is where it ends.",
                source=OURS,
            )
        )
    return [
        *found,
        make(
            "reactivation-by-entropy",
            "Reactivation is better spent where a layer's entropy is lowest, at equal loss.",
            _over(
                best_elsewhere(
                    _beyond(rows, table, "by entropy")
                    - _beyond(rows, table, "reactivated", as_in="by entropy")
                )
            ),
            "nats",
            "reactivation",
            "Acquisition above the plain series' at equal nll: strength by measured entropy less"
            f" equal strength, {cell}.",
            source=OURS,
        ),
    ]


def _beyond(rows, table, kind, as_in=None) -> np.ndarray:
    """`[S, starts]`: acquisition of each starting point of a kind above that of the plain series at
    the same nll; `as_in`: only those whose ratio and gain another kind has too.
    """
    starts = names(rows, kind)
    if as_in is not None:
        starts = [kind + name.removeprefix(as_in) for name in names(rows, as_in)]
    found = [[outcome(rows, seed, start) for start in starts] for seed in seeds(rows)]
    column = lambda k: np.array([[one[k] for one in line] for line in found])
    plain = np.stack([at_equal_loss(table, "acquisition", nll) for nll in column("nll").T], axis=1)
    return column("acquisition") - plain


def _variants(rows, table, make) -> list[Claim]:
    found = []
    starts = names(rows, "variant")
    if not starts:
        return found
    gained = _beyond(rows, table, "variant")
    for number, name in enumerate(starts):
        raised = (
            np.array([outcome(rows, seed, name)["entropy"] for seed in seeds(rows)])
            - table.entropy[:, -1]
        )
        slug = name.replace(" ", "-")
        found += [
            make(
                f"{slug}-entropy",
                f"Pretraining with {name} ends with more knowledge entropy.",
                _over(raised),
                "nats",
                "variants",
                f"Knowledge entropy at the end, with {name} less without.",
                source=OURS,
            ),
            make(
                f"{slug}-acquisition",
                f"Pretraining with {name} helps to learn new facts, at equal loss.",
                _over(gained[:, number]),
                "nats",
                "variants",
                f"Acquisition at the end with {name}, less that of the plain series where its nll"
                " is the same.",
                source=OURS,
            ),
        ]
    return found


def summary(rows: Sequence[Row]) -> list[dict]:
    """Rows of what is computed from others: `combined_score` of each checkpoint and seed, and
    `recommended`, the step whose mean score is highest, with the share of single seeds that would
    have chosen it, its lead over the next, and the lead's interval.
    """
    table = series(rows)
    score, found = combined(table), []
    tags: dict[str, Any] = {"kind": "summary"}
    for line, seed in zip(score, seeds(rows), strict=True):
        found += [
            records.row("series", "combined_score", float(v), "score", step=step, seed=seed, **tags)
            for v, step in zip(line, table.steps, strict=True)
        ]
    mean = score.mean(0)
    best, second = np.argsort(-mean)[:2]
    lead = interval(score[:, best] - score[:, second])
    agree = float(np.mean(score.argmax(1) == best))
    about = {
        "agree": agree,
        "next": table.steps[second],
        "lead": lead.mean,
        "low": lead.low,
        "high": lead.high,
    }
    found.append(
        records.row(
            "series",
            "recommended",
            float(table.steps[best]),
            "step",
            step=table.steps[best],
            **about,
            **tags,
        )
    )
    return found
