"""Pieces of the figures of studies: panels over training steps, dots of seeds, means over seeds.

A panel is a chart as wide as its place, with its name above it, mostly as the title of its
upright axis. The area that reacts to the pointer is larger than what is seen, so that a finger hits
it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from lmdyn.report.figures import chart_of, rounded

PANEL_HEIGHT = 210
SEED, PALE, MEAN = "seed", "pale", "mean"
"""Styles of `lmdyn.report.theme`: one seed, what is only background, the mean over seeds."""


def tidy(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Points with their numbers rounded for reading.

    >>> tidy([{"name": "a", "value": 1 / 3}])
    [{'name': 'a', 'value': 0.333333}]
    """
    return [{k: rounded(v) if isinstance(v, float) else v for k, v in p.items()} for p in points]


def point(row: Mapping[str, Any], /, *fields: str, **more: Any) -> dict[str, Any]:
    """A point to draw: some fields of a row, its value, and what else it has.

    >>> point({"step": 8, "value": 1, "unit": "nats"}, "step", name="width 8")
    {'step': 8, 'value': 1.0, 'name': 'width 8'}
    """
    return {**{k: row[k] for k in fields}, "value": float(row["value"]), **more}


def means(points: Sequence[Mapping[str, Any]], *by: str) -> list[dict[str, Any]]:
    """The mean over seeds of every number that is not named in `by`, in the order of the points.

    Returns:
      A dict for each combination of `by`: these, the means, and `seeds`, how many points it is the
        mean of.

    >>> means(
    ...     [{"step": 1, "seed": 0, "value": 2.0}, {"step": 1, "seed": 1, "value": 4.0}], "step"
    ... )
    [{'step': 1, 'value': 3.0, 'seeds': 2}]
    """
    groups: dict[tuple, list] = {}
    for p in points:
        groups.setdefault(tuple(p[k] for k in by), []).append(p)
    found = []
    for key, group in groups.items():
        numbers = [k for k, v in group[0].items() if isinstance(v, float) and k not in by]
        mean = {k: rounded(sum(p[k] for p in group) / len(group)) for k in numbers}
        found.append({**dict(zip(by, key, strict=True)), **mean, "seeds": len(group)})
    return found


def panel(
    values: Sequence[Mapping[str, Any]],
    *layers: alt.Chart,
    height: int = PANEL_HEIGHT,
    shades: int = 5,
    name: str | None = None,
) -> alt.TopLevelMixin:
    """Layers over the same data, as wide as their place.

    Args:
      values: the data.
      *layers: drawn over one another, the first at the bottom.
      height: in pixels.
      shades: how many there are of what is coloured from early to late.
      name: shown above; for panels whose upright axis has no title.

    >>> base = alt.Chart().encode(x="step:Q", y=upright("nats per token"))
    >>> chart = panel([{"step": 1, "value": 3.0}], *joined(base, ["value:Q .3f"]), height=200)
    >>> len(chart.layer)  # a line, dots, and what shows the tooltip
    3
    """
    chart = chart_of(list(values), *layers).properties(height=height, usermeta={"shades": shades})
    return chart if name is None else chart.properties(title=name)


def one_or_all(charts: Sequence[alt.TopLevelMixin]) -> Any:
    """The chart of a figure: the only one of some panels, or all of them.

    >>> one_or_all([alt.Chart()]), one_or_all([alt.Chart(), alt.Chart()])
    (alt.Chart(...), (alt.Chart(...), alt.Chart(...)))
    """
    return tuple(charts) if len(charts) > 1 else charts[0]


def own(values: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """A layer with data of its own.

    >>> own([{"value": 0}]).data.values
    [{'value': 0}]
    """
    return alt.Chart(alt.Data(values=list(values)))


def upright(
    title: str | None, field: str = "value", format: str | None = None, zero: bool = False
) -> alt.Y:
    """The vertical axis of a quantity; its title names the panel.

    >>> upright("nats per token").to_dict()["title"]
    'nats per token'
    """
    axis = alt.Axis(tickCount=5, format=alt.Undefined if format is None else format)
    return alt.Y(f"{field}:Q", title=title, axis=axis, scale=alt.Scale(zero=zero, nice=True))


def level(
    title: str | None, field: str = "value", format: str | None = None, zero: bool = False
) -> alt.X:
    """The horizontal axis of a quantity.

    >>> level("nats", format=".1f").to_dict()["axis"]["format"]
    '.1f'
    """
    axis = alt.Axis(
        tickCount=4,
        grid=True,
        labelOverlap="greedy",
        labelSeparation=8,
        format=alt.Undefined if format is None else format,
    )
    return alt.X(
        f"{field}:Q", title=title, axis=axis, scale=alt.Scale(zero=zero, nice=True, padding=10)
    )


def across(field: str, title: str, format: str, *, ticks: int = 4, **scale: Any) -> alt.X:
    """The horizontal axis of a quantity, ending where the data end.

    Args:
      field: of the points, with its type.
      title: of the axis.
      format: of its labels.
      ticks: about how many there are.
      **scale: what else `altair.Scale` takes.

    >>> across("step:Q", "training step", ",d", domain=[0, 320]).to_dict()["scale"]["domain"]
    [0, 320]
    """
    axis = alt.Axis(tickCount=ticks, format=format)
    return alt.X(field, title=title, axis=axis, scale=alt.Scale(nice=False, **scale))


def step_axis(
    steps: Sequence[int],
    ticks: Sequence[int] = (),
    title: str = "training step",
    field: str = "step",
) -> alt.X:
    """Training steps on a logarithmic axis.

    Where step 0 is among them, the axis is linear up to the first other step.

    Args:
      steps: all that are drawn.
      ticks: those that are labelled; all of them if none.
      title: of the axis.
      field: of the points.

    >>> (
    ...     step_axis([0, 1, 10, 100]).to_dict()["scale"]["type"],
    ...     step_axis([1, 10]).to_dict()["axis"]["values"],
    ... )
    ('symlog', [1, 10])
    """
    positive = [s for s in steps if s > 0]
    whole = len(positive) == len(steps)
    scale = alt.Scale(
        type="log" if whole else "symlog",
        constant=alt.Undefined if whole else min(positive, default=1),
        domain=[min(steps), max(steps)],
        nice=False,
        padding=8,
    )
    ticks = sorted({*(ticks or steps), *(s for s in steps if s == 0)})
    axis = alt.Axis(
        values=ticks,
        format="~s" if max(steps) >= 10000 else ",d",
        labelOverlap="greedy",
        labelSeparation=8,
    )
    return alt.X(f"{field}:Q", title=title, axis=axis, scale=scale)


def means_with_seeds(
    points: Sequence[Mapping[str, Any]],
    by: Sequence[str],
    field: str = "value",
    format: str = ".3f",
) -> list[dict[str, Any]]:
    """`means`, each with `each`: the values of the single seeds, as text for tooltips.

    >>> points = [
    ...     {"step": 1, "seed": seed, "value": value} for seed, value in enumerate((1.0, 2.0))
    ... ]
    >>> means_with_seeds(points, ["step"])[0]["each"]
    '1.000, 2.000'
    """
    found = means(points, *by)
    for mean in found:
        own = [p for p in points if all(p[k] == mean[k] for k in by)]
        mean["each"] = ", ".join(f"{p[field]:{format}}" for p in own)
    return found


def over_steps(
    points: Sequence[Mapping[str, Any]],
    title: str,
    *,
    x: alt.X,
    format: str = ".3f",
    more: Mapping[str, str] | None = None,
    behind: Sequence[Mapping[str, Any]] = (),
    above: Sequence[alt.Chart] = (),
    zero: bool = False,
) -> alt.TopLevelMixin:
    """One measure over training steps: a thin line for each seed, a thick one for their mean.

    Args:
      points: `step`, `seed`, `value`, and whatever `more` names.
      title: of the panel.
      x: see `step_axis`.
      format: of values.
      more: other fields that tooltips show, with their formats.
      behind: more points, drawn pale, a line for each seed.
      above: layers over all others.
      zero: a line at 0.

    >>> points = [
    ...     {"step": 1, "seed": seed, "value": value} for seed, value in enumerate((1.0, 2.0))
    ... ]
    >>> chart = over_steps(points, "nats per token", x=step_axis([1]))
    >>> chart.data.values  # the mean; seeds are in a layer of their own
    [{'step': 1, 'value': 1.5, 'seeds': 2, 'each': '1.000, 2.000'}]
    """
    mean, single = (
        means_with_seeds(points, ["step"], format=format),
        len({p["seed"] for p in points}) == 1,
    )
    y = upright(title, format="%" if format.endswith("%") else None)
    layers = []
    if zero:
        layers.append(own([{"value": 0}]).mark_rule(style="zero").encode(y=y))
    if behind:
        layers.append(own(tidy(behind)).mark_line(style=PALE).encode(x=x, y=y, detail="seed:N"))
    if not single:
        layers.append(own(tidy(points)).mark_line(style=SEED).encode(x=x, y=y, detail="seed:N"))
    tip = [
        "step = step:Q ,d",
        f"{'value' if single else 'mean'} = value:Q {format}",
        *(f"{k} = {k}:Q {f}" for k, f in (more or {}).items()),
        *([] if single else ["seeds = each:N"]),
    ]
    base = alt.Chart().encode(x=x, y=y)
    return panel(mean, *layers, *joined(base, tip), *above)


def tooltips(shown: Sequence[str]) -> list[alt.Tooltip]:
    """The fields of a tooltip.

    Each is written `field:type`, `field:type format` or `title = field:type format`.

    >>> tooltips(["rise, nats = value:Q .3f"])[0].to_dict()
    {'field': 'value', 'format': '.3f', 'title': 'rise, nats', 'type': 'quantitative'}
    """
    found = []
    for text in shown:
        title, _, rest = text.rpartition(" = ")
        field, _, format = rest.partition(" ")
        found.append(
            alt.Tooltip(field, title=title or alt.Undefined, format=format or alt.Undefined)
        )
    return found


def hues(field: str, names: Sequence[str], columns: int = 2, **legend: Any) -> alt.Color:
    """A colour for each name, in their order; `legend`: what else `altair.Legend` takes.

    >>> hues("kind:N", ["new", "old"]).to_dict()["legend"]
    {'columns': 2}
    """
    scale = alt.Scale(domain=list(names))
    return alt.Color(field, scale=scale, legend=alt.Legend(columns=columns, **legend))


def hover(base: alt.Chart, tip: Sequence[str]) -> alt.Chart:
    """Invisible points around those of `base`, with a tooltip that shows `tip` (see `tooltips`).

    >>> hover(alt.Chart(), ["value:Q .3f"]).to_dict(validate=False)["mark"]["style"]
    'target'
    """
    return base.mark_point(style="target").encode(tooltip=tooltips(tip))


def joined(base: alt.Chart, tip: Sequence[str], line: str = "mean") -> tuple[alt.Chart, ...]:
    """Layers of `base`: a line in this style, its dots, and their tooltips.

    >>> [layer.mark.type for layer in joined(alt.Chart(), ["value:Q .3f"])]
    ['line', 'point', 'point']
    """
    return base.mark_line(style=line), base.mark_point(style="dot"), hover(base, tip)


def dots(
    points: Sequence[Mapping[str, Any]],
    title: str,
    *,
    order: Sequence[str],
    kinds: Sequence[str] = (),
    format: str = ".3f",
    more: Any = None,
) -> alt.TopLevelMixin:
    """A line for each name: a small dot for each seed, a large one for their mean; a rule at 0.

    Args:
      points: `name`, `seed`, `value`, and `kind` where `kinds` are given.
      title: of the panel.
      order: of the names; what follows a colon goes on a second line.
      kinds: have colours, one below the other.
      format: of values.
      more: other fields that tooltips show, with their formats.

    >>> points = [{"name": "SGD", "seed": seed, "value": 0.1 * seed} for seed in range(3)]
    >>> dots(points, "nats saved", order=["SGD"]).data.values[0]["each"]
    '0.000, 0.100, 0.200'
    """
    by = ["name", "kind"] if kinds else ["name"]
    mean = means_with_seeds(points, by, format=format)
    rows = len(order) * max(1, len(kinds))
    x = level(None, format=".1%" if format.endswith("%") else None, zero=True)
    lines = alt.Axis(
        labelExpr="split(datum.label, ': ')", labelLimit=170, labelPadding=8, labelLineHeight=15
    )
    y = alt.Y("name:N", title=None, sort=list(order), axis=lines)
    marks = {"x": x, "y": y}
    if kinds:
        used = [k for k in kinds if any(p["kind"] == k for p in points)]
        scale = alt.Scale(domain=list(kinds))
        marks["yOffset"] = alt.YOffset(
            "kind:N", sort=used, scale=alt.Scale(domain=used, paddingOuter=0.4)
        )
        marks["color"] = alt.Color("kind:N", scale=scale, legend=alt.Legend(columns=2, values=used))
        marks["shape"] = alt.Shape(
            "kind:N",
            scale=alt.Scale(
                domain=list(kinds), range=["circle", "diamond", "square"][: len(kinds)]
            ),
            legend=alt.Legend(values=used),
        )
    tip = [f"{k}:N" for k in by] + [f"mean = value:Q {format}"]
    tip += [f"{k} = {k}:Q {f}" for k, f in (more or {}).items()] + ["seeds = each:N"]
    base = alt.Chart().encode(**marks)
    layers = [own([{"value": 0}]).mark_rule(style="zero").encode(x=x)]
    if any(m["seeds"] > 1 for m in mean):
        layers.append(own(tidy(points)).mark_point(style="one").encode(**marks))
    layers += [base.mark_point(style="dot", size=80), hover(base, tip)]
    return panel(mean, *layers, height=24 * rows + 16 * len(order), name=title)
