"""What the figures of the saturation study share: their points, names, colours and steps."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from altair.typing import Optional

from lmdyn.report.panels import means, point
from lmdyn.studies.claims import where
from lmdyn.types import Rows

SPECTRA_AT = 7
"""Steps whose spectra are drawn."""


def names(rows: Rows) -> list[str]:
    """Models with a full head by their size, the smallest first."""
    size = {r["name"]: (r["parameters"], r["name"]) for r in plain(rows)}
    return sorted(size, key=lambda name: size[name])


def plain(rows: Rows) -> list[Mapping[str, Any]]:
    """The rows of models with a full head."""
    return [r for r in rows if r.get("kind") in ("ladder", "given")]


def points_of(
    rows: Rows,
    metric: str,
    read: Callable[[Mapping[str, Any]], Any] = lambda r: float(r["value"]),
    **wanted: Any,
) -> list[dict[str, Any]]:
    """`name`, `seed`, `step`, `trained`, `value` of the plain models' rows of a metric."""
    return [
        {**point(r, "name", "seed", "step", "trained"), "value": read(r)}
        for r in where(plain(rows), metric, **wanted)
    ]


def by_name(order: Sequence[str]) -> alt.Color:
    """Colour from narrow to wide."""
    scale = alt.Scale(domain=list(order))
    return alt.Color("name:O", sort=list(order), legend=alt.Legend(columns=3), scale=scale)


def averaged(points: Rows, window: int) -> list[dict[str, Any]]:
    """Moving average over `window` measurements of each model's mean over seeds."""
    found = []
    for name in dict.fromkeys(p["name"] for p in points):
        curve = means([p for p in points if p["name"] == name], "step", "trained")
        curve.sort(key=lambda p: p["step"])
        for i, p in enumerate(curve):
            near = curve[max(0, i - window // 2) : i + window // 2 + 1]
            mean = sum(q["value"] for q in near) / len(near)
            found.append({"name": name, **p, "value": mean})
    return found


def mean_of(rows: Rows, field: str) -> float:
    """The mean of a field."""
    return sum(r[field] for r in rows) / len(rows)


def ticks(steps: Sequence[int]) -> list[int]:
    """Every second power of two from the first step on, and the last step."""
    last = max(steps)
    powers = [s for s in (2**i for i in range(int(math.log2(last)) + 1)) if s >= min(steps)]
    return [*powers[::2], last]


def three(order: Sequence[str]) -> list[str]:
    """The first, a middle and the last."""
    return list(order) if len(order) <= 3 else [order[0], order[len(order) // 2], order[-1]]


def some_steps(steps: Collection[int], count: int = SPECTRA_AT) -> list[int]:
    """Steps on a logarithmic grid, the last among them."""
    there = sorted(s for s in steps if s > 0) or sorted(steps)
    if there[0] == 0:
        return sorted(set(there))
    wanted = np.geomspace(there[0], there[-1], count)
    return sorted({min(there, key=lambda s: abs(s - w)) for w in wanted})


def by_step(steps: Sequence[int]) -> Optional[alt.Color]:
    """Colour from early to late; nothing where there is one step."""
    if len(steps) < 2:
        return alt.Undefined
    shown = steps if len(steps) <= 4 else [steps[0], steps[len(steps) // 2], steps[-1]]
    legend = alt.Legend(title="step", titleOrient="left", values=shown, format=",d", columns=4)
    return alt.Color("step:O", sort=steps, legend=legend)
