"""The figures of the fact-learning study, from its rows.

Log-probability of the answers while facts are injected, by depth, and what each fact gained (Chang
et al. 2024, figure 2, with an interval over facts).
"""

import functools

import altair as alt

from lmdyn.report.figures import Figure
from lmdyn.report.panels import hover, hues, level, own, panel, point, tidy
from lmdyn.studies.claims import where
from lmdyn.studies.injected_facts_figures import over_updates
from lmdyn.types import Rows


def figures(rows: Rows) -> list[Figure]:
    """Every figure that the rows have something for, in the order of the page."""
    return [figure for make in (learning, gains) if (figure := make(rows)) is not None]


def learning(rows: Rows) -> Figure | None:
    """Log-probability and exact match of the probes over the updates, a line for each depth."""
    points = {
        metric: [
            point(r, "depth", "update", "rounds", "seed")
            for r in where(rows, metric)
            if r.get("depth") is not None
        ]
        for metric in ("span_log_probability", "exact_match")
    }
    asked = points["span_log_probability"]
    if not asked:
        return None
    depths = list(dict.fromkeys(p["depth"] for p in asked))
    draw = functools.partial(
        over_updates, color=hues("depth:N", depths, title=None), by={"depth": "depth"}
    )
    charts = [draw(asked, "Log-probability per token, nats")]
    if exact := points["exact_match"]:
        charts.append(draw(exact, "Exact match", format=".0%"))
    caption = (
        "The answers' mean log-probability per token, in nats, and the share of answers that are"
        " the likeliest at every token, before, during and after the continual training, by how far"
        " the question lies from the injected texts. Dotted: a round begins, in which every fact is"
        " injected once. Look at which depth rises, and how far."
    )
    data = [{"metric": metric, **p} for metric, found in points.items() for p in tidy(found)]
    return Figure("learning", "How facts are learnt", caption, tuple(charts), data)


def gains(rows: Rows) -> Figure | None:
    """What was gained by depth: a small dot for each fact, the mean with its interval."""
    by_depth = [r for r in rows if r.get("depth") is not None]
    means = where(by_depth, "acquisition")
    singles = [point(r, "depth", "fact") for r in where(by_depth, "fact_gain")]
    if not means:
        return None
    values = tidy([point(r, "depth", "low", "high", "relative") for r in means])
    x = lambda field: level(None, field, "+.1f", zero=True)
    order, axis = [v["depth"] for v in values], alt.Axis(labelPadding=8)
    y = alt.Y("depth:N", title=None, sort=order, axis=axis)
    base = alt.Chart().encode(x=x("value"), y=y)
    tip = ["depth:N", "gained, nats = value:Q .3f", "low:Q .3f", "high:Q .3f"]
    tip += ["of where it began = relative:Q .1%"]
    chart = panel(
        values,
        own([{"value": 0}]).mark_rule(style="zero").encode(x=x("value")),
        own(tidy(singles)).mark_point(style="one").encode(x=x("value"), y=y),
        alt.Chart().mark_rule(style="interval").encode(x=x("low"), x2="high:Q", y=y),
        base.mark_point(style="dot", size=80),
        hover(base, tip),
        height=70 * len(values),
        name="Rise of the answers' log-probability, nats per token",
    )
    caption = (
        "From before the continual training to its end, in nats per token. Small: each fact, the"
        " mean of its probes; large: the mean of all, with its 95% interval over facts. Right of 0:"
        " learnt."
    )
    table = [
        {
            "asked for": r["depth"],
            "gained, nats": f"{r['value']:.2f}",
            "95% interval": f"{r['low']:.2f} to {r['high']:.2f}",
            "of where it began": f"{r['relative']:.0%}",
            "probes": str(r["tokens"]),
        }
        for r in means
    ]
    return Figure("gains", "What was gained, by depth", caption, chart, tidy(singles), table)
