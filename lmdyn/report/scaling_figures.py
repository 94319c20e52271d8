"""The figure of a scaling law that was fitted to a table of runs.

Losses with the law, and how far each model ends from it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from lmdyn.report.figures import Figure
from lmdyn.report.panels import across, hover, own, panel, point, tidy, upright
from lmdyn.report.studies import Larger, StudyPage

Row = Mapping[str, Any]
Rows = Sequence[Row]
LINE = 40
"""Points of a law's line."""


def figures(rows: Rows) -> list[Figure]:
    """The figure, where the rows hold a law and its points."""
    law = next((r for r in rows if r["metric"] == "scaling_law"), None)
    points = [r for r in rows if r["metric"] == "scaling_point"]
    if law is None or not points:
        return []
    return [_figure(law, points, [r for r in rows if r["metric"] == "scaling_residual"])]


def _figure(law: Row, points: Rows, residuals: Rows) -> Figure:
    by_size = sorted({r["name"]: r for r in points}.values(), key=lambda r: r["parameters"])
    order = [r["name"] for r in by_size]
    scale, legend = alt.Scale(domain=order), alt.Legend(columns=3)
    color = alt.Color("name:O", sort=order, legend=legend, scale=scale)
    told = lambda r: {"predicted": float(r["predicted"]), "fit": _fit(r)}
    data = [point(r, "name", "trained", **told(r)) for r in points]
    curves = [p for name in order for p in _curve(law, name, points)]
    charts = (_losses(data, curves, color), _residuals(residuals, color, len(order)))
    caption = (
        f"L(N, T) = {law['value']:.3g} + {law['A']:.3g} / N^{law['a']:.3f} + {law['B']:.3g} /"
        f" T^{law['b']:.3f} in nats per token, fitted to {law['runs']} runs. Dashed: the law;"
        " triangles are in the fit, circles beyond it. Second panel: the last loss of each model"
        " against its prediction, with 90% intervals that allow for the law's own uncertainty and"
        " for scatter about it; a model above the line at 0 ends worse than the law expects."
    )
    return Figure("scaling-law", "Losses and the scaling law", caption, charts, tidy(data))


def _fit(row: Row) -> str:
    return "in the fit" if row["fitted"] else "beyond the fit"


SHAPE = alt.Shape(
    "fit:N",
    scale=alt.Scale(domain=["beyond the fit", "in the fit"], range=["circle", "triangle-up"]),
    legend=None,
)


def _curve(law: Row, name: str, points: Rows) -> list[dict[str, Any]]:
    """The law's line for one size, from its fewest tokens to the most of any size."""
    mine = [r for r in points if r["name"] == name]
    size, low = mine[0]["parameters"], min(r["trained"] for r in mine)
    high = max(r["trained"] for r in points)
    tokens = [low * (high / low) ** (i / (LINE - 1)) for i in range(LINE)]
    floor = law["value"] + law["A"] / size ** law["a"]
    return [{"name": name, "trained": t, "value": floor + law["B"] / t ** law["b"]} for t in tokens]


def _losses(data: Rows, curves: Rows, color: alt.Color) -> alt.TopLevelMixin:
    """Losses over training tokens, a colour per size, and the law."""
    x = across("trained:Q", "training tokens", "~s", type="log", padding=10)
    y = upright("Loss, nats per token")
    base = alt.Chart().encode(x=x, y=y, color=color)
    tip = ["name:N", "tokens = trained:Q .3s", "loss = value:Q .3f", "predicted:Q .3f", "fit:N"]
    curve = own(tidy(curves)).mark_line(style="ceiling").encode(x=x, y=y, color=color)
    dots = base.mark_point(style="dot", size=50).encode(shape=SHAPE)
    shades = len({d["name"] for d in data})
    return panel(tidy(data), curve, dots, hover(base, tip), shades=shades, height=260)


def _residuals(rows: Rows, color: alt.Color, shades: int) -> alt.TopLevelMixin:
    """How far the last loss of each size lies above the law's prediction, with its interval."""
    ends = [
        point(r, "name", "parameters")
        | {end: float(r.get(end, r["value"])) for end in ("low", "high")}
        | {"fit": _fit(r)}
        for r in rows
    ]
    x = across("parameters:Q", "parameters", "~s", type="log", padding=14)
    title = "Last loss above the law's prediction"
    y = lambda field="value": upright(title, field, format="+.1%", zero=True)
    base = alt.Chart().encode(x=x, y=y(), color=color)
    tip = ["name:N", "above = value:Q +.2%", "low:Q +.2%", "high:Q +.2%"]
    zero = own([{"value": 0}]).mark_rule(style="zero").encode(y=y())
    bars = alt.Chart().mark_rule(style="seed").encode(x=x, y=y("low"), y2="high:Q", color=color)
    dots = base.mark_point(style="dot", size=60).encode(shape=SHAPE)
    return panel(tidy(ends), zero, bars, dots, hover(base, tip), shades=shades, height=260)


PAGE = StudyPage(
    "Scaling law",
    "What loss does a law of size and tokens expect, and how far from it does each model end?",
    "Hoffmann et al. 2022, arXiv 2203.15556, as Godey et al. 2024 use it",
    "",
    figures,
    (
        Larger(
            "More runs in the table: each line of it is a checkpoint; three sizes or more, over a"
            " factor of ten, make a law."
        ),
    ),
)
"""What `lmdyn scaling` adds to a page, found by this module's name in the rows' provenance."""
