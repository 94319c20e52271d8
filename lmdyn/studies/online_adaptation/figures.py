"""The figures of the study of online adaptation, from its rows.

Each function gives a `Figure`, or None where the rows hold nothing for it. Those on rules are here;
others in `cost_figures` and `start_figures`.
"""

import functools

import altair as alt

from lmdyn.report import panels
from lmdyn.report.figures import Figure
from lmdyn.report.panels import hues
from lmdyn.studies.online_adaptation.cost_figures import context, pareto, places
from lmdyn.studies.online_adaptation.figure_data import (
    GAIN,
    adapted_text,
    gains,
    rows_of,
    saved,
    text_name,
)
from lmdyn.studies.online_adaptation.start_figures import checkpoints, localized, meta, resets
from lmdyn.studies.online_adaptation.tables import main_rule
from lmdyn.types import Rows


def figures(rows: Rows) -> list[Figure]:
    """Every figure that the rows have something for, in the order of the page."""
    made = (along, rules, position, places, context, pareto, resets, localized, checkpoints, meta)
    return [figure for make in made if (figure := make(rows)) is not None]


def along(rows: Rows) -> Figure | None:
    """Static and online nll along each stream, by the main rule."""
    main = main_rule(rows)
    found = [r for r in rows_of(rows, "rules", "nll_along") if r["setting"] == main]
    if not found:
        return None
    points = []
    for r in found:
        about = {"panel": adapted_text(r), "place": (r["begin"] + r["end"]) / 2, "seed": r["seed"]}
        points += [
            {**about, "series": name, "value": float(r[field])}
            for name, field in (("online", "value"), ("static", "static"))
        ]
    charts = []
    for name in dict.fromkeys(p["panel"] for p in points):
        shown = panels.means([p for p in points if p["panel"] == name], "place", "series")
        x = panels.across("place:Q", "predictions after the prefix", ",d")
        y, color = panels.upright(f"{name}: nats per token"), hues("series:N", ["online", "static"])
        base = alt.Chart().encode(x=x, y=y, color=color)
        tip = ["series:N", "at = place:Q ,.0f", "nats = value:Q .3f"]
        charts.append(panels.panel(shown, base.mark_line(style="mean"), panels.hover(base, tip)))
    caption = (
        f"Nll of the model that adapts ({main}) and of the same model unadapted, over the same"
        " predictions: those after the ones that the learning rate was chosen on. Mean over seeds,"
        " in runs of predictions."
    )
    title = "Static and online along the stream"
    return Figure("along", title, caption, panels.one_or_all(charts), panels.tidy(points))


def rules(rows: Rows) -> Figure | None:
    """What each rule saves, by stream.

    Of the fine-tuned model, on the stream that it was tuned for.
    """
    found = rows_of(rows, "rules")
    far = found[-1]["stream"] if found else None
    found = [r for r in found if r.get("trained") != "tuned" or r["stream"] == far]
    if not found:
        return None
    points = [{**p, "kind": adapted_text(r)} for p, r in zip(gains(found), found, strict=True)]
    kinds, order = (list(dict.fromkeys(p[field] for p in points)) for field in ("kind", "name"))
    draw = functools.partial(panels.dots, title=GAIN, order=order, more={"mflop": ",.2f"})
    chart = (
        draw(points, kinds=kinds)
        if len(kinds) <= 3
        else draw([{**p, "seed": p["kind"]} for p in points])
    )
    caption = (
        "What adapting saves, by rule: all parameters but where the name says otherwise (low-rank:"
        " adapters at the MLPs; localized: where the gradient profile is above its mean). Rates are"
        " chosen before what is measured. " + ("" if len(kinds) <= 3 else "A small dot is a text.")
    )
    static = {(adapted_text(r), r.get("seed")): r for r in rows_of(rows, "rules", "static_nll")}
    table = []
    own = [r for r in static.values() if r.get("trained") != "tuned" or r["stream"] == far]
    for r in [*own, *found]:
        still = static.get((adapted_text(r), r.get("seed")), r)
        table.append(
            {
                "text": adapted_text(r),
                "seed": str(r["seed"]),
                "setting": r["setting"],
                "nll": f"{r['value']:.3f}",
                "static nll": f"{r.get('static', r['value']):.3f}",
                "rate": f"{r['rate']:g}" if "rate" in r else "",
                "MFLOP per token": f"{r['flops'] / 1e6:,.2f}",
                "of static": f"{r['flops'] / still['flops']:.2f}",
                "tokens per second": f"{1 / r['seconds']:,.0f}",
            }
        )
    table.sort(key=lambda line: (line["text"], line["seed"]))
    return Figure("rules", "What each rule saves", caption, chart, panels.tidy(points), table)


def position(rows: Rows) -> Figure | None:
    """Nll against the position in the document."""
    found = rows_of(rows, "position", "nll_at_position")
    if not found:
        return None
    names = {"document": "afresh for each document", "never": "all along"}
    points = [
        {"panel": r["setting"], "place": r["end"], "seed": r["seed"]}
        | {"series": names[r["reset"]], "value": saved(r)}
        for r in found
    ]
    charts = []
    for name in dict.fromkeys(p["panel"] for p in points):
        own = [p for p in points if p["panel"] == name]
        shown = panels.means_with_seeds(own, ["place", "series"])
        title = "up to this prediction of the document"
        x = panels.step_axis(sorted({p["place"] for p in shown}), title=title, field="place")
        color = hues("series:N", list(names.values()))
        y = panels.upright(f"{name} adapt: nats saved")
        base = alt.Chart().encode(x=x, y=y, color=color)
        tip = ["series:N", "up to = place:Q ,d", "nats saved = value:Q .3f", "seeds = each:N"]
        zero = panels.own([{"value": 0}]).mark_rule(style="zero").encode(y=y)
        charts.append(panels.panel(shown, zero, *panels.joined(base, tip)))
    caption = (
        "How fast it adapts: static nll less online nll of the predictions up to this one in their"
        f" document (from the mark before), of documents of {text_name(found[0]['stream'])};"
        " adapted afresh to each document, or all along. Mean over documents and seeds."
    )
    return Figure("position", "Speed of adaptation", caption, tuple(charts), panels.tidy(points))
