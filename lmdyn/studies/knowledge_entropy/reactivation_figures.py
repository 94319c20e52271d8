"""The figures of the knowledge-entropy study on reactivation, and on other ways to pretrain."""

import altair as alt
import numpy as np

from lmdyn.report import panels
from lmdyn.report.figures import Figure
from lmdyn.report.panels import hover, level, means, own, panel, tidy, upright
from lmdyn.studies.knowledge_entropy.figure_data import (
    REACTIVATIONS,
    Rows,
    last_of,
    outcomes,
    seeds_caption,
)


def reactivation(rows: Rows) -> Figure | None:
    """What reactivating the last checkpoint changes, by ratio and gain, beside its control."""
    found = outcomes(rows)
    plain = last_of(found)
    points = []
    for one in found:
        if one["kind"] in REACTIVATIONS and one["seed"] in plain:
            cell, base = f"ratio {one['ratio']:g}, gain {one['gain']:g}", plain[one["seed"]]
            points.append(
                {
                    **one,
                    "name": cell,
                    "plain acquisition": base["acquisition"],
                    "plain forgetting": base["forgetting"],
                }
            )
    if not points:
        return None
    points.sort(key=lambda p: (p["ratio"], p["gain"]))
    order = list(dict.fromkeys(p["name"] for p in points))
    charts = tuple(
        panels.dots(
            [
                {
                    "name": p["name"],
                    "kind": p["kind"],
                    "seed": p["seed"],
                    "value": p[field] - p[f"plain {field}"],
                    field: p[field],
                }
                for p in points
            ],
            f"{field.capitalize()}, reactivated less unchanged{unit}",
            order=order,
            kinds=REACTIVATIONS,
            format=format,
            more={field: format.lstrip("+")},
        )
        for field, unit, format in (("acquisition", ", nats", "+.3f"), ("forgetting", "", "+.1%"))
    )
    level = {
        k: float(np.mean([p[k] for p in plain.values()])) for k in ("acquisition", "forgetting")
    }
    caption = (
        "The last checkpoint with dormant coefficients woken before the same lesson, less the same"
        f" checkpoint unchanged (the line at 0: acquisition {level['acquisition']:.3f} nats,"
        f" forgetting {level['forgetting']:.1%}). By entropy: each layer as much as its entropy is"
        " low. Random: as many coefficients, chosen at random."
        f" {seeds_caption(points, 'Small', 'large')} Further right, more is learnt in the first"
        " panel, and more forgotten in the second."
    ).replace(" -", " \u2212")
    data = [
        {
            k: p[k]
            for k in (
                "seed",
                "kind",
                "ratio",
                "gain",
                "nll",
                "share",
                "acquisition",
                "forgetting",
                "plain acquisition",
                "plain forgetting",
            )
        }
        for p in points
    ]
    levels = [{**m, "name": "unchanged"} for m in means(list(plain.values()), "kind")]
    levels += [{**m, "name": f"{m['kind']}: {m['name']}"} for m in means(points, "kind", "name")]
    table = [
        {
            "last checkpoint": m["name"],
            "knowledge entropy, share": f"{m['share']:.1%}",
            "nll, nats": f"{m['nll']:.3f}",
            "acquisition, nats": f"{m['acquisition']:.3f}",
            "forgetting": f"{m['forgetting']:.1%}",
        }
        for m in levels
    ]
    return Figure(
        "reactivation", "Reactivating the last checkpoint", caption, charts, tidy(data), table
    )


def variants(rows: Rows) -> Figure | None:
    """Acquisition against nll.

    Whoever is above the line of the plain series learns more at the same loss.
    """
    found = outcomes(rows)
    line = [one for one in found if one["kind"] == "series"]
    ends = [one for one in found if one["kind"] in ("variant", "reactivated", "by entropy")]
    if not line or not ends:
        return None
    points = []
    for one in ends:
        own_line = sorted((o["nll"], o["acquisition"]) for o in line if o["seed"] == one["seed"])
        at = float(
            np.interp(one["nll"], [nll for nll, _ in own_line], [value for _, value in own_line])
        )
        name = (
            one["start"]
            if one["kind"] == "variant"
            else f"{one['kind']}: ratio {one['ratio']:g}, gain {one['gain']:g}"
        )
        points.append(
            {
                "name": name,
                "group": one["start"] if one["kind"] == "variant" else one["kind"],
                "seed": one["seed"],
                "nll": one["nll"],
                "acquisition": one["acquisition"],
                "value": one["acquisition"] - at,
            }
        )
    order = list(
        dict.fromkeys(p["name"] for p in sorted(points, key=lambda p: p["group"] in REACTIVATIONS))
    )
    groups = list(
        dict.fromkeys(p["group"] for p in sorted(points, key=lambda p: p["group"] in REACTIVATIONS))
    )
    charts = (
        _plane(line, points, groups),
        panels.dots(
            points,
            "Acquisition above the plain series at the same nll, nats",
            order=order,
            format="+.3f",
            more={"acquisition": ".3f", "nll": ".3f"},
        ),
    )
    caption = (
        "First: acquisition against nll of the old domain before the lesson, means over seeds; the"
        " line is the plain series, checkpoint by checkpoint, and what is above it learns more at"
        " the same loss. Second: how far above, each seed against its own line."
        f" {seeds_caption(points, 'Small', 'large')} Beyond the ends of the line its nearest"
        " checkpoint is taken."
    )
    data = [
        {
            "seed": o["seed"],
            "name": f"step {o['step']}",
            "nll": o["nll"],
            "acquisition": o["acquisition"],
        }
        for o in line
    ]
    data += [
        {
            "seed": p["seed"],
            "name": p["name"],
            "nll": p["nll"],
            "acquisition": p["acquisition"],
            "above": p["value"],
        }
        for p in points
    ]
    return Figure("variants", "Learning at equal loss", caption, charts, tidy(data))


def _plane(line, points, groups):
    plain = [
        {"name": f"step {m['step']:,}", **m}
        for m in means(sorted(line, key=lambda o: o["step"]), "step")
    ]
    x = level("nll of the old domain, nats per token", "nll")
    y = upright("Acquisition, nats", "acquisition")
    tip = [
        alt.Tooltip("name:N"),
        alt.Tooltip("nll:Q", format=".3f"),
        alt.Tooltip("acquisition:Q", format=".3f"),
    ]
    series = own(plain).encode(x=x, y=y)
    color = alt.Color("group:N", scale=alt.Scale(domain=groups), legend=alt.Legend(columns=2))
    shape = alt.Shape("group:N", scale=alt.Scale(domain=groups))
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
