"""Any metric's rows as a figure: its values by layer, and over the steps of a series.

Nothing here knows a metric: title, unit, caption and axis come from the rows' provenance
(`lmdyn.records.Quantity`), so that the rows of a metric that somebody writes are drawn too.
"""

import collections
import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from lmdyn.records import Quantity, quantity_of
from lmdyn.report import gradient_profiles, stream_figures
from lmdyn.report.captions import about, base_name
from lmdyn.report.figures import Figure, chart_of, label, number, rounded, whole_numbers
from lmdyn.report.folders import Run
from lmdyn.report.markup import slug
from lmdyn.report.panels import hover, step_axis, tooltips
from lmdyn.types import Row

RATIOS = ("cosine", "ratio", "share", "log share")
"""Units that are the name of a pure number, which a sentence says before it."""
LEAST_STEPS = 3
"""So many checkpoints make a curve over steps."""
FINAL = "final"
"""The site after the last norm, drawn beside the layers."""


def measured(runs: Sequence[Run]) -> list[Figure]:
    """The figures of everything that is not a study: metrics by layer, gradients, streams, courses.

    A series of checkpoints has figures of its own; other models share theirs.

    Args:
      runs: what `lmdyn measure`, `gradients`, `online` and `train` left.
    """
    rows = [row for run in runs for row in run.rows]
    elsewhere = {*gradient_profiles.PROFILE_METRICS, *stream_figures.STREAM_QUANTITIES}
    names = [n for n in dict.fromkeys(row["metric"] for row in rows) if n not in elsewhere]
    series = _series(rows)
    found = [
        figure
        for subject in ("", *sorted(series))
        for name in names
        if (figure := _figure(name, _of_subject(runs, name, subject, series))) is not None
    ]
    taken = collections.Counter[str]()
    for i, figure in enumerate(found):
        taken[figure.name] += 1
        if taken[figure.name] > 1:
            name = f"{figure.name}-{taken[figure.name]}"
            found[i] = figure._replace(name=name, rank=min(figure.rank, 0))  # one opens a page
    layered = [f for f in found if any(isinstance(d["layer"], int) for d in f.data)]
    courses = [f for f in found if f not in layered]
    streams = [s for run in runs for s in stream_figures.figures(run, about([run]))]
    numbered = [
        figure._replace(name=f"{figure.name}-{i // 2 + 1}", rank=0) if i > 1 else figure
        for i, figure in enumerate(streams)
    ]
    found = [*layered, *gradient_profiles.profiles(rows), *numbered, *courses]
    return sorted(found, key=lambda figure: figure.rank < 0)


def _series(rows: Sequence[Row]) -> set[str]:
    """The models of which there are checkpoints enough for a curve over steps."""
    steps: dict[str, set[int]] = {}
    for row in rows:
        if row["step"] is not None:
            steps.setdefault(base_name(row), set()).add(row["step"])
    return {name for name, found in steps.items() if len(found) >= LEAST_STEPS}


def _of_subject(runs: Sequence[Run], metric: str, subject: str, series: set[str]) -> list[Run]:
    """The rows of a metric that a group of figures draws: of a series, or of all other models."""
    found = []
    for run in runs:
        rows = [
            row
            for row in run.rows
            if row["metric"] == metric
            and (base_name(row) == subject if subject else base_name(row) not in series)
        ]
        if rows:
            found.append(run._replace(rows=rows))
    return found


def _figure(metric: str, runs: Sequence[Run]) -> Figure | None:
    """One metric: a panel for each site that has layers, and one over the steps of a series."""
    rows = [row for run in runs for row in run.rows]
    if not rows:
        return None
    meta = next((run.meta for run in runs if metric in run.meta.get("metrics", {})), runs[0].meta)
    quantity = quantity_of(rows[0], meta)
    sites = list(dict.fromkeys(row["site"] for row in rows if row["layer"] is not None))
    charts, data = [], []
    for site in sites:
        layers, final = layer_data(rows, site), final_data(rows)
        place = gradient_profiles.GROUP_TITLES.get(site, site)
        name = f"{place}, {quantity.unit}" if len(sites) > 1 else quantity.unit
        charts.append(by_layer(layers, final, quantity, name))
        tag = {"site": site} if len(sites) > 1 else {}
        data += [{**tag, **d} for d in layers + final]
    points = course_data(rows)
    if points:
        which = "whole model" if any(row["layer"] is None for row in rows) else "mean over layers"
        unit = f"{which}, {quantity.unit}" if charts else quantity.unit
        charts.append(course(points, unit))
        data += [{**d, "layer": which} for d in points]
    if not charts:
        return None
    title = f"{quantity.title} {'by layer' if sites else 'over training'}"
    return Figure(
        slug(metric.replace("_", "-")),
        f"{title}: {points[0]['model']}" if points else title,
        _caption(quantity, bool(sites), bool(points), runs),
        charts[0] if len(charts) == 1 else tuple(charts),
        data,
        says=said(quantity, layer_data(rows, sites[0]) if sites else points, bool(sites)),
        rank=quantity.rank,
    )


def _caption(quantity: Quantity, layers: bool, points: bool, runs: Sequence[Run]) -> str:
    """The metric's own words, or else what is drawn; then how to read it, and of what it is."""
    what = quantity.caption or f"{quantity.title}, in {quantity.unit or 'units of its own'}."
    read = ["Left to right: from the embedding to the head."] if layers else []
    if points:
        read.append("Over training: a point per checkpoint.")
    return " ".join([what, *read, about(runs)])


def said(quantity: Quantity, data: Sequence[Mapping[str, Any]], layers: bool) -> str:
    """What a metric's values come to, in a sentence.

    Args:
      quantity: the metric in words.
      data: see `layer_data`, or `course_data` where it has no layers.
      layers: which of the two.

    >>> of = Quantity("h", "Entropy", "nats")
    >>> data = [{"model": "m", "step": None, "layer": i, "value": 2.0 - i} for i in range(2)]
    >>> said(of, data, True)
    'Entropy is highest at layer 0 (2.00 nats) and lowest at layer 1 (1.00 nats); mean 1.50 nats.'
    >>> said(of, [{"model": m, "step": None, "value": 2.0} for m in ("m", "n")], False)
    'Entropy: 2.00 nats in m, 2.00 nats in n.'
    """
    unit = quantity.unit
    amount = lambda value: (
        f"{unit} {number(value)}" if unit in RATIOS else f"{number(value)} {unit}"
    )
    steps = {d["step"] for d in data}
    series = None not in steps and (not layers or len(steps) >= LEAST_STEPS)
    models: dict[str, list[Mapping[str, Any]]] = {}
    for d in data:
        models.setdefault(f"step {d['step']:,}" if series else d["model"], []).append(d)
    means = {m: sum(d["value"] for d in own) / len(own) for m, own in models.items()}
    if len(models) == 1 and layers:
        own = next(iter(models.values()))
        low, high = (choose(own, key=lambda d: d["value"]) for choose in (min, max))
        at = lambda d: f"{quantity.axis} {d['layer']} ({amount(d['value']).strip()})"
        return (
            f"{quantity.title} is highest at {at(high)} and lowest at {at(low)};"
            f" mean {amount(sum(means.values())).strip()}."
        )
    ends = list(means) if len(means) < 4 else [*means][:: len(means) - 1]
    values = ", ".join(f"{amount(means[m]).strip()} {'at' if series else 'in'} {m}" for m in ends)
    return f"{quantity.title}{', mean over layers' if layers else ''}: {values}."


def layer_data(rows: Sequence[Row], site: str | None) -> list[dict[str, Any]]:
    """The values of a metric's rows at a site: model, step, layer, value.

    Share and ceiling too, where a row's `normalized` says what share of the largest possible value
    it is.

    >>> row = {"model": "dir:tiny", "step": None, "site": "mlp", "layer": 0, "value": 1.0}
    >>> layer_data([{**row, "normalized": 0.5}], "mlp")
    [{'model': 'tiny', 'step': None, 'layer': 0, 'value': 1.0, 'share': 0.5, 'ceiling': 2.0}]
    """
    data, alone = [], len({label(r) for r in rows}) == 1
    for r in rows:
        if r["site"] == site and r["layer"] is not None:
            kind = r.get("kind") or r.get("set")
            name = ", ".join(filter(None, ("" if alone and kind else label(r), kind)))
            d = {"model": name, "step": r["step"], "layer": r["layer"]}
            d["value"] = rounded(r["value"])
            if r.get("normalized"):
                d["share"] = rounded(r["normalized"])
                d["ceiling"] = rounded(r["value"] / r["normalized"])
            data.append(d)
    return data


def final_data(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The values of a metric after the last norm: model, step, layer, value.

    >>> final_data([{"model": "dir:tiny", "step": 8, "site": "final", "value": 0.25}])
    [{'model': 'tiny@8', 'step': 8, 'layer': 'final', 'value': 0.25}]
    """
    return [
        {"model": label(r), "step": r["step"], "layer": FINAL, "value": rounded(r["value"])}
        for r in rows
        if r["site"] == FINAL
    ]


def course_data(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The checkpoints of each series of three or more: model, site, step, value.

    The value is the whole model's, or the mean over layers where no row is of the whole.

    >>> row = {"model": "run:tiny", "site": None, "layer": None}
    >>> course_data([{**row, "step": step, "value": 5.0 - step} for step in range(3)])[-1]
    {'model': 'tiny', 'site': '', 'step': 2, 'value': 3.0}
    """
    whole = any(r["layer"] is None for r in rows)
    values: dict[tuple, list[float]] = {}
    for r in rows:
        if r["step"] is not None and (r["layer"] is None) == whole:
            values.setdefault((base_name(r), r["site"], r["step"]), []).append(r["value"])
    steps = collections.Counter((series, site) for series, site, _ in values)
    found = [
        {"model": series, "site": site or "", "step": step, "value": rounded(sum(v) / len(v))}
        for (series, site, step), v in values.items()
        if steps[series, site] >= LEAST_STEPS
    ]
    return sorted(found, key=lambda d: (d["model"], d["site"], d["step"]))


def by_layer(
    data: Sequence[Mapping[str, Any]],
    final: Sequence[Mapping[str, Any]],
    quantity: Quantity,
    title: str,
) -> alt.TopLevelMixin:
    """Values by layer: a line per model, with its ceiling as a rule where the rows say it.

    Args:
      data: see `layer_data`.
      final: see `final_data`.
      quantity: the metric in words.
      title: above the upright axis, with the unit.
    """
    order = list(dict.fromkeys(d["model"] for d in data))
    values = [d["value"] for d in data]
    axis = whole_numbers(d["layer"] for d in data)
    x = alt.X("layer:Q", title=quantity.axis, axis=axis, scale=alt.Scale(nice=False, padding=6))
    near_zero = min(values) < 0.3 * max(values)
    scale = alt.Scale(zero=near_zero, nice=True)
    y = alt.Y("value:Q", title=title, axis=alt.Axis(tickCount=5), scale=scale)
    color = _color(order, data)
    base = alt.Chart().encode(x=x, y=y, color=color)
    ceilings = sorted({round(d["ceiling"], 4) for d in data if d.get("ceiling") is not None})
    layers = [base.mark_line(), _near_points(base, quantity, bool(ceilings))]
    notes = []
    last = {d["model"]: d["layer"] for d in data}
    ends = [{**d, "layer": last[d["model"]]} for d in final if d["model"] in last]
    if ends:
        tip = ["model:N", "after the last norm = value:Q .4f"]
        marks = alt.Chart(alt.Data(values=ends)).encode(
            x=x, y=y, color=color, tooltip=tooltips(tip)
        )
        layers.append(marks.mark_point(shape="diamond", size=90, filled=True, opacity=1))
        notes.append("diamond: after the last norm")
    if ceilings:
        rules = alt.Chart(alt.Data(values=[{"ceiling": c} for c in ceilings]))
        layers.append(rules.mark_rule(style="ceiling").encode(y=alt.Y("ceiling:Q")))
        one = len(ceilings) == 1
        notes.append(f"dashed: ceiling = {ceilings[0]:.2f}" if one else "dashed: ceilings")
    if notes:
        layers.append(_note(", ".join(notes)))
    return chart_of(data, *layers).properties(usermeta={"shades": len(order)})


def _near_points(base: alt.Chart, quantity: Quantity, share: bool) -> alt.Chart:
    """Points, of which the nearest to the pointer grows and shows its values.

    Both a point and the cell around it show the tooltip; a cell's datum holds the point's.
    """
    shown = {"model": "p.model", quantity.axis: "p.layer"}
    shown[quantity.unit or "value"] = "format(p.value, '.4f')"
    if share:
        shown[quantity.fields.get("normalized", "share of the ceiling")] = "format(p.share, '.1%')"
    pairs = (
        f"{json.dumps(k)}: {v.replace('p.', '(datum.datum || datum).')}" for k, v in shown.items()
    )
    near = alt.selection_point(
        name="near",
        nearest=True,
        on="pointerover",
        clear="pointerout",
        fields=["layer", "model"],
        empty=False,
    )
    tip = alt.ExprRef("{" + ", ".join(pairs) + "}")
    points = base.mark_point(filled=True, opacity=1, tooltip=tip)
    size = alt.condition(near, alt.value(110), alt.value(28))
    return points.encode(size=size).add_params(near)


def _note(text: str) -> alt.Chart:
    """Words above the right end of a chart."""
    corner = alt.Chart(alt.Data(values=[{}]))
    mark = corner.mark_text(style="note", align="right", baseline="bottom")
    return mark.encode(x=alt.value("width"), y=alt.value(-10), text=alt.value(text))


def course(points: Sequence[Mapping[str, Any]], title: str) -> alt.TopLevelMixin:
    """Values over the steps of series: a line per series, or per site where there are several.

    Args:
      points: see `course_data`.
      title: above the upright axis, with the unit.
    """
    by = "model" if len({d["model"] for d in points}) > 1 else "site"
    order = list(dict.fromkeys(d[by] for d in points))
    legend = alt.Legend(columns=2) if len(order) > 1 else None
    x = step_axis(sorted({d["step"] for d in points}))
    axis = alt.Axis(tickCount=5)
    y = alt.Y("value:Q", title=title, axis=axis, scale=alt.Scale(zero=False, nice=True))
    color = alt.Color(f"{by}:N", sort=order, scale=alt.Scale(domain=order), legend=legend)
    base = alt.Chart().encode(x=x, y=y, color=color, detail=["model:N", "site:N"])
    tip = ["model:N", "step:Q ,d", "value:Q .4f"]
    return chart_of(list(points), base.mark_line(), base.mark_point(style="dot"), hover(base, tip))


def _color(order: Sequence[str], data: Sequence[Mapping[str, Any]]) -> alt.Color:
    """Models by hue; the checkpoints of a series by a ramp from early to late."""
    steps = {d["model"]: d["step"] for d in data}
    widest = sorted(map(len, order))[-2:]
    few = 3 if max(widest) <= 10 else 1 if sum(widest) > 36 else 2
    legend = alt.Legend(columns=few) if len(order) > 1 else None
    if len(order) > 2 and all(s is not None for s in steps.values()):
        order = sorted(order, key=lambda m: steps[m] or 0)
        if len(order) > 6:
            shown = [order[round(i * (len(order) - 1) / 4)] for i in range(5)]
            legend = alt.Legend(columns=few, values=shown)
        return alt.Color("model:O", sort=order, legend=legend)
    return alt.Color("model:N", sort=order, scale=alt.Scale(domain=order), legend=legend)
