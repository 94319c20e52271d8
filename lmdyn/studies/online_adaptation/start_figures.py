"""The figures of online adaptation on resets, localized adaptation and other starts."""

import altair as alt

from lmdyn.report import panels
from lmdyn.report.figures import Figure, whole_numbers
from lmdyn.studies.online_adaptation.figure_data import GAIN, gains, rows_of, text_name
from lmdyn.types import Rows


def resets(rows: Rows) -> Figure | None:
    """What each rule of resetting saves on a stream that turns from one text to another."""
    found = rows_of(rows, "resets")
    if not found:
        return None
    points = gains(found)
    caption = (
        "A stream that turns from one text to the other and back: adapted without resets, with"
        " resets where it turns, and where the detector finds that adaptation no longer helps (all"
        " the way back to the model as it was, or half of it). Nats per token saved against the"
        " static model; further right is better."
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
    title = "When to forget"
    chart = panels.dots(points, GAIN, order=list(dict.fromkeys(p["name"] for p in points)))
    return Figure("resets", title, caption, chart, panels.tidy(points), table)


def localized(rows: Rows) -> Figure | None:
    """The gradient profile, and adapting where it is high, against as many places at random."""
    found = rows_of(rows, "localized")
    if not found:
        return None
    profile = [
        panels.point(r, "layer", "seed", kind=r["site"])
        for r in rows_of(rows, "localized", "relative_gradient_norm")
    ]
    mean = panels.means_with_seeds(profile, ["layer", "kind"])
    axis, scale = whole_numbers(p["layer"] for p in profile), alt.Scale(nice=False, padding=8)
    x = alt.X("layer:Q", title="block", axis=axis, scale=scale)
    y = panels.upright("Gradient norm, of its size on home text")
    color = alt.Color("kind:N", scale=alt.Scale(domain=["attention", "mlp"]))
    base = alt.Chart().encode(x=x, y=y, color=color)
    tip = ["kind:N", "layer:Q", "ratio = value:Q .3f", "seeds = each:N"]
    kind = lambda name: "random, as many" if name.startswith("random") else name
    points = gains(found, lambda r: kind(r["setting"]))
    charts = (
        panels.panel(mean, *panels.joined(base, tip)),
        panels.dots(points, GAIN, order=["localized", "random, as many"]),
    )
    caption = (
        "First: the gradient of the stream's first chunks, by attention and MLP of every block,"
        " relative to that of home text. Second: what adapting saves where this is above its mean,"
        " and at as many places drawn at random, at equal cost."
    )
    title = "Adapting where the gradient is large"
    return Figure("localized", title, caption, charts, panels.tidy(points))


def checkpoints(rows: Rows) -> Figure | None:
    """Knowledge entropy, static and online nll from every checkpoint of the run."""
    found = rows_of(rows, "checkpoints")
    if not found:
        return None
    far = found[-1]["stream"]
    pick = lambda source, field="value": [
        {"step": r["step"], "seed": r["seed"], "value": float(r[field])} for r in source
    ]
    last = [r for r in found if r["stream"] == far]
    entropy = rows_of(rows, "checkpoints", "knowledge_entropy")
    x = panels.step_axis(sorted({r["step"] for r in found}))
    on = f"on {text_name(far)}, nats per token"
    charts = (
        panels.over_steps(pick(entropy), "Knowledge entropy, nats", x=x),
        panels.over_steps(pick(last), f"Online nll {on}", x=x),
        panels.over_steps(pick(last, "static"), f"Static nll {on}", x=x),
    )
    caption = (
        "What each checkpoint of pretraining is, and what it reaches when it adapts online. Thin:"
        " seeds; thick: their mean."
    )
    title = "Which checkpoint to adapt from"
    return Figure("checkpoints", title, caption, charts, panels.tidy(pick(last)))


def meta(rows: Rows) -> Figure | None:
    """What online adaptation reaches from starts that were trained on for the same cost."""
    found = rows_of(rows, "meta")
    if not found:
        return None
    before = {(r["stream"], r["seed"]): r["value"] for r in found if r["setting"] == "as it was"}
    points = [
        {"name": r["setting"]}
        | panels.point(r, "seed", static=float(r["static"]), kind=text_name(r["stream"]))
        for r in found
    ]
    shown = [
        {**p, "value": float(before[r["stream"], r["seed"]] - r["value"])}
        for p, r in zip(points, found, strict=True)
        if r["setting"] != "as it was"
    ]
    if not shown:
        return None
    order, kinds = (list(dict.fromkeys(p[field] for p in shown)) for field in ("name", "kind"))
    caption = (
        "The model trained on for the same cost in three ways: by likelihood, by the first-order"
        " meta-gradient (the sum of the gradients that online adaptation makes), and by the"
        " gradient through its updates. How much lower its online nll (SGD) is than that of the"
        " model as it was."
    )
    title = "nats per token below the model as it was"
    chart = panels.dots(shown, title, order=order, kinds=kinds)
    return Figure("meta", "A start that is good to adapt from", caption, chart, panels.tidy(points))
