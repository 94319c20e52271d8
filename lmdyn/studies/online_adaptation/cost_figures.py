"""The figures of online adaptation on what is gained at which cost: context, size, place."""

import altair as alt

from lmdyn.report import panels
from lmdyn.report.figures import Figure
from lmdyn.studies.online_adaptation.figure_data import GAIN, gains, rows_of, text_name
from lmdyn.types import Rows


def places(rows: Rows) -> Figure | None:
    """What each place saves, and the ladder of ranks."""
    found = rows_of(rows, "places")
    if not found:
        return None
    single = [r for r in found if r["rank"] is None]
    ladder = [r for r in found if r["rank"] is not None]
    order = list(dict.fromkeys(r["setting"] for r in single))
    charts = [panels.dots(gains(single), GAIN, order=order, more={"mflop": ",.2f"})]
    if ladder:
        points = [{**p, "step": r["rank"]} for p, r in zip(gains(ladder), ladder, strict=True)]
        title = "Adapters at the MLPs: nats saved"
        whole = panels.means([p for p in gains(single) if p["name"] == "MLPs"], "name")
        rule = panels.own(whole).mark_rule(style="ceiling").encode(y=panels.upright(title))
        x = panels.step_axis(sorted({p["step"] for p in points}), title="rank")
        charts.append(panels.over_steps(points, title, x=x, above=[rule] if whole else []))
    caption = (
        f"What adapting each part alone saves, on {text_name(found[0]['stream'])}; block 0 is next"
        " to the embedding. Second panel: low-rank adapters at the MLPs, by rank; dashed: the MLPs"
        " themselves."
    )
    table = [
        {"part": m["name"], "nats saved": f"{m['value']:.3f}", **_price(m)}
        for m in panels.means(gains(found), "name")
    ]
    return Figure("places", "What adapts", caption, tuple(charts), panels.tidy(gains(found)), table)


def _price(mean) -> dict[str, str]:
    return {"MFLOP per token": f"{mean['mflop']:,.2f}"}


def _costs(rows, analysis, hue, shape):
    """Mean over seeds of nll and FLOPs, static and online."""
    points = [
        {"name": r["setting"], "hue": hue(r), "shape": shape(r)}
        | panels.point(r, "chunk", "window", "context", "seed", mflop=float(r["flops"] / 1e6))
        for r in (*rows_of(rows, analysis, "static_nll"), *rows_of(rows, analysis))
    ]
    by = ["hue", "shape", "name", "context", "chunk", "window"]
    return points, panels.means_with_seeds(points, by)


def _trade(mean, hues, shapes):
    scale = alt.Scale(type="log", nice=False, padding=14)
    axis = alt.Axis(tickCount=5, grid=True, format="~g")
    x = alt.X("mflop:Q", title="MFLOP per token", scale=scale, axis=axis)
    y = panels.upright("Nll, nats per token")
    base = alt.Chart().encode(x=x, y=y)
    drawn = ["circle", "diamond", "square", "triangle-up"][: len(shapes)]
    scale, legend = alt.Scale(domain=shapes, range=drawn), alt.Legend(columns=2, orient="bottom")
    shape = alt.Shape("shape:N", scale=scale, legend=legend)
    tip = ["of = hue:N", "adapts = shape:N", "context:N", "chunk:Q", "window:Q"]
    tip += ["nll = value:Q .3f", "MFLOP per token = mflop:Q ,.2f", "seeds = each:N"]
    front, best = [], float("inf")
    for m in sorted(mean, key=lambda m: (m["mflop"], m["value"])):
        if m["value"] < best:
            best = m["value"]
            front.append({"mflop": m["mflop"], "value": m["value"]})
    line = panels.own(front).mark_line(style="pale", interpolate="step-after").encode(x=x, y=y)
    dots = base.mark_point(style="dot", size=90)
    dots = dots.encode(color=panels.hues("hue:N", hues), shape=shape)
    return panels.panel(mean, line, dots, panels.hover(base, tip), height=320)


def context(rows: Rows) -> Figure | None:
    """Nll against FLOPs, by context, static and adapted."""
    adapts = lambda r: "static" if r["rule"] is None else "adapted"
    points, mean = _costs(rows, "context", lambda r: r["context"], adapts)
    if not points:
        return None
    hues = list(dict.fromkeys(p["hue"] for p in points))
    caption = (
        "Memory in context against memory in weights: nll and cost of each context, window and"
        " chunk, static and adapted (all parameters). Mean over seeds. The step line is the front:"
        " nothing that costs less is better."
    )
    table = [
        {"context": m["name"], "adapts": m["shape"], "nll": f"{m['value']:.3f}", **_price(m)}
        for m in mean
    ]
    title, chart = "Context against memory in weights", _trade(mean, hues, ["static", "adapted"])
    return Figure("context", title, caption, chart, panels.tidy(points), table)


def pareto(rows: Rows) -> Figure | None:
    """Nll against FLOPs, by model size and what adapts."""
    name = lambda r: f"{r['size'] / 1e6:.2f} million parameters"
    points, mean = _costs(rows, "sizes", name, lambda r: r["setting"])
    if not points:
        return None
    hues = sorted({p["hue"] for p in points}, key=lambda h: float(h.split()[0]))
    shapes = list(dict.fromkeys(p["shape"] for p in points))
    caption = (
        "Models of several sizes, static and adapted, with a short chunk, a long chunk and a cache."
        " Parameters are those of blocks and head. Mean over seeds. The step line is the front:"
        " nothing that costs less is better."
    )
    table = [
        {
            "model": m["hue"],
            "adapts": m["shape"],
            "context": f"{m['context']} {m['window'] or ''}, chunk {m['chunk']}",
            "nll": f"{m['value']:.3f}",
            **_price(m),
        }
        for m in mean
    ]
    title, chart = "Model size, context and adaptation at a price", _trade(mean, hues, shapes)
    return Figure("pareto", title, caption, chart, panels.tidy(points), table)
