"""The figures of the knowledge-entropy study: Kim et al. 2024, figures 2 to 6, with seeds.

Each function takes rows and gives a `Figure`, or None where the rows hold nothing for it. Those on
the series are here, those on reactivation and variants in `reactivation_figures`.
"""

from typing import Any

import altair as alt

from lmdyn.report import panels
from lmdyn.report.figures import Figure, rounded
from lmdyn.studies.injected_facts_figures import over_updates
from lmdyn.studies.knowledge_entropy.figure_data import of_series, points_of, seeds_caption
from lmdyn.studies.knowledge_entropy.reactivation_figures import reactivation, variants
from lmdyn.types import Rows


def figures(rows: Rows) -> list[Figure]:
    """Every figure that the rows have something for, in the order of the page."""
    made = (series, by_layer, against_entropy, learning, balance, reactivation, variants, controls)
    return [figure for make in made if (figure := make(rows)) is not None]


def _watched(rows, metric, column) -> list[dict[str, Any]]:
    """What plain pretraining was watched for, by seed and step."""
    return [
        {"step": r["step"], "seed": r["seed"], "value": float(r[column])}
        for r in rows
        if r.get("kind") == "pretraining"
        and r.get("start") == "plain"
        and r["metric"] == metric
        and r["layer"] is None
        and column in r
    ]


def series(rows: Rows) -> Figure | None:
    """Entropy, nll, acquisition and forgetting over the steps of the series."""
    found = of_series(rows)
    if not found:
        return None
    watched = {
        m: _watched(rows, m, c) for m, c in (("knowledge_entropy", "normalized"), ("nll", "value"))
    }
    steps = sorted({one["step"] for one in found})
    x = panels.step_axis(
        sorted({*steps, *(p["step"] for points in watched.values() for p in points)}), steps
    )
    charts = (
        panels.over_steps(
            points_of(found, "share", "entropy"),
            "Knowledge entropy, share of its ceiling",
            x=x,
            format=".1%",
            more={"entropy": ".3f"},
            behind=watched["knowledge_entropy"],
        ),
        panels.over_steps(
            points_of(found, "nll"),
            "Nll of the old domain, nats per token",
            x=x,
            behind=watched["nll"],
        ),
        panels.over_steps(
            points_of(found, "acquisition"),
            "Acquisition: rise of new facts' log-probability, nats",
            x=x,
        ),
        panels.over_steps(
            points_of(found, "forgetting"),
            "Forgetting: relative loss of what was known",
            x=x,
            format=".1%",
            zero=True,
        ),
    )
    pale = (
        " Pale: measured during pretraining, from its first step." if any(watched.values()) else ""
    )
    caption = (
        "What each checkpoint of the series is, and what the same continual training then does to"
        " it: how much of the new facts it takes up (nats), and how much of the old it loses"
        " (share). Look at where each curve turns."
        f" {seeds_caption(found)}{pale}"
    )
    fields = ("seed", "step", "entropy", "share", "nll", "acquisition", "forgetting")
    data = panels.tidy([{k: one[k] for k in fields} for one in found])
    title = "From each checkpoint, the same continual training"
    return Figure("series", title, caption, charts, data, _table(found))


def _table(found):
    """Means over seeds by step, as one reads them."""
    return [
        {
            "step": f"{m['step']:,}",
            "knowledge entropy, nats": f"{m['entropy']:.2f}",
            "share of the ceiling": f"{m['share']:.1%}",
            "nll, nats": f"{m['nll']:.3f}",
            "acquisition, nats": f"{m['acquisition']:.3f}",
            "forgetting": f"{m['forgetting']:.1%}",
        }
        for m in panels.means(sorted(found, key=lambda one: one["step"]), "step")
    ]


def by_layer(rows: Rows) -> Figure | None:
    """Knowledge entropy of each layer over the steps of the series."""
    points = [
        {
            "layer": r["layer"],
            "step": r["step"],
            "seed": r["seed"],
            "value": float(r["normalized"]),
            "nats": float(r["value"]),
        }
        for r in rows
        if r.get("kind") == "series"
        and r["metric"] == "knowledge_entropy"
        and r["layer"] is not None
        and "normalized" in r
    ]
    if not points:
        return None
    points.sort(key=lambda p: (p["layer"], p["step"], p["seed"]))
    layers = sorted({p["layer"] for p in points})
    mean = panels.means_with_seeds(points, ["layer", "step"], format=".1%")
    legend = (
        layers if len(layers) <= 8 else [layers[round(i * (len(layers) - 1) / 4)] for i in range(5)]
    )
    x = panels.step_axis(sorted({p["step"] for p in points}))
    color = alt.Color(
        "layer:O", legend=alt.Legend(title="layer", titleOrient="left", values=legend)
    )
    base = alt.Chart().encode(
        x=x, y=panels.upright("Knowledge entropy, share of its ceiling", format="%"), color=color
    )
    tip = [
        "layer:O",
        "step:Q ,d",
        "share of the ceiling = value:Q .1%",
        "nats:Q .3f",
        "seeds = each:N",
    ]
    chart = panels.panel(mean, *panels.joined(base, tip), height=260, shades=len(layers))
    caption = (
        "How evenly each layer's MLP spreads its coefficients over its memory vectors, as a share"
        " of the largest entropy there can be, log F; layer 0 is next to the embedding. Mean over"
        " seeds. A line that falls draws on fewer memories."
    )
    return Figure(
        "entropy-by-layer", "Knowledge entropy by layer", caption, chart, panels.tidy(points)
    )


def against_entropy(rows: Rows) -> Figure | None:
    """Acquisition and forgetting against knowledge entropy: the paper's figure.

    A point for each checkpoint and seed.
    """
    found = of_series(rows)
    if not found:
        return None
    data = panels.tidy(
        [
            {k: one[k] for k in ("seed", "step", "entropy", "share", "acquisition", "forgetting")}
            for one in found
        ]
    )
    steps = sorted({one["step"] for one in found})
    charts = []
    for field, title, format in (
        ("acquisition", "Acquisition, nats", ".3f"),
        ("forgetting", "Forgetting", ".1%"),
    ):
        x = panels.level("knowledge entropy, share of its ceiling", "share", "%")
        y = panels.upright(title, field, format="%" if format.endswith("%") else None)
        base = alt.Chart().encode(x=x, y=y)
        color = alt.Color("step:O", sort=steps, legend=_step_legend(steps))
        tip = [
            "step:Q ,d",
            "seed:N",
            "share of the ceiling = share:Q .1%",
            "nats = entropy:Q .3f",
            f"{field}:Q {format}",
        ]
        charts.append(
            panels.panel(
                data,
                base.mark_line(style="seed").encode(detail="seed:N", order="step:Q"),
                base.mark_point(style="dot", size=60).encode(color=color),
                panels.hover(base, tip),
                height=260,
                shades=len(steps),
            )
        )
    caption = (
        "A point is a checkpoint of one seed, faint where pretraining had just begun; the line"
        " joins the checkpoints of a seed in their order. Acquisition in nats per"
        " token, entropy and forgetting as shares. The paper finds that both acquisition and"
        " retention fall with entropy."
    )
    return Figure(
        "against-entropy",
        "Acquisition and forgetting against knowledge entropy",
        caption,
        tuple(charts),
        data,
    )


def _step_legend(steps) -> alt.Legend:
    shown = steps if len(steps) <= 7 else [steps[round(i * (len(steps) - 1) / 4)] for i in range(5)]
    return alt.Legend(title="step", titleOrient="left", values=shown, format=",d", columns=4)


def learning(rows: Rows) -> Figure | None:
    """Log-probability of the new facts while they are injected, by depth.

    From the first, a middle and the last checkpoint.
    """
    points = [
        panels.point(r, "depth", "step", "update", "rounds", "seed")
        for r in rows
        if r.get("kind") == "series"
        and r["metric"] == "span_log_probability"
        and r.get("depth") is not None
    ]
    if not points:
        return None
    steps = sorted({p["step"] for p in points})
    chosen = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    points = sorted(
        (p for p in points if p["step"] in chosen),
        key=lambda p: (p["step"], p["update"], p["seed"]),
    )
    low, high = (
        f(p["value"] for p in panels.means(points, "depth", "step", "update", "rounds"))
        for f in (min, max)
    )
    color = alt.Color("step:O", sort=chosen, legend=_step_legend(chosen))
    charts = tuple(
        over_updates(
            [p for p in points if p["depth"] == depth],
            f"{depth}: log-probability, nats",
            color,
            by={"step": "checkpoint"},
            shades=len(chosen),
            domain=(low, high),
        )
        for depth in dict.fromkeys(p["depth"] for p in points)
    )
    caption = (
        "Mean log-probability per token of the answers, in nats, before, during and after the"
        " continual training, by how far the question lies from the injected texts: from the first"
        " checkpoint, from one in the middle and from the last; mean over seeds. Dotted: a round"
        " begins, in which every new fact is injected once. Look at how far each line rises."
    )
    return Figure("learning", "How new facts are learnt", caption, charts, panels.tidy(points))


def balance(rows: Rows) -> Figure | None:
    """The combined score of each checkpoint, and which one is recommended."""
    points = [panels.point(r, "step", "seed") for r in rows if r["metric"] == "combined_score"]
    best = next((r for r in rows if r["metric"] == "recommended"), None)
    if not points:
        return None
    points.sort(key=lambda p: (p["seed"], p["step"]))
    x = panels.step_axis(sorted({p["step"] for p in points}))
    caption = (
        "The mean of nll, acquisition and retention, each from 0, the worst checkpoint of the"
        f" series, to 1, the best. {seeds_caption(points)}"
    )
    above = []
    if best is not None:
        mark = panels.own(
            [m for m in panels.means(points, "step") if m["step"] == best["step"]]
        ).encode(x=x, y=panels.upright("Combined score"))
        above = [
            mark.mark_point(style="best"),
            mark.mark_text(style="note", dy=-18).encode(text=alt.value(f"step {best['step']:,}")),
        ]
        caption += f" Ringed: the recommended checkpoint, step {best['step']:,}: {_why(best)}"
    chart = panels.over_steps(points, "Combined score", x=x, above=above)
    return Figure(
        "balance", "Which checkpoint to continue from", caption, chart, panels.tidy(points)
    )


def _why(best) -> str:
    says = f"its mean score leads that of the next, step {best['next']:,}, by {best['lead']:.3f}"
    if best.get("low") is not None:
        says += (
            f" (95% interval {best['low']:.3f} to {best['high']:.3f}".replace("-", "\u2212") + ")"
        )
    return f"{says}; {best['agree']:.0%} of single seeds choose it."


def controls(rows: Rows) -> Figure | None:
    """Attention entropy and prediction entropy over the series, with knowledge entropy."""
    points: dict[str, list] = {}
    for r in rows:
        if r.get("kind") == "series" and r["layer"] is None and r["metric"].endswith("_entropy"):
            points.setdefault(r["metric"], []).append(panels.point(r, "step", "seed"))
    names = [
        n for n in ("knowledge_entropy", "attention_entropy", "prediction_entropy") if n in points
    ]
    if len(names) < 2:
        return None
    x = panels.step_axis(sorted({p["step"] for own_points in points.values() for p in own_points}))
    told_as = {
        "knowledge_entropy": "Knowledge entropy, all layers, nats",
        "attention_entropy": "Attention entropy, mean, nats",
        "prediction_entropy": "Prediction entropy, nats",
    }
    charts = tuple(
        panels.over_steps(sorted(points[n], key=lambda p: (p["seed"], p["step"])), told_as[n], x=x)
        for n in names
    )
    caption = (
        "Is it the MLPs' memories alone that narrow? How evenly attention looks at tokens, and how"
        " sure predictions are, over the same checkpoints and text, in nats. See"
        " whether all of them fall together."
        f" {seeds_caption(points[names[0]])}"
    )
    data = [{"metric": n, **p, "value": rounded(p["value"])} for n in names for p in points[n]]
    return Figure("controls", "Other entropies", caption, charts, data)
