"""The figures of the knowledge-entropy study: Kim et al. 2024, figures 2 to 6, with seeds.

Each function takes rows and gives a `Figure`, or None where the rows hold nothing for it. Those on
the series are here, those on reactivation and variants in `reactivation_figures`.
"""

import functools
from typing import Any

import altair as alt

from lmdyn.report import panels
from lmdyn.report.figures import Figure
from lmdyn.studies.claims import where
from lmdyn.studies.injected_facts_figures import over_updates
from lmdyn.studies.knowledge_entropy.figure_data import of_series, points_of, seeds_caption, some
from lmdyn.studies.knowledge_entropy.reactivation_figures import reactivation, variants
from lmdyn.types import Rows


def figures(rows: Rows) -> list[Figure]:
    """Every figure that the rows have something for, in the order of the page."""
    made = (series, by_layer, against_entropy, learning, balance, reactivation, variants, controls)
    return [figure for make in made if (figure := make(rows)) is not None]


def _watched(rows, metric, column) -> list[dict[str, Any]]:
    """What plain pretraining was watched for, by seed and step."""
    found = where(rows, metric, kind="pretraining", start="plain", layer=None)
    return [
        {"step": r["step"], "seed": r["seed"], "value": float(r[column])}
        for r in found
        if column in r
    ]


def series(rows: Rows) -> Figure | None:
    """Entropy, nll, acquisition and forgetting over the steps of the series."""
    found = of_series(rows)
    if not found:
        return None
    entropy, nll = _watched(rows, "knowledge_entropy", "normalized"), _watched(rows, "nll", "value")
    steps = sorted({one["step"] for one in found})
    x = panels.step_axis(sorted({*steps, *(p["step"] for p in (*entropy, *nll))}), steps)
    draw = lambda title, points, **how: panels.over_steps(points, title, x=x, **how)
    share, more = points_of(found, "share", "entropy"), {"entropy": ".3f"}
    title = "Knowledge entropy, share of its ceiling"
    learnt = "Acquisition: rise of new facts' log-probability, nats"
    lost = "Forgetting: relative loss of what was known"
    charts = (
        draw(title, share, format=".1%", more=more, behind=entropy),
        draw("Nll of the old domain, nats per token", points_of(found, "nll"), behind=nll),
        draw(learnt, points_of(found, "acquisition")),
        draw(lost, points_of(found, "forgetting"), format=".1%", zero=True),
    )
    pale = " Pale: measured during pretraining, from its first step." if entropy or nll else ""
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
    points: list[dict[str, Any]] = [
        {k: r[k] for k in ("layer", "step", "seed")}
        | {"value": float(r["normalized"]), "nats": float(r["value"])}
        for r in where(rows, "knowledge_entropy", kind="series")
        if r["layer"] is not None and "normalized" in r
    ]
    if not points:
        return None
    points.sort(key=lambda p: (p["layer"], p["step"], p["seed"]))
    layers = sorted({p["layer"] for p in points})
    mean = panels.means_with_seeds(points, ["layer", "step"], format=".1%")
    legend = alt.Legend(title="layer", titleOrient="left", values=some(layers, 8))
    x = panels.step_axis(sorted({p["step"] for p in points}))
    y = panels.upright("Knowledge entropy, share of its ceiling", format="%")
    base = alt.Chart().encode(x=x, y=y, color=alt.Color("layer:O", legend=legend))
    tip = ["layer:O", "step:Q ,d", "share of the ceiling = value:Q .1%", "nats:Q .3f"]
    tip += ["seeds = each:N"]
    chart = panels.panel(mean, *panels.joined(base, tip), height=260, shades=len(layers))
    caption = (
        "How evenly each layer's MLP spreads its coefficients over its memory vectors, as a share"
        " of the largest entropy there can be, log F; layer 0 is next to the embedding. Mean over"
        " seeds. A line that falls draws on fewer memories."
    )
    title = "Knowledge entropy by layer"
    return Figure("entropy-by-layer", title, caption, chart, panels.tidy(points))


def against_entropy(rows: Rows) -> Figure | None:
    """Acquisition and forgetting against knowledge entropy: the paper's figure.

    A point for each checkpoint and seed.
    """
    found = of_series(rows)
    if not found:
        return None
    fields = ("seed", "step", "entropy", "share", "acquisition", "forgetting")
    data = panels.tidy([{k: one[k] for k in fields} for one in found])
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
        tip = ["step:Q ,d", "seed:N", "share of the ceiling = share:Q .1%", "nats = entropy:Q .3f"]
        layers = (
            base.mark_line(style="seed").encode(detail="seed:N", order="step:Q"),
            base.mark_point(style="dot", size=60).encode(color=color),
            panels.hover(base, [*tip, f"{field}:Q {format}"]),
        )
        charts.append(panels.panel(data, *layers, height=260, shades=len(steps)))
    caption = (
        "A point is a checkpoint of one seed, faint where pretraining had just begun; the line"
        " joins the checkpoints of a seed in their order. Acquisition in nats per"
        " token, entropy and forgetting as shares. The paper finds that both acquisition and"
        " retention fall with entropy."
    )
    title = "Acquisition and forgetting against knowledge entropy"
    return Figure("against-entropy", title, caption, tuple(charts), data)


def _step_legend(steps) -> alt.Legend:
    shown = some(steps, 7)
    return alt.Legend(title="step", titleOrient="left", values=shown, format=",d", columns=4)


def learning(rows: Rows) -> Figure | None:
    """Log-probability of the new facts while they are injected, by depth.

    From the first, a middle and the last checkpoint.
    """
    points = [
        panels.point(r, "depth", "step", "update", "rounds", "seed")
        for r in where(rows, "span_log_probability", kind="series")
        if r.get("depth") is not None
    ]
    if not points:
        return None
    steps = sorted({p["step"] for p in points})
    chosen = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    points = [p for p in points if p["step"] in chosen]
    points.sort(key=lambda p: (p["step"], p["update"], p["seed"]))
    mean = [p["value"] for p in panels.means(points, "depth", "step", "update", "rounds")]
    draw = functools.partial(
        over_updates,
        color=alt.Color("step:O", sort=chosen, legend=_step_legend(chosen)),
        by={"step": "checkpoint"},
        shades=len(chosen),
        domain=(min(mean), max(mean)),
    )
    charts = tuple(
        draw([p for p in points if p["depth"] == depth], f"{depth}: log-probability, nats")
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
    points = [panels.point(r, "step", "seed") for r in where(rows, "combined_score")]
    best = next(iter(where(rows, "recommended")), None)
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
        there = [m for m in panels.means(points, "step") if m["step"] == best["step"]]
        mark = panels.own(there).encode(x=x, y=panels.upright("Combined score"))
        above = [
            mark.mark_point(style="best"),
            mark.mark_text(style="note", dy=-18).encode(text=alt.value(f"step {best['step']:,}")),
        ]
        caption += f" Ringed: the recommended checkpoint, step {best['step']:,}: {_why(best)}"
    chart = panels.over_steps(points, "Combined score", x=x, above=above)
    title = "Which checkpoint to continue from"
    return Figure("balance", title, caption, chart, panels.tidy(points))


def _why(best) -> str:
    says = f"its mean score leads that of the next, step {best['next']:,}, by {best['lead']:.3f}"
    if best.get("low") is not None:
        between = f"{best['low']:.3f} to {best['high']:.3f}".replace("-", "\u2212")
        says += f" (95% interval {between})"
    return f"{says}; {best['agree']:.0%} of single seeds choose it."


def controls(rows: Rows) -> Figure | None:
    """Attention entropy and prediction entropy over the series, with knowledge entropy."""
    titles = {
        "knowledge_entropy": "Knowledge entropy, all layers, nats",
        "attention_entropy": "Attention entropy, mean, nats",
        "prediction_entropy": "Prediction entropy, nats",
    }
    points = {}
    for name in titles:
        if found := where(rows, name, kind="series", layer=None):
            found = sorted(found, key=lambda r: (r["seed"], r["step"]))
            points[name] = [panels.point(r, "step", "seed") for r in found]
    if len(points) < 2:
        return None
    x = panels.step_axis(sorted({p["step"] for found in points.values() for p in found}))
    charts = tuple(panels.over_steps(found, titles[name], x=x) for name, found in points.items())
    caption = (
        "Is it the MLPs' memories alone that narrow? How evenly attention looks at tokens, and how"
        " sure predictions are, over the same checkpoints and text, in nats. See"
        " whether all of them fall together."
        f" {seeds_caption(next(iter(points.values())))}"
    )
    data = [{"metric": name, **p} for name, found in points.items() for p in panels.tidy(found)]
    return Figure("controls", "Other entropies", caption, charts, data)
