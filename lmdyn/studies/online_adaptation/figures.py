"""The figures of the study of online adaptation, from its rows.

Each function gives a `Figure`, or None where the rows hold nothing for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from lmdyn.report.figures import Figure, short, whole_numbers
from lmdyn.report.panels import (
    dots,
    hover,
    means,
    over_steps,
    own,
    panel,
    step_axis,
    tidy,
    told,
    upright,
)

Rows = Sequence[Mapping[str, Any]]
GAIN = "nats a token saved against the static model"


def figures(rows: Rows) -> list[Figure]:
    """Every figure that the rows have something for, in the order of the page."""
    made = (along, rules, position, places, context, pareto, resets, localized, checkpoints, meta)
    return [figure for make in made if (figure := make(rows)) is not None]


def _own(rows: Rows, analysis: str, metric: str = "online_nll") -> list[Mapping[str, Any]]:
    return [r for r in rows if r.get("analysis") == analysis and r["metric"] == metric]


def _kind(r) -> str:
    """What adapts, in words: of a given model, nothing more is said."""
    trained = {"base": "", "tuned": ", fine-tuned"}.get(r.get("trained"), "")
    return f"{short(r['stream'])}{trained}"


def _text(reference: str) -> str:
    return short(reference).removesuffix(":test")


def along(rows: Rows) -> Figure | None:
    """Static and online nll along each stream, by the main rule."""
    main = _main(rows)
    found = [r for r in _own(rows, "rules", "nll_along") if r["setting"] == main]
    if not found:
        return None
    points = []
    for r in found:
        about = {"panel": _kind(r), "place": (r["begin"] + r["end"]) / 2, "seed": r["seed"]}
        points += [
            {**about, "series": name, "value": float(r[field])}
            for name, field in (("online", "value"), ("static", "static"))
        ]
    charts = []
    for name in dict.fromkeys(p["panel"] for p in points):
        shown = means([p for p in points if p["panel"] == name], "place", "series")
        x = alt.X(
            "place:Q",
            title="predictions after the prefix",
            axis=alt.Axis(tickCount=4, format=",d"),
            scale=alt.Scale(nice=False),
        )
        color = alt.Color(
            "series:N", scale=alt.Scale(domain=["online", "static"]), legend=alt.Legend(columns=2)
        )
        base = alt.Chart().encode(x=x, y=upright(f"{name}: nats a token"), color=color)
        tip = [
            alt.Tooltip("series:N"),
            alt.Tooltip("place:Q", title="at", format=",.0f"),
            alt.Tooltip("value:Q", title="nats", format=".3f"),
        ]
        charts.append(panel(shown, base.mark_line(style="mean"), hover(base, tip)))
    caption = (
        f"Nll of the model that adapts ({main}) and of the same model unadapted, over the same"
        " predictions: those after the ones that the learning rate was chosen on. Mean over seeds,"
        " in runs of predictions."
    )
    return Figure(
        "along",
        "Static and online along the stream",
        caption,
        tuple(charts) if len(charts) > 1 else charts[0],
        tidy(points),
    )


def _main(rows) -> str | None:
    return next((r["rule"] for r in _own(rows, "rules") if r["setting"] == "low-rank"), None)


def _gains(found, name=lambda r: r["setting"], **more) -> list[dict[str, Any]]:
    return [
        {
            "name": name(r),
            "seed": r["seed"],
            "value": float(r["static"] - r["value"]),
            "mflop": float(r["flops"] / 1e6),
            **{k: f(r) for k, f in more.items()},
        }
        for r in found
    ]


def rules(rows: Rows) -> Figure | None:
    """What each rule saves, by stream.

    Of the fine-tuned model, on the stream that it was tuned for.
    """
    found = _own(rows, "rules")
    far = found[-1]["stream"] if found else None
    found = [r for r in found if r.get("trained") != "tuned" or r["stream"] == far]
    if not found:
        return None
    points = [{**p, "kind": kind} for p, kind in zip(_gains(found), map(_kind, found), strict=True)]
    kinds, order = (
        list(dict.fromkeys(p["kind"] for p in points)),
        list(dict.fromkeys(p["name"] for p in points)),
    )
    more = {"mflop": ",.2f"}
    chart = (
        dots(points, GAIN, order=order, kinds=kinds, more=more)
        if len(kinds) <= 3
        else dots([{**p, "seed": p["kind"]} for p in points], GAIN, order=order, more=more)
    )
    caption = (
        "What adapting saves, by rule: all parameters but where the name says otherwise (low-rank:"
        " adapters at the MLPs; localized: where the gradient profile is above its mean). Rates are"
        " chosen before what is measured. " + ("" if len(kinds) <= 3 else "A small dot is a text.")
    )
    static = {(_kind(r), r.get("seed")): r for r in _own(rows, "rules", "static_nll")}
    table = []
    for r in [
        *(r for r in static.values() if r.get("trained") != "tuned" or r["stream"] == far),
        *found,
    ]:
        still = static.get((_kind(r), r.get("seed")), r)
        table.append(
            {
                "text": _kind(r),
                "seed": str(r["seed"]),
                "setting": r["setting"],
                "nll": f"{r['value']:.3f}",
                "static nll": f"{r.get('static', r['value']):.3f}",
                "rate": f"{r['rate']:g}" if "rate" in r else "",
                "MFLOP a token": f"{r['flops'] / 1e6:,.2f}",
                "of static": f"{r['flops'] / still['flops']:.2f}",
                "tokens a second": f"{1 / r['seconds']:,.0f}",
            }
        )
    table.sort(key=lambda line: (line["text"], line["seed"]))
    return Figure("rules", "What each rule saves", caption, chart, tidy(points), table)


def position(rows: Rows) -> Figure | None:
    """Nll against the position in the document."""
    found = _own(rows, "position", "nll_at_position")
    if not found:
        return None
    names = {"document": "afresh for each document", "never": "all along"}
    points = [
        {
            "panel": r["setting"],
            "place": r["end"],
            "seed": r["seed"],
            "series": names[r["reset"]],
            "value": float(r["static"] - r["value"]),
        }
        for r in found
    ]
    charts = []
    for name in dict.fromkeys(p["panel"] for p in points):
        shown = told([p for p in points if p["panel"] == name], ["place", "series"])
        x = step_axis(
            sorted({p["place"] for p in shown}),
            title="up to this prediction of the document",
            field="place",
        )
        color = alt.Color(
            "series:N", scale=alt.Scale(domain=list(names.values())), legend=alt.Legend(columns=2)
        )
        y = upright(f"{name} adapt: nats saved")
        base = alt.Chart().encode(x=x, y=y, color=color)
        tip = [
            alt.Tooltip("series:N"),
            alt.Tooltip("place:Q", title="up to", format=",d"),
            alt.Tooltip("value:Q", title="nats saved", format=".3f"),
            alt.Tooltip("each:N", title="seeds"),
        ]
        zero = own([{"value": 0}]).mark_rule(style="zero").encode(y=y)
        charts.append(
            panel(
                shown,
                zero,
                base.mark_line(style="mean"),
                base.mark_point(style="dot"),
                hover(base, tip),
            )
        )
    caption = (
        "How fast it adapts: static nll less online nll of the predictions up to this one in their"
        f" document (from the mark before), of documents of {_text(found[0]['stream'])}; adapted"
        " afresh to each document, or all along. Mean over documents and seeds."
    )
    return Figure("position", "Speed of adaptation", caption, tuple(charts), tidy(points))


def places(rows: Rows) -> Figure | None:
    """What each place saves, and the ladder of ranks."""
    found = _own(rows, "places")
    if not found:
        return None
    single = [r for r in found if r["rank"] is None]
    ladder = [r for r in found if r["rank"] is not None]
    charts = [
        dots(
            _gains(single),
            GAIN,
            order=list(dict.fromkeys(r["setting"] for r in single)),
            more={"mflop": ",.2f"},
        )
    ]
    if ladder:
        points = [{**p, "step": r["rank"]} for p, r in zip(_gains(ladder), ladder, strict=True)]
        whole = next(
            (
                means(_gains([r for r in single if r["setting"] == "MLPs"]), "name")[0]
                for r in single
                if r["setting"] == "MLPs"
            ),
            None,
        )
        y = upright("Adapters at the MLPs: nats saved")
        above = [] if whole is None else [own([whole]).mark_rule(style="ceiling").encode(y=y)]
        charts.append(
            over_steps(
                points,
                "Adapters at the MLPs: nats saved",
                x=step_axis(sorted({p["step"] for p in points}), title="rank"),
                above=above,
            )
        )
    caption = (
        "What adapting each part alone saves, on "
        + _text(found[0]["stream"])
        + "; block 0 is next to the embedding. Second panel: low-rank adapters at the MLPs, by "
        "rank; dashed: the MLPs themselves."
    )
    table = [
        {
            "part": m["name"],
            "nats saved": f"{m['value']:.3f}",
            "MFLOP a token": f"{m['mflop']:,.2f}",
        }
        for m in means(_gains(found), "name")
    ]
    return Figure("places", "What adapts", caption, tuple(charts), tidy(_gains(found)), table)


def _costs(rows, analysis, hue, shape):
    """Mean over seeds of nll and FLOPs, static and online."""
    points = [
        {
            "name": r["setting"],
            "hue": hue(r),
            "shape": shape(r),
            "chunk": r["chunk"],
            "window": r["window"],
            "context": r["context"],
            "seed": r["seed"],
            "value": float(r["value"]),
            "mflop": float(r["flops"] / 1e6),
        }
        for r in (*_own(rows, analysis, "static_nll"), *_own(rows, analysis))
    ]
    return points, told(points, ["hue", "shape", "name", "context", "chunk", "window"])


def _trade(mean, hues, shapes, title):
    x = alt.X(
        "mflop:Q",
        title="MFLOP a token",
        scale=alt.Scale(type="log", nice=False, padding=14),
        axis=alt.Axis(tickCount=5, grid=True, format="~g"),
    )
    base = alt.Chart().encode(x=x, y=upright(title))
    marks = {
        "color": alt.Color("hue:N", scale=alt.Scale(domain=hues), legend=alt.Legend(columns=2)),
        "shape": alt.Shape(
            "shape:N",
            scale=alt.Scale(
                domain=shapes, range=["circle", "diamond", "square", "triangle-up"][: len(shapes)]
            ),
            legend=alt.Legend(columns=2, orient="bottom"),
        ),
    }
    tip = [
        alt.Tooltip("hue:N", title="of"),
        alt.Tooltip("shape:N", title="adapts"),
        alt.Tooltip("context:N"),
        alt.Tooltip("chunk:Q"),
        alt.Tooltip("window:Q"),
        alt.Tooltip("value:Q", title="nll", format=".3f"),
        alt.Tooltip("mflop:Q", title="MFLOP a token", format=",.2f"),
        alt.Tooltip("each:N", title="seeds"),
    ]
    front, best = [], float("inf")
    for m in sorted(mean, key=lambda m: (m["mflop"], m["value"])):
        if m["value"] < best:
            best = m["value"]
            front.append({"mflop": m["mflop"], "value": m["value"]})
    line = (
        own(front).mark_line(style="pale", interpolate="step-after").encode(x=x, y=upright(title))
    )
    return panel(
        mean,
        line,
        base.mark_point(style="dot", size=90).encode(**marks),
        hover(base, tip),
        height=320,
    )


def context(rows: Rows) -> Figure | None:
    """Nll against FLOPs, by context, static and adapted."""
    points, mean = _costs(
        rows,
        "context",
        lambda r: r["context"],
        lambda r: "static" if r["rule"] is None else "adapted",
    )
    if not points:
        return None
    hues = list(dict.fromkeys(p["hue"] for p in points))
    caption = (
        "Memory in context against memory in weights: nll and cost of each context, window and"
        " chunk, static and adapted (all parameters). Mean over seeds. The step line is the front:"
        " nothing that costs less is better."
    )
    table = [
        {
            "context": m["name"],
            "adapts": m["shape"],
            "nll": f"{m['value']:.3f}",
            "MFLOP a token": f"{m['mflop']:,.2f}",
        }
        for m in mean
    ]
    return Figure(
        "context",
        "Context against memory in weights",
        caption,
        _trade(mean, hues, ["static", "adapted"], "Nll, nats a token"),
        tidy(points),
        table,
    )


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
            "MFLOP a token": f"{m['mflop']:,.2f}",
        }
        for m in mean
    ]
    return Figure(
        "pareto",
        "Model size, context and adaptation at a price",
        caption,
        _trade(mean, hues, shapes, "Nll, nats a token"),
        tidy(points),
        table,
    )


def resets(rows: Rows) -> Figure | None:
    """What each rule of resetting saves on a stream that turns from one text to another."""
    found = _own(rows, "resets")
    if not found:
        return None
    points = _gains(found)
    caption = (
        "A stream that turns from one text to the other and back: adapted without resets, with"
        " resets where it turns, and where the detector finds that adaptation no longer helps (all"
        " the way back to the model as it was, or half of it)."
    )
    table = [
        {
            "resets": r["setting"],
            "seed": str(r["seed"]),
            "nll": f"{r['value']:.3f}",
            "static": f"{r['static']:.3f}",
            "alarms": str(r["alarms"]),
            "turns found": f"{r['found']} of {r['turns']}",
            "delay, predictions": "" if r["delay"] is None else f"{r['delay']:,.0f}",
        }
        for r in found
    ]
    return Figure(
        "resets",
        "When to forget",
        caption,
        dots(points, GAIN, order=list(dict.fromkeys(p["name"] for p in points))),
        tidy(points),
        table,
    )


def localized(rows: Rows) -> Figure | None:
    """The gradient profile, and adapting where it is high, against as many places at random."""
    found = _own(rows, "localized")
    if not found:
        return None
    profile = [
        {"layer": r["layer"], "kind": r["site"], "seed": r["seed"], "value": float(r["value"])}
        for r in _own(rows, "localized", "relative_gradient_norm")
    ]
    mean = told(profile, ["layer", "kind"])
    x = alt.X(
        "layer:Q",
        title="block",
        axis=whole_numbers(p["layer"] for p in profile),
        scale=alt.Scale(nice=False, padding=8),
    )
    base = alt.Chart().encode(
        x=x,
        y=upright("Gradient norm, of its size on home text"),
        color=alt.Color("kind:N", scale=alt.Scale(domain=["attention", "mlp"])),
    )
    tip = [
        alt.Tooltip("kind:N"),
        alt.Tooltip("layer:Q"),
        alt.Tooltip("value:Q", title="ratio", format=".3f"),
        alt.Tooltip("each:N", title="seeds"),
    ]
    points = _gains(
        found, lambda r: "random, as many" if r["setting"].startswith("random") else r["setting"]
    )
    charts = (
        panel(mean, base.mark_line(style="mean"), base.mark_point(style="dot"), hover(base, tip)),
        dots(points, GAIN, order=["localized", "random, as many"]),
    )
    caption = (
        "First: the gradient of the stream's first chunks, by attention and MLP of every block,"
        " relative to that of home text. Second: what adapting saves where this is above its mean,"
        " and at as many places drawn at random, at equal cost."
    )
    return Figure(
        "localized", "Adapting where the gradient is large", caption, charts, tidy(points)
    )


def checkpoints(rows: Rows) -> Figure | None:
    """Knowledge entropy, static and online nll from every checkpoint of the run."""
    found = _own(rows, "checkpoints")
    if not found:
        return None
    far = found[-1]["stream"]
    pick = lambda source, field="value": [
        {"step": r["step"], "seed": r["seed"], "value": float(r[field])} for r in source
    ]
    last = [r for r in found if r["stream"] == far]
    x = step_axis(sorted({r["step"] for r in found}))
    charts = (
        over_steps(
            pick(_own(rows, "checkpoints", "knowledge_entropy")), "Knowledge entropy, nats", x=x
        ),
        over_steps(pick(last), f"Online nll on {_text(far)}, nats a token", x=x),
        over_steps(pick(last, "static"), f"Static nll on {_text(far)}, nats a token", x=x),
    )
    caption = (
        "What each checkpoint of pretraining is, and what it reaches when it adapts online. Thin:"
        " seeds; thick: their mean."
    )
    return Figure(
        "checkpoints", "Which checkpoint to adapt from", caption, charts, tidy(pick(last))
    )


def meta(rows: Rows) -> Figure | None:
    """What online adaptation reaches from starts that were trained on for the same cost."""
    found = _own(rows, "meta")
    if not found:
        return None
    order = list(dict.fromkeys(r["setting"] for r in found))
    points = [
        {
            "name": r["setting"],
            "seed": r["seed"],
            "value": float(r["value"]),
            "static": float(r["static"]),
            "kind": _text(r["stream"]),
        }
        for r in found
    ]
    before = {(r["stream"], r["seed"]): r["value"] for r in found if r["setting"] == "as it was"}
    shown = [
        {**p, "value": float(before[(r["stream"], r["seed"])] - r["value"])}
        for p, r in zip(points, found, strict=True)
        if r["setting"] != "as it was"
    ]
    if not shown:
        return None
    caption = (
        "The model trained on for the same cost in three ways: by likelihood, by the first-order"
        " meta-gradient (the sum of the gradients that online adaptation makes), and by the"
        " gradient through its updates. How much lower its online nll (SGD) is than that of the"
        " model as it was."
    )
    chart = dots(
        shown,
        "nats a token below the model as it was",
        order=[o for o in order if o != "as it was"],
        kinds=list(dict.fromkeys(p["kind"] for p in shown)),
    )
    return Figure("meta", "A start that is good to adapt from", caption, chart, tidy(points))
