"""The figures of the entropy-decay study, from its rows.

How entropy went in every run, and what each factor did to it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from lmdyn.report.figures import Figure
from lmdyn.report.panels import across, hover, hues, level, own, panel, point, tidy, upright
from lmdyn.studies.claims import where
from lmdyn.types import Rows

OTHER_EFFECTS = {"dip": "Effect on the first fall", "end": "Effect on the level at the end"}
"""What else the study measures of a run, by `of` of the rows, as panels name it."""


def figures(rows: Rows) -> list[Figure]:
    """Every figure that the rows have something for, in the order of the page."""
    made = (curves, effects, other_effects, loss)
    return [figure for make in made if (figure := make(rows)) is not None]


def strongest(rows: Rows) -> list[str]:
    """Factors by the size of their effect, the largest first.

    The effect on the change over the second half of training.
    """
    return [e["factor"] for e in _effects(rows, "change")]


def _levels(rows) -> dict[str, list[str]]:
    """Low and high level of each factor."""
    return {r["factor"]: [r["low_level"], r["high_level"]] for r in rows if r["metric"] == "effect"}


def curves(rows: Rows) -> Figure | None:
    """Knowledge entropy over the steps of every run, told apart by the two strongest factors."""
    data = [
        point(r, "run", "step", nats=float(r["value"]))
        | {"value": float(r["normalized"]), **r["levels"]}
        for r in where(rows, "knowledge_entropy", layer=None)
        if "run" in r and "normalized" in r
    ]
    factors, levels = strongest(rows), _levels(rows)
    if not data or not factors:
        return None
    facets = [("", data)]
    if factors[1:]:
        facets = [
            (f" ({factors[1]}: {name})", [d for d in data if d[factors[1]] == name])
            for name in levels[factors[1]]
        ]
    x = across("step:Q", "training step", ",d", ticks=5, domain=[0, max(d["step"] for d in data)])
    domain = [min(d["value"] for d in data), max(d["value"] for d in data)]
    scale, axis = alt.Scale(zero=False, nice=True, domain=domain), alt.Axis(tickCount=5, format="%")
    charts = []
    for part, shown in facets:
        y = alt.Y("value:Q", title=f"Share of the ceiling{part}", axis=axis, scale=scale)
        charts.append(_curves(shown, x, y, factors[0], levels))
    begins = "the dotted line" if len(ends(data)) == 1 else "a dotted line, one for each length"
    caption = (
        "Mean over layers of H / log F, a line for each run. Colour and panel are the two factors"
        " with the largest effects on the change over the second half of training, which begins at"
        f" {begins}. A line that falls there is decaying."
    )
    table = [
        {
            "run": r["run"],
            **r["levels"],
            "first fall": f"{r['dip']:.1%}",
            "at the end": f"{r['end']:.1%}",
            "change, second half": f"{r['value']:+.2%}",
            "nll, second half": f"{r['nll_change']:+.3f}",
        }
        for r in where(rows, "entropy_change")
    ]
    title = "Knowledge entropy in every run"
    return Figure("curves", title, caption, tuple(charts), tidy(data), table)


def _curves(shown, x, y, hue: str, levels) -> alt.TopLevelMixin:
    """A line for each run, coloured by the level of a factor."""
    color = hues("hue:N", [f"{hue}: {name}" for name in levels[hue]])
    base = alt.Chart().encode(x=x, y=y, color=color, detail="run:N")
    tip = ["run:N", "step:Q ,d", "share of the ceiling = value:Q .2%", "nats:Q .3f"]
    tip += [f"{f}:N" for f in levels]
    half = own([{"step": end / 2} for end in ends(shown)]).mark_rule(style="round").encode(x=x)
    values = [{**d, "hue": f"{hue}: {d[hue]}"} for d in tidy(shown)]
    return panel(values, half, base.mark_line(style="run"), hover(base, tip), height=280)


def ends(points: Sequence[Mapping[str, Any]]) -> list[int]:
    """The last steps that runs have, each once.

    >>> ends(
    ...     [
    ...         {"run": 0, "step": 4},
    ...         {"run": 0, "step": 8},
    ...         {"run": 1, "step": 8},
    ...         {"run": 2, "step": 4},
    ...     ]
    ... )
    [4, 8]
    """
    runs = {p["run"] for p in points}
    return sorted({max(p["step"] for p in points if p["run"] == run) for run in runs})


def effects(rows: Rows) -> Figure | None:
    """What each factor adds to the change of entropy over the second half of training."""
    found = _effects(rows, "change")
    if not found:
        return None
    caption = (
        "How much more the share H / log F changes over the second half of training at a factor's"
        " second level than at its first, with its 95% interval. Left of 0, the second level makes"
        " entropy fall more, or rise less. Main effects by least squares over all runs;"
        " interactions are part of the noise."
    )
    chart = _forest(found, "Effect on the change over the second half")
    return Figure("effects", "What makes entropy fall", caption, chart, tidy(found))


def other_effects(rows: Rows) -> Figure | None:
    """The same for the first fall and for the level at the end."""
    found = {of: _effects(rows, of) for of in OTHER_EFFECTS}
    if not all(found.values()):
        return None
    charts = tuple(_forest(points, OTHER_EFFECTS[of]) for of, points in found.items())
    caption = (
        "The same effects on how far entropy falls at first (right of 0: further), and on where it"
        " stands at the end (right of 0: higher), as points of the ceiling, with 95%"
        " intervals."
    )
    title = "What makes the first fall, and the level at the end"
    data = tidy([{"of": of, **p} for of, points in found.items() for p in points])
    return Figure("other-effects", title, caption, charts, data)


def _effects(rows, of) -> list[dict[str, Any]]:
    found = [
        {"factor": r["factor"], "from": r["low_level"], "to": r["high_level"]}
        | {k: float(r[k]) for k in ("value", "low", "high")}
        for r in where(rows, "effect", of=of)
    ]
    return sorted(found, key=lambda e: -abs(e["value"]))


def _forest(found, title):
    """Effects below one another, each with its interval."""
    values = [{**e, "key": e["factor"]} for e in tidy(found)]
    words = {e["factor"]: [e["factor"], *_arrow(e["from"], e["to"])] for e in values}
    label = f"({json.dumps(words)})[datum.value]"
    place = dict[str, Any](labelLimit=170, labelPadding=8, labelLineHeight=15, labelOffset=-8)
    axis = alt.Axis(labelExpr=label, **place)
    y = alt.Y("key:N", title=None, sort=list(words), axis=axis)
    x = lambda field: level(None, field, "+.1%", zero=True)
    base = alt.Chart().encode(x=x("value"), y=y)
    tip = ["factor:N", "from:N", "to:N", "effect = value:Q +.2%", "low:Q +.2%", "high:Q +.2%"]
    zero = own([{"value": 0}]).mark_rule(style="zero").encode(x=x("value"))
    whole = alt.Chart().mark_rule(style="interval").encode(x=x("low"), x2="high:Q", y=y)
    layers = (zero, whole, base.mark_point(style="dot", size=80), hover(base, tip))
    return panel(values, *layers, height=52 * len(found), name=title)


def _arrow(low: str, high: str) -> list[str]:
    """From one level to the other, on as few lines as fit beside a figure on a phone.

    >>> _arrow("plain", "gated"), _arrow("all of it", "an eighth, repeated")
    (['plain \u2192 gated'], ['all of it \u2192', 'an eighth, repeated'])
    """
    return [f"{low} \u2192 {high}"] if len(low) + len(high) < 20 else [f"{low} \u2192", high]


def loss(rows: Rows) -> Figure | None:
    """Change of entropy against change of nll over the second half, a point a run."""
    data = [
        point(r, "run", nll_change=float(r["nll_change"])) | r["levels"]
        for r in where(rows, "entropy_change")
    ]
    factors = strongest(rows)
    if not data or not factors:
        return None
    hue, levels = factors[0], _levels(rows)
    names = [f"{hue}: {name}" for name in levels[hue]]
    values = [{**d, "hue": f"{hue}: {d[hue]}"} for d in tidy(data)]
    x = level("change of nll over the second half, nats per token", "nll_change", "+")
    y = upright("Change of entropy, points of the ceiling", format="+.1%", zero=True)
    base = alt.Chart().encode(x=x, y=y)
    tip = ["run:N", "change of entropy = value:Q +.2%", "change of nll = nll_change:Q +.3f"]
    tip += [f"{f}:N" for f in levels]
    zero = own([{"value": 0}]).mark_rule(style="zero").encode(y=y)
    color, shape = hues("hue:N", names), alt.Shape("hue:N", scale=alt.Scale(domain=names))
    dots = base.mark_point(style="dot", size=80).encode(color=color, shape=shape)
    chart = panel(values, zero, dots, hover(base, tip), height=260)
    caption = (
        "A point is a run; below the line its entropy falls over the second half of training."
        " Further left, the run still learns more of its text over that half."
    )
    return Figure("loss", "Does entropy fall while a run still learns?", caption, chart, tidy(data))
