"""The outcomes of starting points that the knowledge-entropy study's figures are drawn from."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmdyn.types import Rows

REACTIVATIONS = ("reactivated", "by entropy", "random")


def outcomes(rows: Rows) -> list[dict[str, Any]]:
    """What each starting point gave, a dict for each that has all of it.

    `seed, start, kind, step, ratio, gain, entropy` (nats), `share` (of the ceiling), `nll`,
    `acquisition`, `forgetting`.
    """
    wanted = {
        ("knowledge_entropy", None, None): "entropy",
        ("nll", None, None): "nll",
        ("acquisition", None, None): "acquisition",
        ("forgetting", None, "all"): "forgetting",
    }
    found: dict[tuple, dict] = {}
    for r in rows:
        if r.get("kind") in (None, "pretraining", "summary") or r["layer"] is not None:
            continue
        name = wanted.get((r["metric"], r.get("depth"), r.get("of")))
        if name is None:
            continue
        about = {k: r.get(k) for k in ("seed", "start", "kind", "step", "ratio", "gain")}
        one = found.setdefault((r["seed"], r["start"]), about)
        one[name] = float(r["value"])
        if name == "entropy" and r.get("normalized") is not None:
            one["share"] = float(r["normalized"])
    return [one for one in found.values() if {*wanted.values(), "share"} <= one.keys()]


def of_series(rows: Rows) -> list[dict[str, Any]]:
    """The outcomes of the series' checkpoints, by seed and step."""
    return sorted(
        (one for one in outcomes(rows) if one["kind"] == "series"),
        key=lambda one: (one["seed"], one["step"]),
    )


def last_of(found: Rows) -> dict[int, Mapping[str, Any]]:
    """The last checkpoint of each seed's series."""
    series = [one for one in found if one["kind"] == "series"]
    return {one["seed"]: one for one in sorted(series, key=lambda one: one["step"])}


def points_of(found: Rows, name: str, *more: str) -> list[dict[str, Any]]:
    """Points of one outcome over the steps: `step`, `seed`, `value`, and other fields."""
    return [
        {"step": one["step"], "seed": one["seed"], "value": one[name], **{k: one[k] for k in more}}
        for one in found
    ]


def some(values: Sequence, most: int) -> list:
    """All of up to `most` values, else five of them, spread evenly.

    >>> some(range(3), 7), some(range(9), 7)
    ([0, 1, 2], [0, 2, 4, 6, 8])
    """
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / 4)] for i in range(5)]


def seeds_caption(found: Rows, one: str = "Thin", mean: str = "thick") -> str:
    """The part of a caption that says which lines or points are seeds."""
    count = len({p["seed"] for p in found})
    return "One seed." if count == 1 else f"{one}: each of {count} seeds; {mean}: their mean."
