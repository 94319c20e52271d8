"""The figures of the saturation study: Godey et al. 2024, figures 1 to 6, with seeds.

Models are coloured from narrow to wide, steps from early to late. Where models of several widths
share a panel of spectra, singular values are counted as a share of the width, and singular entropy
as a share of log D. Those over training are here, those on heads in `saturation_heads`.
"""

import functools
import math
from typing import Any

import altair as alt

from lmdyn.report.figures import Figure, whole_numbers
from lmdyn.report.panels import (
    across,
    hover,
    joined,
    means,
    one_or_all,
    own,
    panel,
    point,
    step_axis,
    tidy,
    tooltips,
    upright,
)
from lmdyn.studies.claims import where
from lmdyn.studies.saturation.figure_data import (
    averaged,
    by_name,
    by_step,
    mean_of,
    names,
    plain,
    points_of,
    some_steps,
    three,
    ticks,
)
from lmdyn.studies.saturation.head_figures import (
    alternatives,
    ranks,
    spectra,
    target,
    target_growth,
)
from lmdyn.types import Rows


def figures(rows: Rows) -> list[Figure]:
    """Every figure that the rows have something for, in the order of the page."""
    made = (
        losses,
        anisotropy,
        anisotropy_by_depth,
        spectra,
        singular_entropy,
        ranks,
        target,
        target_growth,
        alternatives,
    )
    return [figure for make in made if (figure := make(rows)) is not None]


def losses(rows: Rows) -> Figure | None:
    """Losses with the law's predictions, and how far each model ends above the law.

    Detected saturation points are ringed.
    """
    points = [p for p in points_of(rows, "nll") if p["step"] > 0]
    order = names(rows)
    steps = sorted({p["step"] for p in points})
    if len(steps) < 2:
        return None
    curves, predicted = averaged(points, 5), _law(rows)
    marks = _saturation_points(rows, curves)
    draw = functools.partial(_curves, color=by_name(order), shades=len(order))
    x = step_axis(steps, ticks(steps))
    charts = [draw(curves, predicted, marks, title="Held-out loss, nats per token", x=x)]
    narrow, first = {r["name"] for r in plain(rows) if r["narrow"]}, steps[len(steps) // 4]
    late = lambda found: [p for p in found if p["name"] in narrow and p["step"] >= first]
    if len({p["step"] for p in late(curves)}) > 2:
        x = across("step:Q", "training step", ",d", zero=False, padding=8)
        title = "The narrow ones, from a quarter of training on"
        charts.append(draw(late(curves), late(predicted), late(marks), title=title, x=x))
    if residuals := where(rows, "scaling_residual"):
        charts.append(_residuals(residuals, by_name(order), len(order)))
    title = "Losses, and what the scaling law of wide models predicts"
    caption, table = _losses_caption(rows, points, predicted, marks), _losses_table(rows, order)
    return Figure("losses", title, caption, one_or_all(charts), tidy(points), table)


def _saturation_points(rows, curves) -> list[dict[str, Any]]:
    """Where the detector finds that a seed's loss rises, on the curve of its model."""
    at = {(p["name"], p["step"]): p["value"] for p in curves}
    marks = []
    for r in where(rows, "saturated"):
        if r["value"]:
            there = (step for name, step in at if name == r["name"])
            near = min(there, key=lambda step: abs(step - r["at"]))
            place = {"step": r["at"], "value": at[r["name"], near], "p": r["p_value"]}
            marks.append({k: r[k] for k in ("name", "seed", "low", "high", "rise")} | place)
    return marks


def _losses_caption(rows, points, predicted, marks) -> str:
    seeds, runs = len({p["seed"] for p in points}), len(where(rows, "saturated"))
    of = f"mean of {seeds} seeds" if seeds > 1 else "one seed"
    caption = f"Loss on held-out text, nats per token, {of}, smoothed over five measurements. "
    if predicted:
        caption += (
            "Dashed: what the scaling law that is fitted to the wide models predicts; triangles are"
            " in the fit, circles beyond it. "
        )
    if runs:
        caption += (
            "Rings: where the detector finds that a seed's loss has stopped falling and rises"
            f" ({len(marks)} of {runs} runs)."
        )
    return caption


def _losses_table(rows, order) -> list[dict[str, str]]:
    return [
        {
            "model": name,
            "parameters": f"{own_[0]['parameters']:,}",
            "final loss, nats": f"{mean_of(own_, 'loss'):.3f}",
            "predicted": f"{mean_of(own_, 'predicted'):.3f}",
            "above the law": f"{mean_of(own_, 'value'):+.1%}",
            "in the fit": "yes" if own_[0]["fitted"] else "no",
            "turns up in": f"{sum(r['value'] for r in ends):.0f} of {len(ends)}",
        }
        for name in order
        for ends in [where(rows, "saturated", name=name)]
        if (own_ := where(rows, "scaling_residual", name=name))
    ]


def _law(rows) -> list[dict[str, Any]]:
    """Predictions along the steps of each model, the mean over the seeds' laws."""
    laws, curve = where(rows, "scaling_law"), []
    fields = ("name", "step", "trained", "parameters")
    seen = {tuple(r[k] for k in fields) for r in where(plain(rows), "nll") if r["trained"]}
    for name, step, trained, size in sorted(seen) if laws else ():
        if trained >= max(t for n, _, t, _ in seen if n == name) / 16:
            values = [
                law["value"] + law["A"] / size ** law["a"] + law["B"] / trained ** law["b"]
                for law in laws
            ]
            curve.append({"name": name, "step": step, "value": sum(values) / len(values)})
    return curve


def _curves(curves, predicted, marks, color, title, x, shades):
    y = upright(title)
    tip = ["name:N", "step:Q ,d", "loss = value:Q .3f"]
    base = alt.Chart().encode(x=x, y=y, color=color)
    layers = [base.mark_line(style="line")]
    if predicted:
        layers.append(own(tidy(predicted)).mark_line(style="ceiling").encode(x=x, y=y, color=color))
    if marks:
        mark_tip = ["name:N", "seed:Q", "turns up at = step:Q ,.0f", "from = low:Q ,.0f"]
        mark_tip += ["to = high:Q ,.0f", "rise, nats = rise:Q .3f", "p = p:Q .3f"]
        rings = own(tidy(marks)).mark_point(style="best")
        layers.append(rings.encode(x=x, y=y, color=color, tooltip=tooltips(mark_tip)))
    return panel(tidy(curves), *layers, hover(base, tip), shades=shades, height=260)


def _residuals(residuals, color, shades):
    # a law that is barely held by its runs has bars that would squeeze the points into a line
    most = 3 * max(abs(float(r["value"])) for r in residuals)
    data = []
    for r in residuals:
        p = point(r, "name", "parameters", "seed", fit=["beyond it", "in the fit"][r["fitted"]])
        p |= {end: float(r.get(end, r["value"])) for end in ("low", "high")}
        data.append({**p, "from": max(p["low"], -most), "to": min(p["high"], most)})
    x = across("parameters:Q", "parameters", "~s", type="log", padding=14)
    y = lambda field="value": upright(
        "Final loss above the law's prediction", field, format="+.0%", zero=True
    )
    scale = alt.Scale(domain=["beyond it", "in the fit"], range=["circle", "triangle-up"])
    shape = alt.Shape("fit:N", scale=scale, legend=None)
    base = alt.Chart().encode(x=x, y=y(), color=color)
    tip = ["name:N", "seed:Q", "above = value:Q +.1%", "low:Q +.1%", "high:Q +.1%", "fit:N"]
    zero = own([{"value": 0}]).mark_rule(style="zero").encode(y=y())
    bars = alt.Chart().mark_rule(style="seed").encode(x=x, y=y("from"), y2="to:Q", color=color)
    dots = base.mark_point(style="dot", size=60).encode(shape=shape)
    return panel(tidy(data), zero, bars, dots, hover(base, tip), shades=shades, height=260)


def _by_layer(rows) -> list[dict[str, Any]]:
    found = where(plain(rows), "anisotropy", site="residual")
    return [point(r, "name", "seed", "step", "layer") for r in found]


def anisotropy(rows: Rows) -> Figure | None:
    """Anisotropy of the last layer, and of what the head reads, over steps."""
    by_layer, order = _by_layer(rows), names(rows)
    steps = sorted({p["step"] for p in by_layer if p["step"] > 0})
    if len(steps) < 2:
        return None
    depth = {name: max(p["layer"] for p in by_layer if p["name"] == name) for name in order}
    last = [
        {**p, "trained": 0} for p in by_layer if p["layer"] == depth[p["name"]] and p["step"] > 0
    ]
    final = [p for p in points_of(rows, "anisotropy", site="final") if p["step"] > 0]
    x = step_axis(steps, ticks(steps))
    charts = tuple(
        _curves(averaged(points, 5), [], [], by_name(order), title, x, len(order))
        for title, points in (
            ("Last layer, mean cosine", last),
            ("After the last norm, mean cosine", final),
        )
    )
    caption = (
        "Mean cosine between the representations of all pairs of tokens, after the last block and"
        " after the last norm, which the head reads; mean over seeds, smoothed over five"
        " measurements. The paper finds that it rises abruptly in small models, when their loss"
        " saturates."
    )
    return Figure("anisotropy", "Anisotropy over training", caption, charts, tidy(last))


def anisotropy_by_depth(rows: Rows) -> Figure | None:
    """Anisotropy after each number of blocks, by step.

    For the narrowest, a middle and the widest model.
    """
    by_layer = _by_layer(rows)
    if not by_layer:
        return None
    charts = [
        _depths([p for p in by_layer if p["name"] == name], name) for name in three(names(rows))
    ]
    caption = (
        "The same after each number of blocks (0 is the embedding), from early (faint) to late"
        " (strong); mean over seeds. The paper finds it highest in the last layers of small models."
    )
    title = "Anisotropy by depth"
    return Figure("anisotropy-by-depth", title, caption, one_or_all(charts), tidy(by_layer))


def _depths(points, name):
    steps = some_steps({p["step"] for p in points})
    data = means([p for p in points if p["step"] in steps], "step", "layer")
    axis, scale = whole_numbers(p["layer"] for p in points), alt.Scale(nice=False, padding=8)
    x = alt.X("layer:Q", title="blocks applied", axis=axis, scale=scale)
    base = alt.Chart().encode(x=x, y=upright(f"By depth: {name}", zero=True), color=by_step(steps))
    tip = ["step:Q ,d", "layer:Q", "mean cosine = value:Q .3f"]
    return panel(tidy(data), *joined(base, tip, "line"), shades=len(steps), height=260)


def singular_entropy(rows: Rows) -> Figure | None:
    """Singular entropy of the head over steps."""
    share = lambda r: r["value"] / math.log(max(2, r["directions"]))
    points = [p for p in points_of(rows, "head_spectrum", share) if p["step"] > 0]
    steps, order = sorted({p["step"] for p in points}), names(rows)
    if len(steps) < 2:
        return None
    title, x = "Singular entropy, share of log D", step_axis(steps, ticks(steps))
    chart = _curves(averaged(points, 5), [], [], by_name(order), title, x, len(order))
    caption = (
        "KL(q || uniform) of the head's singular values q, which is 0 for a flat spectrum and log D"
        " for a single direction; over log D, so that widths compare. Mean over seeds, smoothed"
        " over five measurements. Where a curve falls the spectrum flattens; where it rises, it"
        " collapses."
    )
    return Figure("singular-entropy", "Singular entropy of the head", caption, chart, tidy(points))
