"""The figures of the saturation study, from its rows: Godey et al. 2024, figures 1 to 6, with their seeds.

Models are coloured from narrow to wide, steps from early to late. Where models of several widths share a panel of spectra, singular values
are counted as a share of the width, and singular entropy as a share of log D.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from lmdyn.report import panels
from lmdyn.report.figures import Figure
from lmdyn.report.panels import hover, means, own, panel, step_axis, tidy, upright

Rows = Sequence[Mapping[str, Any]]
WAYS = {"joint": "trained with the model", "frozen": "on a frozen body"}
STARTS = ("as it is", "trained from there", "trained from random")
SPECTRA_AT = 7
"""Steps whose spectra are drawn."""


def figures(rows: Rows) -> list[Figure]:
    """Every figure that the rows have something for, in the order of the page."""
    made = (losses, anisotropy, anisotropy_by_depth, spectra, singular_entropy, ranks, target, target_growth, alternatives)
    return [figure for make in made if (figure := make(rows)) is not None]


def names(rows: Rows) -> list[str]:
    """Models with a full head by their size, the smallest first."""
    size = {r["name"]: (r["parameters"], r["name"]) for r in _plain(rows)}
    return sorted(size, key=lambda name: size[name])


def _plain(rows) -> list[Mapping[str, Any]]:
    return [r for r in rows if r.get("kind") in ("ladder", "given")]


def _points(rows, metric, read=lambda r: float(r["value"]), **wanted) -> list[dict[str, Any]]:
    """`name`, `seed`, `step`, `trained`, `value` of the plain models' rows of a metric."""
    return [
        {"name": r["name"], "seed": r["seed"], "step": r["step"], "trained": r["trained"], "value": read(r)}
        for r in _plain(rows)
        if r["metric"] == metric and all(r.get(k) == v for k, v in wanted.items())
    ]


def _color(order) -> alt.Color:
    return alt.Color("name:O", sort=list(order), legend=alt.Legend(columns=3), scale=alt.Scale(domain=list(order)))


def _averaged(points, window: int) -> list[dict[str, Any]]:
    """Moving average over `window` measurements of each model's mean over seeds, so that curves can be told apart."""
    found = []
    for name in dict.fromkeys(p["name"] for p in points):
        curve = sorted(means([p for p in points if p["name"] == name], "step", "trained"), key=lambda p: p["step"])
        for i, p in enumerate(curve):
            near = curve[max(0, i - window // 2) : i + window // 2 + 1]
            found.append({"name": name, "step": p["step"], "trained": p["trained"], "value": sum(q["value"] for q in near) / len(near)})
    return found


def losses(rows: Rows) -> Figure | None:
    """Losses with the law's predictions and the detected points; how far each model ends above the law."""
    points = [p for p in _points(rows, "nll") if p["step"] > 0]
    order = names(rows)
    if not points or len({p["step"] for p in points}) < 2:
        return None
    color = _color(order)
    curves = _averaged(points, 5)
    steps = sorted({p["step"] for p in points})
    predicted = [
        {"name": r["name"], "step": r["step"], "value": float(r["predicted"])}
        for r in _law(rows)
        if r["step"] is not None
    ]
    found = [r for r in rows if r["metric"] == "saturated" and r["value"]]
    at = {(p["name"], p["step"]): p["value"] for p in curves}
    marks = []
    for r in found:
        near = min((step for name, step in at if name == r["name"]), key=lambda step: abs(step - r["at"]))
        marks.append({"name": r["name"], "step": r["at"], "value": at[r["name"], near], "seed": r["seed"], "low": r["low"], "high": r["high"],
                      "rise": r["rise"], "p": r["p_value"]})
    charts = [_curves(curves, predicted, marks, color, "Held-out loss, nats a token", step_axis(steps, _ticks(steps)), len(order))]
    narrow = {r["name"] for r in _plain(rows) if r["narrow"]}
    late = [p for p in curves if p["name"] in narrow and p["step"] >= steps[len(steps) // 4]]
    if len({p["step"] for p in late}) > 2:
        x = alt.X("step:Q", title="training step", axis=alt.Axis(tickCount=4, format=",d"), scale=alt.Scale(zero=False, nice=False, padding=8))
        first = steps[len(steps) // 4]
        shown = lambda ps: [p for p in ps if p["name"] in narrow and p["step"] >= first]
        charts.append(_curves(late, shown(predicted), shown(marks), color, "The narrow ones, from a quarter of training on", x, len(order)))
    if residuals := [r for r in rows if r["metric"] == "scaling_residual"]:
        charts.append(_residuals(residuals, color, len(order)))
    seeds = len({p["seed"] for p in points})
    caption = (
        f"Loss of each model on held-out text, {'mean of ' + str(seeds) + ' seeds' if seeds > 1 else 'one seed'}, smoothed over five measurements. "
        + ("Dashed: what the scaling law that is fitted to the wide models predicts. " if predicted else "")
        + (f"Rings: where the detector finds that a seed's loss has stopped falling and rises ({len(found)} of "
           f"{sum(r['metric'] == 'saturated' for r in rows)} runs)." if any(r["metric"] == "saturated" for r in rows) else "")
    )
    table = [
        {"model": name, "parameters": f"{own_[0]['parameters']:,}", "final loss, nats": f"{_mean(own_, 'loss'):.3f}",
         "predicted": f"{_mean(own_, 'predicted'):.3f}", "above the law": f"{_mean(own_, 'value'):+.1%}",
         "in the fit": "yes" if own_[0]["fitted"] else "no", "turns up in": _turned(rows, name)}
        for name in order
        if (own_ := [r for r in rows if r["metric"] == "scaling_residual" and r["name"] == name])
    ]
    return Figure("losses", "Losses, and what the scaling law of wide models predicts", caption, tuple(charts) if len(charts) > 1 else charts[0],
                  tidy(points), table)


def _turned(rows, name) -> str:
    own = [r for r in rows if r["metric"] == "saturated" and r["name"] == name]
    return f"{sum(r['value'] for r in own):.0f} of {len(own)}"


def _mean(rows, field) -> float:
    return sum(r[field] for r in rows) / len(rows)


def _ticks(steps) -> list[int]:
    """Powers of ten and of two between them, few enough to be told."""
    last = max(steps)
    return [s for s in (2**i for i in range(int(math.log2(last)) + 1)) if s >= min(steps)][::2] + [last]


def _law(rows) -> list[dict[str, Any]]:
    """Predictions along the steps of each model, the mean over the seeds' laws."""
    laws = [r for r in rows if r["metric"] == "scaling_law"]
    curve: dict[tuple, list[float]] = {}
    seen = {(r["name"], r["step"], r["trained"], r["parameters"]) for r in _plain(rows) if r["metric"] == "nll" and r["trained"]}
    first = {name: max(t for n, _, t, _ in seen if n == name) / 16 for name in {n for n, *_ in seen}}
    for name, step, trained, size in sorted(seen):
        if trained >= first[name]:
            for law in laws:
                curve.setdefault((name, step), []).append(law["value"] + law["A"] / size ** law["a"] + law["B"] / trained ** law["b"])
    return [{"name": name, "step": step, "predicted": sum(v) / len(v)} for (name, step), v in sorted(curve.items())]


def _curves(curves, predicted, marks, color, title, x, shades):
    y = upright(title)
    tip = [alt.Tooltip("name:N"), alt.Tooltip("step:Q", format=",d"), alt.Tooltip("value:Q", title="loss", format=".3f")]
    base = alt.Chart().encode(x=x, y=y, color=color)
    layers = [base.mark_line(style="line")]
    if predicted:
        layers.append(own(tidy(predicted)).mark_line(style="ceiling").encode(x=x, y=y, color=color))
    if marks:
        told = [alt.Tooltip("name:N"), alt.Tooltip("seed:Q"), alt.Tooltip("step:Q", title="turns up at", format=",.0f"),
                alt.Tooltip("low:Q", title="from", format=",.0f"), alt.Tooltip("high:Q", title="to", format=",.0f"),
                alt.Tooltip("rise:Q", title="rise, nats", format=".3f"), alt.Tooltip("p:Q", title="p", format=".3f")]
        layers.append(own(tidy(marks)).mark_point(style="best").encode(x=x, y=y, color=color, tooltip=told))
    return panel(tidy(curves), *layers, hover(base, tip), shades=shades, height=260)


def _residuals(residuals, color, shades):
    data = [{"name": r["name"], "parameters": r["parameters"], "seed": r["seed"], "value": float(r["value"]), "low": float(r.get("low", r["value"])),
             "high": float(r.get("high", r["value"])), "fit": "in the fit" if r["fitted"] else "beyond it"} for r in residuals]
    x = alt.X("parameters:Q", title="parameters", axis=alt.Axis(format="~s", tickCount=4),
              scale=alt.Scale(type="log", nice=False, padding=14))
    y = lambda field="value": upright("Final loss above the law's prediction", field, format="+.0%", zero=True)
    shape = alt.Shape("fit:N", scale=alt.Scale(domain=["beyond it", "in the fit"], range=["circle", "triangle-up"]))
    base = alt.Chart().encode(x=x, y=y(), color=color)
    tip = [alt.Tooltip("name:N"), alt.Tooltip("seed:Q"), alt.Tooltip("value:Q", title="above", format="+.1%"),
           alt.Tooltip("low:Q", format="+.1%"), alt.Tooltip("high:Q", format="+.1%"), alt.Tooltip("fit:N")]
    zero = own([{"value": 0}]).mark_rule(style="zero").encode(y=y())
    bars = alt.Chart().mark_rule(style="seed").encode(x=x, y=y("low"), y2="high:Q", color=color)
    return panel(tidy(data), zero, bars, base.mark_point(style="dot", size=60).encode(shape=shape), hover(base, tip), shades=shades, height=260)


def _by_layer(rows) -> list[dict[str, Any]]:
    return [
        {"name": r["name"], "seed": r["seed"], "step": r["step"], "layer": r["layer"], "value": float(r["value"])}
        for r in _plain(rows)
        if r["metric"] == "anisotropy" and r["site"] == "residual"
    ]


def anisotropy(rows: Rows) -> Figure | None:
    """Anisotropy of the last layer, and of what the head reads, over steps."""
    by_layer, order = _by_layer(rows), names(rows)
    steps = sorted({p["step"] for p in by_layer if p["step"] > 0})
    if len(steps) < 2:
        return None
    depth = {name: max(p["layer"] for p in by_layer if p["name"] == name) for name in order}
    last = [{**p, "trained": 0} for p in by_layer if p["layer"] == depth[p["name"]] and p["step"] > 0]
    final = [p for p in _points(rows, "anisotropy", site="final") if p["step"] > 0]
    x = step_axis(steps, _ticks(steps))
    charts = tuple(
        _curves(_averaged(points, 5), [], [], _color(order), title, x, len(order))
        for title, points in (("Last layer, mean cosine", last), ("After the last norm, mean cosine", final))
    )
    caption = (
        "Mean cosine between the representations of all pairs of tokens, after the last block and after the last norm, which the head reads; mean "
        "over seeds, smoothed over five measurements. The paper finds that it rises abruptly in small models, when their loss saturates."
    )
    return Figure("anisotropy", "Anisotropy over training", caption, charts, tidy(last))


def anisotropy_by_depth(rows: Rows) -> Figure | None:
    """Anisotropy after each number of blocks, by step, for the narrowest, a middle and the widest model."""
    by_layer = _by_layer(rows)
    if not by_layer:
        return None
    charts = tuple(_depths([p for p in by_layer if p["name"] == name], name) for name in _three(names(rows)))
    caption = (
        "The same after each number of blocks (0 is the embedding), from early (pale) to late (dark); mean over seeds."
    )
    return Figure("anisotropy-by-depth", "Anisotropy by depth", caption, charts if len(charts) > 1 else charts[0], tidy(by_layer))


def _three(order) -> list[str]:
    """The first, a middle and the last."""
    return list(order) if len(order) <= 3 else [order[0], order[len(order) // 2], order[-1]]


def _some(steps, count: int = SPECTRA_AT) -> list[int]:
    """Steps on a logarithmic grid, the last among them."""
    steps = sorted(s for s in steps if s > 0) or sorted(steps)
    wanted = [steps[0] * (steps[-1] / max(steps[0], 1)) ** (i / (count - 1)) for i in range(count)] if steps[0] > 0 else steps
    return sorted({min(steps, key=lambda s: abs(s - w)) for w in wanted})


def _by_step(steps) -> dict[str, alt.Color]:
    """Colour from early to late; nothing where there is one step."""
    if len(steps) < 2:
        return {}
    shown = steps if len(steps) <= 4 else [steps[0], steps[len(steps) // 2], steps[-1]]
    return {"color": alt.Color("step:O", sort=steps, legend=alt.Legend(title="step", titleOrient="left", values=shown, format=",d", columns=4))}


def _depths(points, name):
    steps = _some({p["step"] for p in points})
    data = means([p for p in points if p["step"] in steps], "step", "layer")
    x = alt.X("layer:Q", title="blocks applied", axis=alt.Axis(format="d", tickMinStep=1), scale=alt.Scale(nice=False, padding=8))
    base = alt.Chart().encode(x=x, y=upright(f"By depth: {name}", zero=True), **_by_step(steps))
    tip = [alt.Tooltip("step:Q", format=",d"), alt.Tooltip("layer:Q"), alt.Tooltip("value:Q", title="mean cosine", format=".3f")]
    return panel(tidy(data), base.mark_line(style="line"), base.mark_point(style="dot"), hover(base, tip), shades=len(steps), height=260)


def spectra(rows: Rows) -> Figure | None:
    """The head's singular values by step."""
    held = [r for r in _plain(rows) if r["metric"] == "head_spectrum"]
    if not held:
        return None
    charts, data, first = [], [], min(r["seed"] for r in held)
    for name in _three(names(rows)):
        mine = [r for r in held if r["name"] == name and r["seed"] == first]
        steps = _some({r["step"] for r in mine})
        points = [
            {"name": name, "step": r["step"], "index": i, "place": i / r["directions"], "value": max(float(v), 1e-6)}
            for r in mine
            if r["step"] in steps
            for i, v in zip(r["index"], r["values"], strict=True)
        ]
        data += points
        x = alt.X("place:Q", title="singular values, as a share of the width", axis=alt.Axis(format="%", tickCount=4),
                  scale=alt.Scale(nice=False, domain=[0, 1]))
        y = alt.Y("value:Q", title=f"{name}: share of the largest", axis=alt.Axis(tickCount=4, format="~g"), scale=alt.Scale(type="log", nice=False))
        base = alt.Chart().encode(x=x, y=y, **_by_step(steps))
        tip = [alt.Tooltip("step:Q", format=",d"), alt.Tooltip("index:Q", title="singular value"),
               alt.Tooltip("value:Q", title="share of the largest", format=".3g")]
        charts.append(panel(tidy(points), base.mark_line(style="line"), hover(base, tip), shades=len(steps), height=260))
    caption = (
        "Singular values of the head by step, from early (pale) to late (dark), each as a share of the largest; one seed. Widths differ, so values are "
        "counted as shares of the width. The paper finds that the spectrum flattens first, and in small models collapses later."
    )
    return Figure("spectra", "The head's spectrum by step", caption, tuple(charts) if len(charts) > 1 else charts[0], tidy(data), _spectrum_table(held, rows))


def _spectrum_table(held, rows):
    found = []
    for name in names(rows):
        end = max((r["step"] for r in held if r["name"] == name), default=None)
        last = [r for r in held if r["name"] == name and r["step"] == end]
        if last:
            found.append({"model": name, "singular entropy at the end, nats": f"{_mean(last, 'value'):.3f}",
                          "effective rank": f"{_mean(last, 'effective_rank'):.1f}", "directions": f"{last[0]['directions']}"})
    return found


def singular_entropy(rows: Rows) -> Figure | None:
    """Singular entropy of the head over steps."""
    points = [p for p in _points(rows, "head_spectrum", lambda r: r["value"] / math.log(max(2, r["directions"]))) if p["step"] > 0]
    steps, order = sorted({p["step"] for p in points}), names(rows)
    if len(steps) < 2:
        return None
    title = "Singular entropy, share of log D"
    chart = _curves(_averaged(points, 5), [], [], _color(order), title, step_axis(steps, _ticks(steps)), len(order))
    caption = (
        "KL(q || uniform) of the head's singular values q, which is 0 for a flat spectrum and log D for a single direction; over log D, so that widths "
        "compare. Mean over seeds, smoothed over five measurements. Where a curve falls the spectrum flattens; where it rises, it collapses."
    )
    return Figure("singular-entropy", "Singular entropy of the head", caption, chart, tidy(points))


def ranks(rows: Rows) -> Figure | None:
    """Loss against the head's rank, on a frozen body."""
    found = [{"rank": r["rank"], "start": r["start"], "seed": r["seed"], "value": float(r["value"])} for r in rows if r["metric"] == "head_rank"]
    if not found:
        return None
    used = [s for s in STARTS if any(p["start"] == s for p in found)]
    critical = [r for r in rows if r["metric"] == "critical_rank" and r["start"] == "trained from there"]
    mean = panels.told(found, ["rank", "start"])
    every = sorted({p["rank"] for p in found})
    x = alt.X("rank:Q", title="rank of the head", axis=alt.Axis(values=every, format="d", labelOverlap="greedy", labelSeparation=8),
              scale=alt.Scale(type="log", nice=False, domain=[every[0], every[-1]], padding=12))
    color = alt.Color("start:N", scale=alt.Scale(domain=used), legend=alt.Legend(columns=3))
    tip = [alt.Tooltip("start:N"), alt.Tooltip("rank:Q"), alt.Tooltip("value:Q", title="loss", format=".3f"), alt.Tooltip("each:N", title="seeds")]
    best = min(m["value"] for m in mean if m["rank"] == every[-1])
    charts = []
    for title, most in (("Held-out loss, nats a token", math.inf), ("The same, near the best", best * 1.08)):
        near = [m for m in mean if m["value"] <= most]
        if len({m["rank"] for m in near}) < 2:
            continue
        y = upright(title)
        base = alt.Chart().encode(x=x, y=y, color=color)
        layers = [own(tidy([p for p in found if p["value"] <= most])).mark_point(style="one").encode(x=x, y=y, color=color)]
        if critical:
            where = sum(r["value"] for r in critical) / len(critical)
            layers.append(own([{"rank": where}]).mark_rule(style="ceiling").encode(x=x))
        charts.append(panel(tidy(near), *layers, base.mark_line(style="mean"), base.mark_point(style="dot"), hover(base, tip), height=260))
    one = next(r for r in rows if r["metric"] == "head_rank")
    said = f" Dashed: r*, where the loss of a head that is trained from the truncated one has climbed by {one['climb']:.0%}." if critical else ""
    caption = (
        f"Heads of lower rank on the frozen body of {one['body']} (width {one['width']}), scored on text they were not trained on: the truncated singular "
        f"value decomposition as it is, trained on from there, and trained from random parameters.{said}"
    )
    return Figure("ranks", "What the rank of the head costs", caption, tuple(charts) if len(charts) > 1 else charts[0], tidy(found), _rank_table(mean, used))


def _rank_table(mean, used):
    known = {(m["rank"], m["start"]): m["value"] for m in mean}
    every = sorted({m["rank"] for m in mean})
    return [{"rank": f"{rank}", **{f"{start}, nats": f"{known[rank, start]:.3f}" if (rank, start) in known else "" for start in used}} for rank in every]


def target(rows: Rows) -> Figure | None:
    """Error of the best approximation of the next-token distributions against its rank, and the rank that is needed against the text's size."""
    errors = [r for r in rows if r["metric"] == "target_error"]
    if not errors:
        return None
    charts, data, first = [], [], min(r["seed"] for r in errors)
    for context in sorted({r["context"] for r in errors}):
        own_ = [r for r in errors if r["context"] == context and r["seed"] == first]
        sizes = sorted({r["size"] for r in own_})
        points = [{"context": context, "tokens": r["size"], "rank": r["rank"], "value": float(r["value"])} for r in own_]
        data += points
        legend = alt.Legend(title="tokens", titleOrient="left", values=[sizes[0], sizes[-1]] if len(sizes) > 1 else sizes, format=".2~s", columns=3)
        x = alt.X("rank:Q", title="rank of the approximation", axis=alt.Axis(tickCount=5, format="~s"), scale=alt.Scale(type="log", nice=False, padding=8))
        base = alt.Chart().encode(x=x, y=upright(f"Error after {context} token{'s' * (context > 1)}", format="%", zero=True),
                                  color=alt.Color("tokens:O", sort=sizes, legend=legend))
        tip = [alt.Tooltip("tokens:Q", format=",d"), alt.Tooltip("rank:Q"), alt.Tooltip("value:Q", title="error", format=".1%")]
        charts.append(panel(tidy(points), base.mark_line(style="line"), base.mark_point(style="dot"), hover(base, tip), shades=len(sizes), height=260))
    caption = (
        "How well a matrix of some rank can stand for the distributions of the next token after each context of the text: relative error in the sense of least "
        "squares, every position of the text counted once, for growing shares of the text, in documents drawn by seed (one seed)."
    )
    return Figure("target", "How many directions the text itself takes", caption, tuple(charts) if len(charts) > 1 else charts[0], tidy(data))


def target_growth(rows: Rows) -> Figure | None:
    """The rank that is needed against the text's size."""
    needed = [{"context": f"{r['context']} token{'s' * (r['context'] > 1)}", "tokens": r["size"], "seed": r["seed"], "value": float(r["value"])}
              for r in rows if r["metric"] == "target_rank"]
    if len({p["tokens"] for p in needed}) < 2:
        return None
    mean = panels.told(needed, ["context", "tokens"], format=".0f")
    error = next(r["error"] for r in rows if r["metric"] == "target_rank")
    x = alt.X("tokens:Q", title="tokens of text", axis=alt.Axis(tickCount=4, format="~s"), scale=alt.Scale(type="log", nice=False, padding=12))
    base = alt.Chart().encode(x=x, y=upright(f"Directions needed for an error of {error:.0%}", format="~s", zero=True),
                              color=alt.Color("context:N", legend=alt.Legend(title="after", titleOrient="left")))
    tip = [alt.Tooltip("context:N"), alt.Tooltip("tokens:Q", format=",d"), alt.Tooltip("value:Q", title="directions", format=".0f"), alt.Tooltip("each:N", title="seeds")]
    chart = panel(tidy(mean), base.mark_line(style="mean"), base.mark_point(style="dot"), hover(base, tip), height=260)
    caption = "The rank that an approximation needs, against the size of the text, mean over orders of its documents. A rank that still grows is the text's, not the language's."
    return Figure("target-growth", "The rank that the text needs grows with it", caption, chart, tidy(needed))


def alternatives(rows: Rows) -> Figure | None:
    """What other kinds of head gain on a full one, in a narrow model."""
    found = [r for r in rows if r["metric"] == "head_gain"]
    if not found:
        return None
    order = list(dict.fromkeys(r["head"] for r in found))
    label = {r["head"]: f"{_said(r['head'])}: {r['size']:.2f} times the numbers" if r.get("size") else _said(r["head"]) for r in found}
    points = [{"name": label[r["head"]], "kind": WAYS[r["way"]], "seed": r["seed"], "value": float(r["value"])} for r in found]
    kinds = [said for way, said in WAYS.items() if any(r["way"] == way for r in found)]
    chart = panels.dots(points, "Nats gained on a full head", order=[label[head] for head in order], kinds=kinds)
    caption = (
        f"Held-out loss with a full head less that with another one, in models of width {found[0]['width']}: right of 0 the other is better. Small dots: seeds. Beside the "
        "name: how many numbers it has, as a multiple of the full head's."
    )
    return Figure("alternatives", "Other heads", caption, chart, tidy(points))


def _said(head: str) -> str:
    """A kind of head in words.

    >>> _said("mixture:4"), _said("sigsoftmax")
    ('mixture of 4', 'sigsoftmax')
    """
    kind, _, number = head.partition(":")
    words = {"mixture": f"mixture of {number}", "projected": f"projected to {number}", "low_rank": f"rank {number}"}
    return words.get(kind, kind)
