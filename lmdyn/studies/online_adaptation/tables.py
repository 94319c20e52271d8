"""The numbers of the study of online adaptation: arrays over replicates and settings.

The replicate is a seed; of a given model, a stream. Shape letters: S replicates, K settings.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmdyn import records
from lmdyn.analysis.statistics import best_elsewhere
from lmdyn.studies.claims import seeds_of, where
from lmdyn.types import ArrayLike, Rows


def table(
    rows: Rows,
    analysis: str,
    field: str = "value",
    metric: str = "online_nll",
    by: Sequence[str] = ("setting",),
    **wanted: Any,
) -> tuple[list, np.ndarray]:
    """One field of all settings of an analysis.

    Args:
      rows: of the study.
      analysis: which.
      field: of the rows.
      metric: of the rows.
      by: what tells columns apart.
      **wanted: fields that rows must have.

    Returns:
      The columns' keys in their order (tuples, or values where `by` is one field), and `[S, K]`;
      only columns that all replicates have.
    """
    own = where(rows, metric, analysis=analysis, **wanted)
    single = len({r.get("seed") for r in own}) == 1 and all(
        r.get("trained") == "given" for r in own
    )
    replicate = (lambda r: r["stream"]) if single else (lambda r: r["seed"])
    key = (lambda r: r.get(by[0])) if len(by) == 1 else (lambda r: tuple(r.get(k) for k in by))
    found: dict = {}
    for r in own:
        found.setdefault(key(r), {}).setdefault(replicate(r), []).append(r[field])
    everyone = list(dict.fromkeys(replicate(r) for r in own))
    keys = [k for k, values in found.items() if set(values) == set(everyone)]
    values = np.array([[np.mean(found[k][one]) for k in keys] for one in everyone])
    return keys, values.reshape(len(everyone), len(keys))


def column(rows: Rows, analysis: str, setting: str | None, **more: Any) -> np.ndarray | None:
    """`[S]` of one setting; None where it was not measured."""
    keys, values = table(rows, analysis, **more)
    return values[:, keys.index(setting)] if setting in keys else None


def gain(rows: Rows, analysis: str, setting: str | None, **wanted: Any) -> np.ndarray | None:
    """`[S]`: static nll less online nll of the same predictions."""
    online = column(rows, analysis, setting, **wanted)
    return less(column(rows, analysis, setting, field="static", **wanted), online)


def less(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    """The difference; None where one of the two was not measured."""
    return None if first is None or second is None else first - second


def streams(rows: Rows) -> list[str]:
    """The streams of the table of rules, the one like home first."""
    own = where(rows, "online_nll", analysis="rules")
    return list(dict.fromkeys(r["stream"] for r in own))


def main_rule(rows: Rows) -> str | None:
    """The rule of everything else: that of the low-rank setting."""
    own = where(rows, "online_nll", analysis="rules", setting="low-rank")
    return own[0]["rule"] if own else None


def at_most(flops: ArrayLike, values: ArrayLike, budget: float) -> np.ndarray | None:
    """`[S]`: of the columns within a budget, the one that is best in the other replicates.

    None if there is none.

    Args:
      flops: `[K]`.
      values: `[S, K]` nats.
      budget: the most that a column may cost.

    >>> at_most([1.0, 2.0, 9.0], [[3.0, 2.0, 0.0], [3.0, 2.5, 0.0]], budget=5.0).tolist()
    [2.0, 2.5]
    """
    within = np.flatnonzero(np.asarray(flops) <= budget)
    if not len(within):
        return None
    chosen = best_elsewhere(-np.asarray(values)[:, within])
    return None if chosen is None else -chosen


def summary(rows: Rows) -> list[dict]:
    """Rows `recommended`, one per seed.

    The checkpoint with the most knowledge entropy (of those that adaptation was tried from),
    and its `lead`: how much lower its online nll on the last stream is than that of the last
    checkpoint.
    """
    made, own = [], [r for r in rows if r.get("analysis") == "checkpoints"]
    for seed in seeds_of(own):
        entropy = {r["step"]: r["value"] for r in where(own, "knowledge_entropy", seed=seed)}
        far = where(own, "online_nll", seed=seed)
        reached = {r["step"]: r["value"] for r in far if r["stream"] == far[-1]["stream"]}
        best, last = max(entropy, key=lambda step: entropy[step]), max(entropy)
        about = {"step": best, "seed": seed, "analysis": "checkpoints"}
        about |= {"lead": reached[last] - reached[best], "entropy": entropy[best]}
        about["last_entropy"] = entropy[last]
        made.append(records.row("recommended", float(best), "step", model="series", **about))
    return made
