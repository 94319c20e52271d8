"""The figures of the saturation study on heads: spectra, ranks, the text's rank, other heads."""

import math

import altair as alt

from lmdyn.report.figures import Figure
from lmdyn.report.panels import (
    across,
    dots,
    hover,
    joined,
    means_with_seeds,
    one_or_all,
    own,
    panel,
    point,
    tidy,
    upright,
)
from lmdyn.studies.claims import where
from lmdyn.studies.saturation.figure_data import by_step, mean_of, names, plain, some_steps, three
from lmdyn.types import Rows

WAYS = {"joint": "trained with the model", "frozen": "on a frozen body"}
STARTS = ("as it is", "trained from there", "trained from random")


def spectra(rows: Rows) -> Figure | None:
    """The head's singular values by step."""
    measured = where(plain(rows), "head_spectrum")
    if not measured:
        return None
    charts, data, first = [], [], min(r["seed"] for r in measured)
    for name in three(names(rows)):
        own_ = [r for r in measured if r["name"] == name and r["seed"] == first]
        steps = some_steps({r["step"] for r in own_})
        points = [
            {"name": name, "step": r["step"], "index": i, "place": i / r["directions"]}
            | {"value": max(float(v), 1e-6)}
            for r in own_
            if r["step"] in steps
            for i, v in zip(r["index"], r["values"], strict=True)
        ]
        data += points
        charts.append(_spectrum(points, name, steps))
    caption = (
        "Singular values of the head by step, from early (faint) to late (strong), each as a share"
        " of the largest; one seed. Widths differ, so values are counted as shares of the width."
        " The paper finds that the spectrum flattens first, and in small models collapses later."
    )
    title, table = "The head's spectrum by step", _spectrum_table(measured, rows)
    return Figure("spectra", title, caption, one_or_all(charts), tidy(data), table)


def _spectrum(points, name: str, steps) -> alt.TopLevelMixin:
    """The spectra of one model, a line for each step."""
    x = across("place:Q", "singular values, as a share of the width", "%", domain=[0, 1])
    axis, scale = alt.Axis(tickCount=4, format="~g"), alt.Scale(type="log", nice=False)
    y = alt.Y("value:Q", title=f"{name}: share of the largest", axis=axis, scale=scale)
    base = alt.Chart().encode(x=x, y=y, color=by_step(steps))
    tip = ["step:Q ,d", "singular value = index:Q", "share of the largest = value:Q .3g"]
    line = base.mark_line(style="line")
    return panel(tidy(points), line, hover(base, tip), shades=len(steps), height=260)


def _spectrum_table(measured, rows):
    ends = {r["name"]: r["step"] for r in sorted(measured, key=lambda r: r["step"])}
    return [
        {
            "model": name,
            "singular entropy at the end, nats": f"{mean_of(last, 'value'):.3f}",
            "effective rank": f"{mean_of(last, 'effective_rank'):.1f}",
            "directions": f"{last[0]['directions']}",
        }
        for name in names(rows)
        if (last := where(measured, "head_spectrum", name=name, step=ends.get(name)))
    ]


def ranks(rows: Rows) -> Figure | None:
    """Loss against the head's rank, on a frozen body."""
    found = [point(r, "rank", "start", "seed") for r in where(rows, "head_rank")]
    if not found:
        return None
    used = [s for s in STARTS if any(p["start"] == s for p in found)]
    critical = [r["value"] for r in where(rows, "critical_rank", start="trained from there")]
    mean = means_with_seeds(found, ["rank", "start"])
    every = sorted({p["rank"] for p in found})
    best = min(m["value"] for m in mean if m["rank"] == every[-1])
    axis = alt.Axis(values=every, format="d", labelOverlap="greedy", labelSeparation=8)
    scale = alt.Scale(type="log", nice=False, domain=[every[0], every[-1]], padding=12)
    x = alt.X("rank:Q", title="rank of the head", axis=axis, scale=scale)
    color = alt.Color("start:N", scale=alt.Scale(domain=used), legend=alt.Legend(columns=2))
    charts = []
    for title, most in (
        ("Held-out loss, nats per token", math.inf),
        ("The same, near the best", best * 1.08),
    ):
        near = [m for m in mean if m["value"] <= most]
        if len({m["rank"] for m in near}) >= 2:
            single = [p for p in found if p["value"] <= most]
            charts.append(_by_rank(near, single, x, color, critical, title))
    one = where(rows, "head_rank")[0]
    dashed = (
        " Dashed: r*, where the loss of a head that is trained from the truncated one has climbed"
        f" by {one['climb']:.0%}."
        if critical
        else ""
    )
    caption = (
        f"Heads of lower rank on the frozen body of {one['body']} (width {one['width']}), scored on"
        " text they were not trained on: the truncated singular value decomposition as it is,"
        f" trained on from there, and trained from random parameters. Look at the rank below which"
        f" loss climbs.{dashed}"
    )
    title, table = "What the rank of the head costs", _rank_table(mean, used)
    return Figure("ranks", title, caption, one_or_all(charts), tidy(found), table)


def _by_rank(mean, single, x, color, critical, title: str) -> alt.TopLevelMixin:
    """Loss by rank: means with their seeds; dashed: where the critical ranks lie on average."""
    marks = {"x": x, "y": upright(title), "color": color}
    tip = ["start:N", "rank:Q", "loss = value:Q .3f", "seeds = each:N"]
    base = alt.Chart().encode(**marks)
    layers = [own(tidy(single)).mark_point(style="one").encode(**marks)]
    if critical:
        at = sum(critical) / len(critical)
        layers.append(own([{"rank": at}]).mark_rule(style="ceiling").encode(x=x))
    return panel(tidy(mean), *layers, *joined(base, tip), height=260)


def _rank_table(mean, used):
    known = {(m["rank"], m["start"]): f"{m['value']:.3f}" for m in mean}
    return [
        {"rank": f"{rank}"} | {f"{start}, nats": known.get((rank, start), "") for start in used}
        for rank in sorted({m["rank"] for m in mean})
    ]


def target(rows: Rows) -> Figure | None:
    """Error of the best approximation of the next-token distributions against its rank."""
    errors = where(rows, "target_error")
    if not errors:
        return None
    charts, data, first = [], [], min(r["seed"] for r in errors)
    for context in sorted({r["context"] for r in errors}):
        own_ = [r for r in errors if r["context"] == context and r["seed"] == first]
        sizes = sorted({r["size"] for r in own_})
        points = [{"context": context, "tokens": r["size"], **point(r, "rank")} for r in own_]
        data += points
        ends = sorted({sizes[0], sizes[-1]})
        legend = alt.Legend(
            title="tokens", titleOrient="left", values=ends, format=".2~s", columns=3
        )
        x = across("rank:Q", "rank of the approximation", "~s", ticks=5, type="log", padding=8)
        base = alt.Chart().encode(
            x=x,
            y=upright(f"Error after {context} token{'s' * (context > 1)}", format="%", zero=True),
            color=alt.Color("tokens:O", sort=sizes, legend=legend),
        )
        tip = ["tokens:Q ,d", "rank:Q", "error = value:Q .1%"]
        charts.append(
            panel(tidy(points), *joined(base, tip, "line"), shades=len(sizes), height=260)
        )
    caption = (
        "How well a matrix of some rank can stand for the distributions of the next token after"
        " each context of the text: relative error in the sense of least squares, every position of"
        " the text counted once, for growing shares of the text, in documents drawn by seed (one"
        " seed). The further right a curve falls, the more directions the text takes."
    )
    title = "How many directions the text itself takes"
    return Figure("target", title, caption, one_or_all(charts), tidy(data))


def target_growth(rows: Rows) -> Figure | None:
    """The rank that is needed against the text's size."""
    needed = [
        {"context": f"{n} token{'s' * (n > 1)}", "tokens": r["size"], **point(r, "seed")}
        for r in where(rows, "target_rank")
        for n in [r["context"]]
    ]
    if len({p["tokens"] for p in needed}) < 2:
        return None
    mean = means_with_seeds(needed, ["context", "tokens"], format=".0f")
    error = where(rows, "target_rank")[0]["error"]
    x = across("tokens:Q", "tokens of text", "~s", type="log", padding=12)
    base = alt.Chart().encode(
        x=x,
        y=upright(f"Directions needed for an error of {error:.0%}", format="~s", zero=True),
        color=alt.Color("context:N", legend=alt.Legend(title="after", titleOrient="left")),
    )
    tip = ["context:N", "tokens:Q ,d", "directions = value:Q .0f", "seeds = each:N"]
    chart = panel(tidy(mean), *joined(base, tip), height=260)
    caption = (
        "The rank that an approximation needs, against the size of the text, mean over orders of"
        " its documents. A rank that still grows is the text's, not the language's."
    )
    title = "The rank that the text needs, by its size"
    return Figure("target-growth", title, caption, chart, tidy(needed))


def alternatives(rows: Rows) -> Figure | None:
    """What other kinds of head gain on a full one, in a narrow model."""
    found = where(rows, "head_gain")
    if not found:
        return None
    order = list(dict.fromkeys(r["head"] for r in found))
    label = {
        r["head"]: _said(r["head"])
        + (f": {r['size']:.2f} times the numbers" if r.get("size") else "")
        for r in found
    }
    points = [{"name": label[r["head"]], "kind": WAYS[r["way"]], **point(r, "seed")} for r in found]
    kinds = [said for way, said in WAYS.items() if any(r["way"] == way for r in found)]
    names_ = [label[head] for head in order]
    chart = dots(points, "Nats gained on a full head", order=names_, kinds=kinds)
    caption = (
        "Held-out loss (nats per token) with a full head less that with another one, in models of"
        f" width {found[0]['width']}: right of 0 the other is better. Small dots: seeds."
        " After the name: how many numbers it has, as a multiple of the full head's."
    )
    return Figure("alternatives", "Other heads", caption, chart, tidy(points))


def _said(head: str) -> str:
    """A kind of head in words.

    >>> _said("mixture:4"), _said("sigsoftmax")
    ('mixture of 4', 'sigsoftmax')
    """
    kind, _, number = head.partition(":")
    words = {"mixture": "mixture of", "projected": "projected to", "low_rank": "rank"}
    return f"{words.get(kind, kind)} {number}".rstrip()
