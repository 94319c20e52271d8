"""The figure of README.md: one panel per study, from their rows, as SVG for light and dark pages.

    python scripts/readme_figure.py out/knowledge_entropy out/gradient_localization \\
      out/saturation out/online_adaptation

writes notebooks/figures/instruments.svg and instruments-dark.svg.
"""

import sys
from pathlib import Path

import altair as alt
import vl_convert

from lmdyn import records
from lmdyn.report import theme

WIDTH, HEIGHT = 320, 150
HERE = Path(__file__).parents[1] / "notebooks" / "figures"


def mean(points, by):
    """The mean of `y` over what shares the fields `by`."""
    groups = {}
    for point in points:
        groups.setdefault(tuple(point[k] for k in by), []).append(point["y"])
    return [
        {**dict(zip(by, key, strict=True)), "y": sum(values) / len(values)}
        for key, values in groups.items()
    ]


def lines(points, x, y, color, order, title, domain=None, lower=None):
    """A panel of lines, with their names in a legend above."""
    scale = alt.Scale(zero=False, nice=True) if lower is None else alt.Scale(domainMin=lower)
    return (
        alt.Chart(alt.Data(values=mean(points, ["x", "name"])))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X(
                "x:Q",
                title=x,
                axis=alt.Axis(tickCount=5),
                scale=alt.Scale(domain=domain, nice=False) if domain else alt.Undefined,
            ),
            y=alt.Y("y:Q", title=y, scale=scale, axis=alt.Axis(tickCount=4)),
            color=alt.Color(
                "name:N",
                sort=order,
                scale=alt.Scale(range=color),
                legend=alt.Legend(title=None, symbolType="stroke"),
            ),
        )
        .properties(width=WIDTH, height=HEIGHT, title=title)
    )


def panels(folders, mode):
    """The four charts, from the rows of the four studies."""
    ke, gl, sat, oa = (records.read_rows(Path(folder) / "rows.jsonl") for folder in folders)
    hues, ink = theme.CATEGORY[mode], theme.INK[mode]
    of = lambda rows, metric, **more: [
        r for r in rows if r["metric"] == metric and all(r.get(k) == v for k, v in more.items())
    ]
    layers = [
        {"x": r["step"], "y": 100 * r["normalized"], "name": f"layer {r['layer']}"}
        for r in of(ke, "knowledge_entropy", kind="pretraining", start="plain")
        if r["layer"] is not None
    ]
    kinds = ("updated", "new", "unchanged")
    profile = [
        {"x": r["layer"], "y": r["value"], "name": f"{r['kind']} facts"}
        for r in of(gl, "relative_gradient_norm", site="mlp")
        if r["kind"] in kinds and r["layer"] is not None
    ]
    widths = sorted({r["width"] for r in of(sat, "head_spectrum", kind="ladder")})
    widths = [widths[0], widths[len(widths) // 2], widths[-1]]
    rank = [
        {
            "x": r["step"],
            "y": 100 * r["effective_rank"] / r["directions"],
            "name": f"width {r['width']}",
        }
        for r in of(sat, "head_spectrum", kind="ladder")
        if r["width"] in widths
    ]
    last = max(point["x"] for point in rank)
    ways = {"SGD": "online, SGD", "Adam, no momentum": "online, Adam (b1 = 0)"}
    along = [
        r
        for r in of(oa, "nll_along", stream="builtin:code:test", analysis="rules", trained="base")
        if r["setting"] in ways
    ]
    stream = [{"x": r["end"] / 1000, "y": r["value"], "name": ways[r["setting"]]} for r in along]
    stream += [{"x": r["end"] / 1000, "y": r["static"], "name": "static"} for r in along]
    depth = len({p["name"] for p in layers})
    return [
        lines(
            layers,
            "training step",
            "% of the ceiling",
            theme.ramp(mode, depth),
            [f"layer {i}" for i in range(depth)],
            "Knowledge entropy, while a model is trained",
        ),
        lines(
            profile,
            "layer",
            "times random spans",
            [hues[1], hues[0], ink["quiet"]],
            [f"{kind} facts" for kind in kinds],
            "Gradients of facts, by layer",
            lower=1,
        ),
        lines(
            rank,
            "training step",
            "effective rank, % of width",
            theme.ramp(mode, 4)[1:],
            [f"width {w}" for w in widths],
            "The output head's spectrum",
            domain=[0, last],
        ),
        lines(
            stream,
            "thousand tokens",
            "nats per token",
            [ink["quiet"], hues[0], hues[1]],
            ["static", *ways.values()],
            "A model of prose reads source code",
        ),
    ]


def draw(folders, mode):
    """One SVG of all four."""
    a, b, c, d = panels(folders, mode)
    beside = lambda *charts: alt.hconcat(*charts, spacing=40).resolve_scale(color="independent")
    chart = alt.vconcat(beside(a, b), beside(c, d), spacing=26).resolve_scale(color="independent")
    config = theme.config(mode)
    config["legend"] |= {"offset": 28, "labelFontSize": 11, "symbolSize": 60, "columnPadding": 10}
    config["title"] |= {
        "color": theme.INK[mode]["ink"],
        "fontSize": 13,
        "fontWeight": 600,
        "frame": "group",
        "offset": 10,
    }
    spec = chart.to_dict() | {"config": config}
    return vl_convert.vegalite_to_svg(spec)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    HERE.mkdir(exist_ok=True)
    for mode, name in (("light", "instruments.svg"), ("dark", "instruments-dark.svg")):
        (HERE / name).write_text(draw(sys.argv[1:], mode), encoding="utf-8")
        print(HERE / name, (HERE / name).stat().st_size)
