"""The figure of a scaling law that was fitted to a table of runs: losses with the law, and how far
each model ends from it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from lmdyn.report.figures import Figure
from lmdyn.report.panels import hover, own, panel, tidy, upright
from lmdyn.report.studies import Larger, StudyPage

Rows = Sequence[Mapping[str, Any]]
LINE = 40
"""Points of a law's line."""


def figures(rows: Rows) -> list[Figure]:
    """The figure, where the rows hold a law and its points."""
    law = next((r for r in rows if r["metric"] == "scaling_law"), None)
    points = [r for r in rows if r["metric"] == "scaling_point"]
    return (
        []
        if law is None or not points
        else [_figure(law, points, [r for r in rows if r["metric"] == "scaling_residual"])]
    )


def _figure(law, points, residuals) -> Figure:
    order = [
        r["name"]
        for r in sorted({r["name"]: r for r in points}.values(), key=lambda r: r["parameters"])
    ]
    color = alt.Color(
        "name:O", sort=order, legend=alt.Legend(columns=3), scale=alt.Scale(domain=order)
    )
    shape = alt.Shape(
        "fit:N",
        scale=alt.Scale(domain=["beyond the fit", "in the fit"], range=["circle", "triangle-up"]),
        legend=None,
    )
    said = lambda r: "in the fit" if r["fitted"] else "beyond the fit"
    data = [
        {
            "name": r["name"],
            "trained": r["trained"],
            "value": float(r["value"]),
            "predicted": float(r["predicted"]),
            "fit": said(r),
        }
        for r in points
    ]
    lines = []
    for name in order:
        mine = [r for r in points if r["name"] == name]
        low, high, size = (
            min(r["trained"] for r in mine),
            max(r["trained"] for r in points),
            mine[0]["parameters"],
        )
        for i in range(LINE):
            tokens = low * (high / low) ** (i / (LINE - 1))
            lines.append(
                {
                    "name": name,
                    "trained": tokens,
                    "value": (
                        law["value"] + law["A"] / size ** law["a"] + law["B"] / tokens ** law["b"]
                    ),
                }
            )
    x = alt.X(
        "trained:Q",
        title="training tokens",
        axis=alt.Axis(format="~s", tickCount=4),
        scale=alt.Scale(type="log", nice=False, padding=10),
    )
    y = upright("Loss, nats a token")
    base = alt.Chart().encode(x=x, y=y, color=color)
    tip = [
        alt.Tooltip("name:N"),
        alt.Tooltip("trained:Q", title="tokens", format=".3s"),
        alt.Tooltip("value:Q", title="loss", format=".3f"),
        alt.Tooltip("predicted:Q", format=".3f"),
        alt.Tooltip("fit:N"),
    ]
    curve = own(tidy(lines)).mark_line(style="ceiling").encode(x=x, y=y, color=color)
    charts = [
        panel(
            tidy(data),
            curve,
            base.mark_point(style="dot", size=50).encode(shape=shape),
            hover(base, tip),
            shades=len(order),
            height=260,
        )
    ]
    ends = [
        {
            "name": r["name"],
            "parameters": r["parameters"],
            "value": float(r["value"]),
            "low": float(r.get("low", r["value"])),
            "high": float(r.get("high", r["value"])),
            "fit": said(r),
        }
        for r in residuals
    ]
    x = alt.X(
        "parameters:Q",
        title="parameters",
        axis=alt.Axis(format="~s", tickCount=4),
        scale=alt.Scale(type="log", nice=False, padding=14),
    )
    y = lambda field="value": upright(
        "Last loss above the law's prediction", field, format="+.1%", zero=True
    )
    base = alt.Chart().encode(x=x, y=y(), color=color)
    tip = [
        alt.Tooltip("name:N"),
        alt.Tooltip("value:Q", title="above", format="+.2%"),
        alt.Tooltip("low:Q", format="+.2%"),
        alt.Tooltip("high:Q", format="+.2%"),
    ]
    zero = own([{"value": 0}]).mark_rule(style="zero").encode(y=y())
    bars = alt.Chart().mark_rule(style="seed").encode(x=x, y=y("low"), y2="high:Q", color=color)
    dots = base.mark_point(style="dot", size=60).encode(shape=shape)
    charts.append(
        panel(tidy(ends), zero, bars, dots, hover(base, tip), shades=len(order), height=260)
    )
    caption = (
        f"L(N, T) = {law['value']:.3g} + {law['A']:.3g} / N^{law['a']:.3f} + {law['B']:.3g} /"
        f" T^{law['b']:.3f}, fitted to {law['runs']} runs. Dashed: the law; triangles are in the"
        " fit, circles beyond it. Second panel: the last loss of each model against its"
        " prediction, with 90% intervals that allow for the law's own uncertainty and for scatter"
        " about it."
    )
    return Figure("scaling-law", "Losses and the scaling law", caption, tuple(charts), tidy(data))


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
