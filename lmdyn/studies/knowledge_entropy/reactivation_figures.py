"""The figures of the knowledge-entropy study on reactivation, and on other ways to pretrain."""

from typing import Any

import altair as alt
import numpy as np

from lmdyn.report.figures import Figure
from lmdyn.report.panels import dots, hover, hues, level, means, own, panel, tidy, upright
from lmdyn.studies.knowledge_entropy.figure_data import (
    REACTIVATIONS,
    last_of,
    outcomes,
    seeds_caption,
)
from lmdyn.types import Rows

MEASURES = (("acquisition", ", nats", "+.3f"), ("forgetting", "", "+.1%"))
"""What is compared: its name, unit and format."""


def reactivation(rows: Rows) -> Figure | None:
    """What reactivating the last checkpoint changes, by ratio and gain, beside its control."""
    found = outcomes(rows)
    plain = last_of(found)
    points = [
        {**one, "name": f"ratio {one['ratio']:g}, gain {one['gain']:g}"}
        | {f"plain {field}": plain[one["seed"]][field] for field, *_ in MEASURES}
        for one in found
        if one["kind"] in REACTIVATIONS and one["seed"] in plain
    ]
    if not points:
        return None
    points.sort(key=lambda p: (p["ratio"], p["gain"]))
    order = list(dict.fromkeys(p["name"] for p in points))
    charts = []
    for field, unit, format in MEASURES:
        less = [{**p, "value": p[field] - p[f"plain {field}"]} for p in points]
        shown = [{k: p[k] for k in ("name", "kind", "seed", field, "value")} for p in less]
        title = f"{field.capitalize()}, reactivated less unchanged{unit}"
        how = {"format": format, "more": {field: format.lstrip("+")}}
        charts.append(dots(shown, title, order=order, kinds=REACTIVATIONS, **how))
    before = {field: float(np.mean([p[field] for p in plain.values()])) for field, *_ in MEASURES}
    caption = (
        "The last checkpoint with dormant coefficients reactivated before the same continual"
        " training, less the same checkpoint unchanged (the line at 0: acquisition"
        f" {before['acquisition']:.3f} nats, forgetting {before['forgetting']:.1%}). By entropy:"
        " each layer as much as its entropy is low. Random: as many coefficients, chosen at random."
        f" {seeds_caption(points, 'Small', 'large')} Further right, more is learnt in the first"
        " panel, and more forgotten in the second."
    ).replace(" -", " \u2212")
    fields = ("seed", "kind", "ratio", "gain", "nll", "share", "acquisition", "forgetting")
    fields += ("plain acquisition", "plain forgetting")
    data = [{k: p[k] for k in fields} for p in points]
    title = "Reactivating the last checkpoint"
    return Figure("reactivation", title, caption, tuple(charts), tidy(data), _table(plain, points))


def _table(plain, points) -> list[dict[str, str]]:
    """Means over seeds of the last checkpoint, unchanged and reactivated, as one reads them."""
    levels = [{**m, "name": "unchanged"} for m in means(list(plain.values()), "kind")]
    levels += [{**m, "name": f"{m['kind']}: {m['name']}"} for m in means(points, "kind", "name")]
    return [
        {
            "last checkpoint": m["name"],
            "knowledge entropy, share": f"{m['share']:.1%}",
            "nll, nats": f"{m['nll']:.3f}",
            "acquisition, nats": f"{m['acquisition']:.3f}",
            "forgetting": f"{m['forgetting']:.1%}",
        }
        for m in levels
    ]


def variants(rows: Rows) -> Figure | None:
    """Acquisition against nll.

    Whoever is above the line of the plain series learns more at the same loss.
    """
    found = outcomes(rows)
    line = [one for one in found if one["kind"] == "series"]
    kinds = ("variant", "reactivated", "by entropy")
    points = [_above_line(one, line) for one in found if one["kind"] in kinds]
    if not line or not points:
        return None
    ordered = sorted(points, key=lambda p: p["group"] in REACTIVATIONS)
    charts = (
        _plane(line, points, list(dict.fromkeys(p["group"] for p in ordered))),
        dots(
            points,
            "Acquisition above the plain series at the same nll, nats",
            order=list(dict.fromkeys(p["name"] for p in ordered)),
            format="+.3f",
            more={"acquisition": ".3f", "nll": ".3f"},
        ),
    )
    caption = (
        "First: acquisition (nats) against nll of the old domain (nats per token) before the"
        " continual training, means over seeds; the line is the plain series, checkpoint by"
        " checkpoint, and what is above it learns more at the same loss. Second: how far above,"
        f" each seed against its own line. {seeds_caption(points, 'Small', 'large')} Beyond the"
        " ends of the line its nearest checkpoint is taken."
    )
    pick = lambda one: {k: one[k] for k in ("seed", "nll", "acquisition")}
    data = [{**pick(one), "name": f"step {one['step']}"} for one in line]
    data += [{**pick(p), "name": p["name"], "above": p["value"]} for p in points]
    return Figure("variants", "Learning at equal loss", caption, charts, tidy(data))


def _above_line(one, line) -> dict[str, Any]:
    """A starting point, with its acquisition above that of its seed's series at the same nll."""
    own_line = sorted((o["nll"], o["acquisition"]) for o in line if o["seed"] == one["seed"])
    nll, acquisition = zip(*own_line, strict=True) if own_line else ((one["nll"],), (0.0,))
    cell = "" if one["kind"] == "variant" else f"ratio {one['ratio']:g}, gain {one['gain']:g}"
    return {
        "name": f"{one['kind']}: {cell}" if cell else one["start"],
        "group": one["kind"] if cell else one["start"],
        **{k: one[k] for k in ("seed", "nll", "acquisition")},
        "value": one["acquisition"] - float(np.interp(one["nll"], nll, acquisition)),
    }


def _plane(line, points, groups):
    steps = means(sorted(line, key=lambda one: one["step"]), "step")
    plain = [{"name": f"step {m['step']:,}", **m} for m in steps]
    x = level("nll of the old domain, nats per token", "nll")
    y = upright("Acquisition, nats", "acquisition")
    tip = ["name:N", "nll:Q .3f", "acquisition:Q .3f"]
    series = own(plain).encode(x=x, y=y)
    color, shape = hues("group:N", groups), alt.Shape("group:N", scale=alt.Scale(domain=groups))
    base = alt.Chart().encode(x=x, y=y)
    return panel(
        means(points, "name", "group"),
        series.mark_line(style="plain").encode(order="step:Q"),
        series.mark_point(style="plain-dot"),
        base.mark_point(style="dot", size=80).encode(color=color, shape=shape),
        hover(series, tip),
        hover(base, tip),
        height=260,
    )
