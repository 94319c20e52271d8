"""Rows to figures: each function takes rows, and gives an Altair chart, or None where the rows hold
nothing to draw.

A figure's data are tidy and rounded for reading; they are what its CSV holds. Figures fill the
width they are given, and bear no title: the page writes it.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np

from lmdyn.types import ArrayLike, Row

HEIGHT = 260
BINS = 48
"""Points of a curve along the stream: enough to see change, few enough that a bin's mean is steady."""


class Figure(NamedTuple):
    """A chart, and what the page says with it."""

    name: str
    """File name of its downloads, without ending."""
    title: str
    caption: str
    chart: alt.TopLevelMixin | tuple[alt.TopLevelMixin, ...]
    """One chart, or several that stand beside one another."""
    data: list[dict[str, Any]]
    """What is drawn, for the CSV."""
    table: Sequence[Mapping[str, Any]] = ()
    """The same, or its gist, short enough to read on the page; empty where the figure is enough."""


def short(reference: str) -> str:
    """A reference as people say it: no kind, no folders, no ending of a file.

    >>> short("gguf:/models/SmolLM2-135M.Q4_1.gguf"), short("hf:EleutherAI/pythia-70m@step1000")
    ('SmolLM2-135M.Q4_1', 'pythia-70m@step1000')
    """
    kind, _, path = reference.partition(":")
    name = (path or kind).rstrip("/").rpartition("/")[2] or reference
    for ending in (".gguf", ".txt", ".jsonl"):
        name = name.removesuffix(ending)
    return name


def by_layer(
    rows: Sequence[Row], metric: str, site: str, unit: str, axis: str = "layer"
) -> alt.TopLevelMixin | None:
    """A per-layer metric: one line a model, with its ceiling as a rule where the rows say it.

    Args:
      rows: see `lmdyn.records.rows`. A row's `normalized` is its value as a share of the largest
        there can be.
      metric, site: which rows. unit: written on the axis. axis: the axis' name.
    """
    data = layer_data(rows, metric, site)
    if not data:
        return None
    order = list(dict.fromkeys(d["model"] for d in data))
    ceilings = {round(d["ceiling"], 4) for d in data if d.get("ceiling") is not None}
    color = _color(order, data)
    x = alt.X(
        "layer:Q",
        title=axis,
        axis=whole_numbers(d["layer"] for d in data),
        scale=alt.Scale(nice=False, padding=6),
    )
    y = alt.Y(
        "value:Q",
        title=unit,
        axis=alt.Axis(tickCount=5),
        scale=alt.Scale(zero=metric == "anisotropy", nice=True),
    )
    # Both a point and the cell around it show the tooltip; a cell's datum holds the point's.
    told = {"model": "p.model", axis: "p.layer", unit: "format(p.value, '.4f')"}
    if ceilings:
        told["share of the ceiling"] = "format(p.share, '.1%')"
    tip = (
        "{"
        + ", ".join(
            f"{json.dumps(k)}: {v.replace('p.', '(datum.datum || datum).')}"
            for k, v in told.items()
        )
        + "}"
    )
    base = alt.Chart().encode(x=x, y=y, color=color)
    near = alt.selection_point(
        name="near",
        nearest=True,
        on="pointerover",
        clear="pointerout",
        fields=["layer", "model"],
        empty=False,
    )
    layers = [
        base.mark_line(),
        base.mark_point(filled=True, opacity=1, tooltip=alt.ExprRef(tip))
        .encode(size=alt.condition(near, alt.value(110), alt.value(28)))
        .add_params(near),
    ]
    notes = []
    final = [d for d in final_data(rows, metric) if d["model"] in order]
    if final:
        last = {d["model"]: d["layer"] for d in data}
        values = [{**d, "layer": last[d["model"]]} for d in final]
        marks = alt.Chart(alt.Data(values=values)).encode(x=x, y=y, color=color)
        said = [
            alt.Tooltip("model:N"),
            alt.Tooltip("value:Q", title="after the last norm", format=".4f"),
        ]
        layers.append(
            marks.mark_point(shape="diamond", size=90, filled=True, opacity=1).encode(tooltip=said)
        )
        notes.append("diamond: after the last norm")
    rules = [{"ceiling": c} for c in sorted(ceilings)]
    if rules:
        notes.append(
            f"dashed: ceiling log F = {rules[0]['ceiling']:.2f}"
            if len(rules) == 1
            else "dashed: ceilings log F"
        )
        layers.append(
            alt.Chart(alt.Data(values=rules))
            .mark_rule(style="ceiling")
            .encode(y=alt.Y("ceiling:Q"))
        )
    if notes:
        corner = alt.Chart(alt.Data(values=[{}])).mark_text(
            style="note", align="right", baseline="bottom"
        )
        layers.append(
            corner.encode(x=alt.value("width"), y=alt.value(-10), text=alt.value(", ".join(notes)))
        )
    return chart_of(data, *layers).properties(usermeta={"shades": len(order)})


def layer_data(rows: Sequence[Row], metric: str, site: str | None) -> list[dict[str, Any]]:
    """model, step, layer, value of a per-layer metric, and share and ceiling where a row's
    `normalized` tells them.
    """
    data = []
    for r in rows:
        if r["metric"] == metric and r["site"] == site and r["layer"] is not None:
            d = {
                "model": label(r),
                "step": r["step"],
                "layer": r["layer"],
                "value": rounded(r["value"]),
            }
            if r.get("normalized"):
                d |= {
                    "share": rounded(r["normalized"]),
                    "ceiling": rounded(r["value"] / r["normalized"]),
                }
            data.append(d)
    return data


def final_data(rows: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """model, value of a metric after the last norm."""
    return [
        {"model": label(r), "step": r["step"], "layer": "final", "value": rounded(r["value"])}
        for r in rows
        if r["metric"] == metric and r["site"] == "final"
    ]


def stream_data(static: ArrayLike, online: ArrayLike, bins: int = BINS) -> list[dict[str, Any]]:
    """Both curves and their cumulative difference, in at most `bins` runs of predictions of equal
    length.

    Args:
      static, online: [N] nats, one a prediction, on the same tokens.

    Returns:
      One dict a run: `start`, `end` (predictions, end not included), `static`, `online` (mean nats
        over the run),
      `gain` (nats: the sum of static - online from the first prediction to `end`).

    >>> stream_data([4, 2, 3], [3, 2, 1], bins=2)[-1]
    {'start': 2, 'end': 3, 'static': 3.0, 'online': 1.0, 'gain': 3.0}
    """
    before, after = np.asarray(static, np.float64), np.asarray(online, np.float64)
    size = max(1, -(-len(before) // bins))
    starts = np.arange(0, len(before), size)
    ends = np.minimum(starts + size, len(before))
    means = [np.add.reduceat(a, starts) / (ends - starts) for a in (before, after)]
    gain = np.cumsum(before - after)[ends - 1]
    return [
        {
            "start": int(a),
            "end": int(b),
            "static": rounded(s),
            "online": rounded(o),
            "gain": rounded(g),
        }
        for a, b, s, o, g in zip(starts, ends, *means, gain, strict=True)
    ]


def stream(data: Sequence[Mapping[str, Any]]) -> alt.TopLevelMixin:
    """Static against online nll along the stream. Args: data: see `stream_data`."""
    base = alt.Chart().transform_calculate(middle="(datum.start + datum.end) / 2")
    x = alt.X(
        "middle:Q",
        title="predictions so far",
        axis=alt.Axis(format=",d", tickCount=5),
        scale=alt.Scale(nice=False, domainMin=0, domainMax=data[-1]["end"]),
    )
    y = alt.Y(
        "value:Q",
        title="nats a token",
        axis=alt.Axis(tickCount=5),
        scale=alt.Scale(zero=False, nice=True),
    )
    color = alt.Color(
        "series:N", scale=alt.Scale(domain=["online", "static"]), sort=["online", "static"]
    )
    lines = (
        base.transform_fold(["online", "static"], as_=["series", "value"])
        .mark_line()
        .encode(x=x, y=y, color=color, detail="series:N")
    )
    return chart_of(list(data), lines, _cursor(base, x, ["online", "static"]))


def gain(data: Sequence[Mapping[str, Any]]) -> alt.TopLevelMixin:
    """What adaptation has saved so far, in nats, along the stream. Args: data: see `stream_data`."""
    values = [{"end": 0, "gain": 0.0}, *({"end": d["end"], "gain": d["gain"]} for d in data)]
    base = alt.Chart()
    x = alt.X(
        "end:Q",
        title="predictions so far",
        axis=alt.Axis(format=",d", tickCount=5),
        scale=alt.Scale(nice=False, domainMin=0, domainMax=data[-1]["end"]),
    )
    y = alt.Y("gain:Q", title="nats saved", axis=alt.Axis(tickCount=5))
    zero = alt.Chart(alt.Data(values=[{"gain": 0}])).mark_rule(style="zero").encode(y="gain:Q")
    area = base.mark_area(style="under").encode(x=x, y=y)
    line = base.mark_line().encode(x=x, y=y)
    return chart_of(values, area, zero, line, _cursor(base, x, ["gain"]))


def _cursor(base, x, names):
    """An upright line at the nearest point, whose tooltip tells the values there."""
    field = x.shorthand.partition(":")[0]
    near = alt.selection_point(
        name="near",
        nearest=True,
        on="pointerover",
        clear="pointerout",
        encodings=["x"],
        empty=False,
    )
    title = {"gain": "nats saved", "middle": "at prediction"}
    tip = [alt.Tooltip(f"{field}:Q", title="at prediction", format=",d")] + [
        alt.Tooltip(f"{n}:Q", title=title.get(n, n), format=",.3f") for n in names
    ]
    return (
        base.mark_rule(style="cursor")
        .encode(x=x, opacity=alt.condition(near, alt.value(0.6), alt.value(0)), tooltip=tip)
        .add_params(near)
    )


def label(r: Mapping[str, Any]) -> str:
    """A row's model as people say it; a checkpoint of a series with its step, where the reference
    does not tell it.
    """
    name = short(r["model"])
    return (
        name
        if r["step"] is None or str(r["step"]) in name.partition("@")[2]
        else f"{name}@{r['step']}"
    )


def _color(order, data):
    """Models by hue; the checkpoints of a series by a ramp from early to late."""
    steps = {d["model"]: d["step"] for d in data}
    widest = sorted(map(len, order))[-2:]
    legend = alt.Legend(columns=1 if sum(widest) > 36 else 2) if len(order) > 1 else None
    if len(order) > 2 and all(s is not None for s in steps.values()):
        order = sorted(order, key=lambda m: steps[m])
        if len(order) > 6:
            legend = alt.Legend(
                columns=1, values=[order[round(i * (len(order) - 1) / 4)] for i in range(5)]
            )
        return alt.Color("model:O", sort=order, legend=legend)
    return alt.Color("model:N", sort=order, scale=alt.Scale(domain=order), legend=legend)


def whole_numbers(values: Iterable[int]) -> alt.Axis:
    """An axis whose ticks are whole numbers: all of them, or every so many; a step of one half
    would be told as a whole number.

    >>> whole_numbers([2, 0, 1]).values, whole_numbers(range(25)).values
    ([0, 1, 2], [0, 4, 8, 12, 16, 20, 24])
    """
    values = sorted(values)
    least, most = values[0], values[-1]
    every = next(
        n for n in (1, 2, 4, 5, 10, 20, 50, 100, most - least + 1) if (most - least) / n <= 8
    )
    return alt.Axis(format="d", values=list(range(least, most + 1, every)))


def chart_of(
    values: Sequence[Mapping[str, Any]], *layers: alt.Chart
) -> alt.LayerChart | alt.FacetChart:
    """One chart of layers over the same data (where a layer has none of its own), as wide as its
    place.
    """
    chart = alt.layer(*layers, data=alt.Data(values=values))
    return chart.properties(
        width="container",
        height=HEIGHT,
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
    )


def rounded(value: float, digits: int = 6) -> float:
    """`value` to six significant digits, as a float."""
    return (
        0.0 if value == 0 else round(float(value), digits - 1 - math.floor(math.log10(abs(value))))
    )
