"""Profiles of gradient norms over layers: of the study of gradient localization, and of a model.

Each function takes rows and gives a `Figure`, or None where the rows hold nothing for it. What
`lmdyn gradients` measured is drawn by `profiles`; what runs that are restricted by a profile learn
and forget is drawn by the study.

Each function takes rows and gives a `Figure`, or None where the rows hold nothing for it. What runs
that are restricted by a profile learn and forget is drawn in `gradient_localization`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from lmdyn.report.figures import Figure, label
from lmdyn.report.panels import (
    joined,
    means_with_seeds,
    one_or_all,
    own,
    panel,
    point,
    tidy,
    upright,
)

FACT_KINDS = ("updated", "new", "unchanged")
RUNNING_MODES = {
    "running freeze": "freeze, running profile",
    "running scale": "scale, running profile",
}
"""Modes of runs whose profile is estimated during training, as figures call them."""
PROFILE_METRICS = ("relative_gradient_norm", "profile_difference")
"""Rows that `profiles` draws."""
Rows = Sequence[Mapping[str, Any]]


def layers(
    points: Sequence[Mapping[str, Any]], order: Sequence[str], title: str
) -> alt.TopLevelMixin:
    """One panel of a profile: relative norms over layers, a line for each kind, a rule at 1.

    Args:
      points: `layer, kind, seed, value`, and `low` and `high` where there is one seed.
      order: of the kinds.
      title: of the panel.
    """
    mean = means_with_seeds(points, ["kind", "layer"], format=".2f")
    single = len({p["seed"] for p in points}) == 1
    last = max(p["layer"] for p in points)
    x = _layer_axis(last)
    y = upright(title)
    used = [k for k in order if any(p["kind"] == k for p in points)]
    legend = alt.Legend(columns=2) if len(used) > 1 else None
    color = alt.Color("kind:N", scale=alt.Scale(domain=used), sort=used, legend=legend)
    base = alt.Chart().encode(x=x, y=y, color=color)
    tip = ["kind:N", "layer:Q d", "relative norm = value:Q .3f"]
    stacked = [own([{"value": 1}]).mark_rule(style="zero").encode(y=y)]
    if single and all("low" in p for p in points):
        tip += ["low:Q .3f", "high:Q .3f"]
        ends = {"y": upright(title, "low"), "y2": "high:Q"}
        stacked.append(alt.Chart().mark_rule(style="band").encode(x=x, color=color, **ends))
    elif not single:
        tip.append("seeds = each:N")
        stacked.append(_seeds(points, x=x, y=y, color=color))
    return panel(mean, *stacked, *joined(base, tip), height=240)


def _seeds(points: Rows, **marks: Any) -> alt.Chart:
    """A thin line for each seed and kind."""
    detail = ["seed:N", "kind:N"]
    return own(tidy(points)).mark_line(style="seed").encode(detail=detail, **marks)


def _layer_axis(last: int) -> alt.X:
    ticks = list(range(0, last + 1, 1 + last // 12))
    axis = alt.Axis(format="d", values=ticks, labelOverlap="greedy")
    scale = alt.Scale(nice=False, domain=[0, last], padding=8)
    return alt.X("layer:Q", title="layer", axis=axis, scale=scale)


def _block_panels(points: Rows, order: Sequence[str], what: str) -> tuple[alt.TopLevelMixin, ...]:
    """A panel of `layers` for attention and one for the MLP."""
    panels = (("attention", "Attention"), ("mlp", "MLP"))
    return tuple(
        layers([p for p in points if p["site"] == site], order, f"{name}: {what}")
        for site, name in panels
    )


def _profile_points(rows, wanted: Sequence[str]) -> list[dict[str, Any]]:
    return [
        point(r, "site", "kind", "layer", "seed")
        | ({"low": float(r["low"]), "high": float(r["high"])} if "low" in r else {})
        for r in rows
        if r["metric"] == "relative_gradient_norm"
        and r.get("kind") in wanted
        and r["layer"] is not None
        and "seed" in r
    ]


def profile(rows: Rows) -> Figure | None:
    """Relative gradient norms over layers, as in the paper: a line for each kind of knowledge."""
    points = _profile_points(rows, FACT_KINDS)
    if not points:
        return None
    charts = _block_panels(points, FACT_KINDS, "norm relative to random spans")
    seeds = len({p["seed"] for p in points})
    caption = (
        "Mean norm of the gradient of each sequence's loss on its span (the object of a fact), over"
        " that of random spans of pretraining text; above the line at 1 a kind of knowledge lights"
        " a layer up more than text at large does. Layer 0 is next to the embedding. "
        + (
            "One seed; bars: 95% bootstrap intervals over sequences."
            if seeds == 1
            else f"Thin: each of {seeds} seeds; thick: their mean."
        )
    )
    title = "Which layers each kind of knowledge lights up"
    return Figure("profile", title, caption, charts, tidy(points))


def profiles(rows: Rows) -> list[Figure]:
    """What `lmdyn gradients` measured: a figure per model.

    It has a panel for each group that has layers, and a line for each kind.
    """
    found = [
        r
        for r in rows
        if r["metric"] == "relative_gradient_norm" and r["layer"] is not None and "seed" not in r
    ]
    made = []
    for number, model in enumerate(dict.fromkeys(label(r) for r in found)):
        mine = [r for r in found if label(r) == model]
        tests = [
            f"{' and '.join(r['kinds'])}, p = {r['p']:.2g}"
            for r in rows
            if r["metric"] == "profile_difference" and r["site"] is None and label(r) == model
        ]
        name = f"gradients-{number + 1}" if number else "gradients"
        made.append(_model_profile(name, mine, tests))
    return made


GROUP_TITLES = {"mlp": "MLP", "attention": "Attention"}
"""Parts of a block as figures call them."""


def _place(site: str) -> str:
    return {"mlp": "the MLP"}.get(site, site)


def _model_profile(name: str, rows: Rows, tests: Sequence[str]) -> Figure:
    """The figure of one model; `tests`: what the tests of equal profiles gave, in words."""
    points: list[dict[str, Any]] = [
        {k: r[k] for k in ("site", "kind", "layer")}
        | {"seed": 0}
        | {k: float(r[k]) for k in ("value", "low", "high")}
        for r in rows
    ]
    kinds = list(dict.fromkeys(p["kind"] for p in points))
    counts = {r["kind"]: r["sequences"] for r in rows}
    caption = (
        "Mean norm of the gradient of each sequence's loss on its span, over that of random spans"
        " of text: where a line is above 1, a layer responds to these sequences more than to text"
        f" at large. Bars: {rows[0]['level']:.0%} bootstrap intervals over sequences. Model:"
        f" {label(rows[0])}. Sequences:"
        f" {', '.join(f'{count} {kind}' for kind, count in counts.items())},"
        f" {rows[0]['reference_sequences']} random spans."
    )
    if tests:
        caption += f" Permutation test that two kinds have one profile: {'; '.join(tests)}."
    charts = [
        layers(
            [p for p in points if p["site"] == site],
            kinds,
            f"{GROUP_TITLES.get(site, site)}: norm relative to random spans",
        )
        for site in dict.fromkeys(p["site"] for p in points)
    ]
    tops = [max((p for p in points if p["kind"] == k), key=lambda p: p["value"]) for k in kinds]
    return Figure(
        name,
        "Which layers each kind of knowledge lights up",
        caption,
        one_or_all(charts),
        tidy(points),
        says="The gradient is largest, relative to random spans of text, "
        + " and ".join(
            f"for {p['kind']} facts in {_place(p['site'])} of layer {p['layer']}"
            f" ({p['value']:.2f} times)"
            for p in tops
        )
        + ".",
        rank=0 if "-" in name else 1,
    )


def difference(rows: Rows) -> Figure | None:
    """Where updated and new facts differ, layer by layer."""
    points = [
        {"kind": {"mlp": "MLP"}.get(r["site"], r["site"]), **point(r, "site", "layer", "seed")}
        for r in rows
        if r["metric"] == "profile_difference" and r["layer"] is not None and "seed" in r
    ]
    tests = [r for r in rows if r["metric"] == "profile_difference" and r["layer"] is None]
    if not points:
        return None
    mean = means_with_seeds(points, ["kind", "layer"], format="+.2f")
    last = max(p["layer"] for p in points)
    x = _layer_axis(last)
    y = upright("Log share of updated less new", format="+")
    kinds = list(dict.fromkeys(p["kind"] for p in points))
    color = alt.Color("kind:N", scale=alt.Scale(domain=kinds), sort=kinds)
    base = alt.Chart().encode(x=x, y=y, color=color)
    tip = ["part = kind:N", "layer:Q d", "log share = value:Q +.3f", "seeds = each:N"]
    stacked = [own([{"value": 0}]).mark_rule(style="zero").encode(y=y)]
    if len({p["seed"] for p in points}) > 1:
        stacked.append(_seeds(points, x=x, y=y, color=color))
    chart = panel(mean, *stacked, *joined(base, tip), height=240)
    said = ", ".join(f"{r['p']:.2g}" for r in tests)
    caption = (
        "How much more of a sequence's gradient lies in a layer for updated facts than for new"
        " ones (0.7 is twice as much), on attributes that both kinds have, an entity a point. That"
        f" the two kinds are alike has p = {said} (permutation test over entities, by seed)."
    )
    return Figure("difference", "Where updated and new facts differ", caption, chart, tidy(points))


def running(rows: Rows) -> Figure | None:
    """The profile that training itself ended with, beside the one measured before."""
    ended = [r for r in rows if r["metric"] == "running_profile"]
    if not ended:
        return None
    base = min({r["factor"] for r in ended}, key=lambda f: abs(f - 1))
    points = [
        {"site": r["site"], "kind": RUNNING_MODES[r["mode"]], **point(r, "layer", "seed")}
        for r in ended
        if r["factor"] == base
    ]
    points += [{**p, "kind": "measured before"} for p in _profile_points(rows, ("traced",))]
    middle: dict[tuple, list[float]] = {}
    for p in points:
        middle.setdefault((p["kind"], p["seed"]), []).append(p["value"])
    points = [
        {**p, "value": p["value"] / (sum(m := middle[p["kind"], p["seed"]]) / len(m))}
        for p in points
    ]
    order = ("measured before", *RUNNING_MODES.values())
    charts = _block_panels(points, order, "r over its mean")
    caption = (
        "The relative profile that restricts training, over its mean: as the probes gave it before"
        " (mean of updated and new facts), and as the running estimate, of the gradients of"
        " training batches relative to those of pretraining text, stood at the end (base rate)."
        " Thin: seeds; thick: their mean."
    )
    return Figure("running", "The profile during training", caption, charts, tidy(points))
