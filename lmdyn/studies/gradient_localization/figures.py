"""What the runs of gradient localization learn, forget, move and cost, as figures.

Each function takes rows and gives a `Figure`, or None where the rows hold nothing for it. The
profiles that restrict the runs are drawn in `gradient_profiles`.
"""

import math
from collections.abc import Mapping
from typing import Any

import altair as alt

from lmdyn.report.figures import Figure
from lmdyn.report.gradient_profiles import FACT_KINDS, RUNNING_MODES, difference, profile, running
from lmdyn.report.panels import dots, hover, hues, level, means, panel, point, tidy, upright
from lmdyn.studies.claims import where
from lmdyn.types import Rows

MODE_NAMES = {
    "plain": "everything",
    "freeze": "freeze: r above its mean",
    "scale": "scale: rates r / mean r",
    "random": "as many layers at random",
    "complement": "the other layers",
    "blocks": "all layers alone",
}
"""Modes of the study, as figures call them; of running profiles: `RUNNING_MODES`."""


def figures(rows: Rows) -> list[Figure]:
    """Every figure that the rows have something for, in the order of the page."""
    made = (profile, difference, frontier, by_kind, moved, running, running_frontier, online)
    return [figure for make in made if (figure := make(rows)) is not None]


def runs(rows: Rows) -> list[dict[str, Any]]:
    """What each run came to, a dict for each.

    `seed, method, mode, factor, learned, forgotten, moved, flops, updated, new, unchanged`
    (nats), `old_nll`, all at its end, and what they were before.
    """
    found: dict[tuple, dict] = {}
    for r in rows:
        if r.get("mode") is None or "factor" not in r or r["metric"] == "running_profile":
            continue
        one = found.setdefault(
            (r["seed"], r["method"], r["mode"], r["factor"]),
            {k: r[k] for k in ("seed", "method", "mode", "factor")},
        )
        if r["metric"] in ("span_log_probability", "old_nll"):
            name = r.get("kind", "old_nll")
            first, last, value = one.get(f"{name} at", -1), r["update"], float(r["value"])
            if last == 0:
                one[f"{name} before"] = value
            if last >= first:
                one[name], one[f"{name} at"] = value, last
        else:
            one[r["metric"]] = float(r["value"])
    return [
        {k: v for k, v in one.items() if not k.endswith(" at")}
        for one in found.values()
        if {"learned", "forgotten"} <= one.keys()
    ]


def _scales(names: Mapping[str, str], points):
    """Colour and shape of modes, the same in all panels."""
    shapes = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross"]
    domain = list(names.values())
    used = [name for name in domain if any(p["name"] == name for p in points)]
    scale = alt.Scale(domain=domain, range=shapes[: len(domain)])
    shape = alt.Shape("name:N", scale=scale, legend=alt.Legend(values=used))
    return hues("name:N", domain, values=used, labelLimit=200), shape


def _of_modes(rows) -> list[dict[str, Any]]:
    """What each run in one of the study's modes came to."""
    return [one for one in runs(rows) if one["mode"] in MODE_NAMES]


def _titled(method: str, what: str) -> str:
    return f"{method[0].upper()}{method[1:]}: {what}"


def _at_base(found) -> list[dict[str, Any]]:
    """The runs at the base learning rate."""
    base = min({one["factor"] for one in found}, key=lambda f: abs(f - 1))
    return [one for one in found if one["factor"] == base]


def frontier(rows: Rows) -> Figure | None:
    """What runs learn against what they forget.

    A panel for each method, a line through the learning rates of each mode.
    """
    found, charts = _of_modes(rows), []
    if not found:
        return None
    for method in dict.fromkeys(one["method"] for one in found):
        own = [one for one in found if one["method"] == method]
        charts.append(_plane(own, _titled(method, "learned, nats"), MODE_NAMES))
    caption = (
        "Each line goes from no training through runs at rising rates, means over seeds. Higher:"
        " more of the new and updated facts is known (rise of their spans' log-probability)."
        " Further right: more of the old is lost. A mode is better where its line lies above and to"
        " the left."
    )
    title = "Learning against forgetting"
    return Figure("frontier", title, caption, tuple(charts), tidy(found), _table(found))


def _plane(found, title: str, names: Mapping[str, str]) -> alt.TopLevelMixin:
    """Learned against forgotten, from a rate of 0 on."""
    mean = means(found, "method", "mode", "factor")
    zero = [
        {"mode": mode, "factor": 0.0, "learned": 0.0, "forgotten": 0.0}
        for mode in dict.fromkeys(m["mode"] for m in mean)
    ]
    points = [{**m, "name": names[m["mode"]]} for m in [*zero, *mean]]
    x = level("forgotten: relative loss of old text and unchanged facts", "forgotten", "%")
    y = upright(title, "learned", zero=True)
    tip = ["learned:Q .3f", "forgotten:Q .1%"]
    return _lines(points, x, y, names, tip)


def _lines(points, x, y, names: Mapping[str, str], tip) -> alt.TopLevelMixin:
    """A line for each mode through its rates."""
    color, shape = _scales(names, points)
    base = alt.Chart().encode(x=x, y=y, color=color)
    tip = ["updates = name:N", "rate, times the base's = factor:Q", *tip, "seeds:Q"]
    line = base.mark_line(style="run").encode(order="factor:Q", detail="name:N")
    dots = base.mark_point(style="dot", size=60).encode(shape=shape)
    return panel(points, line, dots, hover(base, tip), height=280)


def _table(found):
    """Means over seeds of every method and mode at the base rate, as one reads them."""
    perplexity = lambda nats: f"{math.exp(-nats):,.1f}"
    change = lambda m, kind: f"{perplexity(m[f'{kind} before'])} to {perplexity(m[kind])}"
    return [
        {
            "method, updates": f"{m['method']}, {MODE_NAMES[m['mode']]}",
            **{f"{kind} spans, perplexity": change(m, kind) for kind in FACT_KINDS},
            "old text, nll": f"{m['old_nll before']:.3f} to {m['old_nll']:.3f}",
            "learned, nats": f"{m['learned']:.2f}",
            "forgotten": f"{m['forgotten']:.1%}",
            "moved": f"{m['moved']:.1%}",
            "GFLOP": f"{m['flops'] / 1e9:,.0f}",
        }
        for m in means(_at_base(found), "method", "mode")
    ]


def by_kind(rows: Rows) -> Figure | None:
    """How much each kind of fact gains, at the base rate, a panel for each method."""
    found = _of_modes(rows)
    if not found:
        return None
    charts, data = [], []
    for method in dict.fromkeys(one["method"] for one in found):
        points = [
            {"name": MODE_NAMES[one["mode"]], "kind": kind, "seed": one["seed"]}
            | {"value": one[kind] - one[f"{kind} before"]}
            for one in _at_base(found)
            if one["method"] == method
            for kind in FACT_KINDS
        ]
        order = [name for name in MODE_NAMES.values() if any(p["name"] == name for p in points)]
        title = _titled(method, "gain in log-probability, nats")
        charts.append(dots(points, title, order=order, kinds=FACT_KINDS, format="+.2f"))
        data += [{"method": method, **p} for p in points]
    caption = (
        "Gain of spans' log-probability, in nats, from before to after the continual pretraining,"
        " by kind of fact, at the base learning rate. Small: seeds; large: their mean. Right of 0:"
        " learnt; unchanged facts left of 0 are forgotten."
    )
    return Figure("by-kind", "What each kind of fact gains", caption, tuple(charts), tidy(data))


def moved(rows: Rows) -> Figure | None:
    """What runs learn and forget against how far they move, first method."""
    found = [one for one in _of_modes(rows) if "moved" in one]
    if not found:
        return None
    method = found[0]["method"]
    mean = means([one for one in found if one["method"] == method], "mode", "factor")
    points = [{**m, "name": MODE_NAMES[m["mode"]]} for m in mean]
    x = level("moved: distance from the start over the parameters' size", "moved", "%")
    tip = ["moved:Q .2%", "learned:Q .3f", "forgotten:Q .1%"]
    charts = (
        _lines(points, x, upright("Learned, nats", "learned"), MODE_NAMES, tip),
        _lines(points, x, upright("Forgotten", "forgotten", "%"), MODE_NAMES, tip),
    )
    caption = (
        f"Method: {method}. How far parameters moved, as a share of their size, and what that"
        " bought (nats) and cost; a point is a learning rate, means over seeds. Compare modes that"
        " moved as far."
    )
    return Figure("moved", "How much each run moved", caption, charts, tidy(points))


def running_frontier(rows: Rows) -> Figure | None:
    """What runs restricted by a running profile learn and forget.

    Beside them, those of a profile measured before.
    """
    names = {k: MODE_NAMES[k] for k in ("plain", "freeze", "scale")} | RUNNING_MODES
    method = next((r["method"] for r in rows if r.get("mode") in RUNNING_MODES), None)
    found = [one for one in runs(rows) if one["mode"] in names and one["method"] == method]
    if not found:
        return None
    caption = (
        f"Method: {method}. As in Learning against forgetting, for a profile that is measured once"
        " before, and one that is estimated during training."
    )
    title = "Restricted by a running profile"
    chart = _plane(found, "Learned, nats", names)
    return Figure("running-frontier", title, caption, chart, tidy(found))


def online(rows: Rows) -> Figure | None:
    """Online nll against operations, a line from one step per chunk to two for each mode."""
    found = [
        {"name": MODE_NAMES[r["mode"]]}
        | point(r, "mode", "steps", "seed", gflop=float(r["flops"]) / 1e9)
        for r in where(rows, "online_at_best")
    ]
    static = where(rows, "static_nll")
    if not found:
        return None
    mean = means(found, "mode", "name", "steps")
    x = level("GFLOP for the stream", "gflop", "~s")
    y = upright("Online nll, nats per token")
    color, shape = _scales(MODE_NAMES, mean)
    base = alt.Chart().encode(x=x, y=y, color=color)
    tip = ["adapts = name:N", "steps per chunk = steps:Q", "nll = value:Q .4f"]
    line = base.mark_line(style="run").encode(order="steps:Q", detail="name:N")
    points = base.mark_point(style="dot", size=80).encode(shape=shape)
    chart = panel(mean, line, points, hover(base, [*tip, "GFLOP = gflop:Q ,.3f"]), height=300)
    still = sum(r["value"] for r in static) / len(static)
    caption = (
        "Negative log-likelihood (nats per token) of text with updated and new facts, each token"
        " scored before it is learned from, against the operations that it took, with one optimizer"
        " step per chunk and with two; each at the learning rate that is best in the other seeds,"
        " means over"
        f" seeds. The static model has {still:.3f} nats."
    )
    return Figure("online", "Online adaptation at equal cost", caption, chart, tidy(found))
