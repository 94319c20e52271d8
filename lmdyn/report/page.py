"""Runs to one HTML file that needs nothing else: no network, no server, no folder beside it.

The page carries Vega once, every figure's specification, an SVG and a CSV of each, the tables, and where the numbers
came from. A content security policy in it forbids the browser to fetch anything.
"""

import base64
import csv
import html
import io
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import altair as alt

from lmdyn.report import (
    claims,
    entropy_decay,
    fact_learning,
    figures,
    gradient_localization,
    knowledge_entropy,
    online_adaptation,
    saturation,
    scaling,
    theme,
)
from lmdyn.report.figures import Figure, short
from lmdyn.report.gather import Run


def render(
    title: str,
    runs: Sequence[Run],
    figs: Sequence[Figure],
    svgs: Mapping[str, str],
    said: Sequence[Mapping[str, Any]] = (),
    unfinished: Sequence[str] = (),
) -> str:
    """The whole page.

    Args:
      title: heading of the page. runs: in the order to show them. figs: see `collect`. svgs: each of them by name, see
        `to_svg`. said: the claims of studies, see `lmdyn.report.claims`. unfinished: names of studies that are left out.

    Returns:
      HTML, self-contained.
    """
    specs = {place: chart.to_dict() for f in figs for place, chart in _places(f).items()}
    for spec in specs.values():
        spec.pop("$schema", None)
    measured = f"{sum(len(run.rows) for run in runs):,} measurements."
    summary = f"{claims.count(said)}, from {measured}" if said else _summary(runs)
    if unfinished:
        summary += f" Left out, since not come to {'its' if len(unfinished) == 1 else 'their'} end: {', '.join(unfinished)}."
    body = [
        f"<header><h1>{_e(title)}</h1><p>{_e(summary)}</p></header>",
        "<main>",
        _section("claims", "What it says", claims.section(said, {f.name for f in figs})),
        _section("numbers", "Key numbers", _key_numbers([run for run in runs if _study(run) is None])),
        *(_figure(f, svgs[f.name], wide) for f, wide in zip(figs, _wide(figs), strict=True)),
        _section("provenance", "Where the numbers come from", _provenance(runs)),
        "</main>",
    ]
    configs = {place: {mode: theme.config(mode, _shades(spec)) for mode in theme.INK} for place, spec in specs.items()}
    return _asset("page.html").format(
        title=_e(title),
        style=_style(),
        body="\n".join(body),
        vega=_bundle(),
        data=_json({"figures": specs, "configs": configs}),
        script=_asset("page.js"),
    )


STUDIES = {
    "knowledge entropy": knowledge_entropy.figures,
    "entropy decay": entropy_decay.figures,
    "fact learning": fact_learning.figures,
    "gradient localization": gradient_localization.figures,
    "online adaptation": online_adaptation.figures,
    "saturation": saturation.figures,
    "scaling law": scaling.figures,
}
"""The figures of a study, from its rows, by the study's name."""


def collect(runs: Sequence[Run]) -> list[Figure]:
    """Every figure that the runs have the rows for, in the order of the page."""
    studies = [_of(run.folder, figure) for run in runs if _study(run) for figure in STUDIES[_study(run)](run.rows)]
    return studies + _measured([run for run in runs if not _study(run)])


def _of(folder: str, figure: Figure) -> Figure:
    """A study's figure, named after its folder where there are several."""
    return figure._replace(name=f"{folder}-{figure.name}", title=f"{figure.title}: {folder}") if folder else figure


def _study(run: Run) -> str | None:
    """Which study a run is the rows of, where that study has figures of its own."""
    name = run.meta.get("study")
    return name if name in STUDIES else None


def _measured(runs: Sequence[Run]) -> list[Figure]:
    """The figures of what `lmdyn measure`, `online` and `train` leave."""
    rows = [r for run in runs for r in run.rows]
    figs = []

    def layers(name, title, metric, site, unit, caption, axis="layer"):
        chart = figures.by_layer(rows, metric, site, unit, axis)
        if chart is not None:
            data = figures.layer_data(rows, metric, site) + figures.final_data(rows, metric)
            used = [run for run in runs if any(r["metric"] == metric for r in run.rows)]
            figs.append(Figure(name, title, f"{caption} {_about(used)}", chart, data))

    layers(
        "knowledge-entropy",
        "Knowledge entropy by layer",
        "knowledge_entropy",
        "mlp",
        "nats",
        "How evenly each layer's MLP spreads its coefficients over its memory vectors: the entropy of their "
        "mean sizes over the text, in nats. "
        "The ceiling is log F, reached when all F coefficients are equally large; a lower value means that "
        "fewer vectors do the work. Kim et al. 2024.",
    )
    layers(
        "anisotropy",
        "Anisotropy by depth",
        "anisotropy",
        "residual",
        "mean cosine",
        "Mean cosine similarity between the representations of all pairs of tokens, after each number of blocks "
        "(0 is the embedding): 0 means directions "
        "spread evenly, 1 that all point the same way. The diamond is the representation after the last norm, "
        "which the head reads. Godey et al. 2024.",
        "blocks applied",
    )
    figs += gradient_localization.profiles(rows)
    for run in runs:
        if {"static", "online"} <= run.traces.keys() and len(run.traces["static"]):
            figs += _stream_figures(run, sum(1 for f in figs if f.name.startswith("stream")))
    layers(
        "attention-entropy",
        "Attention entropy by layer",
        "attention_entropy",
        "attention",
        "nats",
        "Mean entropy of the attention distributions over heads and queries, in nats: low means that few tokens "
        "are looked at.",
    )
    return figs


def _stream_figures(run, number):
    data = figures.stream_data(run.traces["static"], run.traces["online"])
    ending = f"-{number + 1}" if number else ""
    c, size = run.meta.get("config", {}), data[0]["end"]
    how = [
        f"{k} {c[k]}"
        for k in ("optimizer", "lr", "chunk", "context", "window", "adapt", "reset")
        if c.get(k) is not None
    ]
    about = _about([run]) + (f" Online settings: {', '.join(how)}." if how else "")
    return [
        Figure(
            f"stream{ending}",
            "Static against online likelihood",
            f"Negative log-likelihood in nats a token, mean over runs of {size:,} predictions. Online: every "
            f"token is scored before the model is updated on it. {about}",
            figures.stream(data),
            data,
        ),
        Figure(
            f"gain{ending}",
            "What adaptation has saved so far",
            "Sum over the stream of static minus online nll, in nats. Rising means that the adapted model "
            f"predicts better there; at the end, {data[-1]['gain']:,.0f} nats over {data[-1]['end']:,} "
            f"predictions. {about}",
            figures.gain(data),
            [{"end": d["end"], "gain": d["gain"]} for d in data],
        ),
    ]


def _about(runs):
    """Model and text of some runs, as the end of a caption."""
    models = list(dict.fromkeys(figures.label(r) for run in runs for r in run.rows))
    texts = list(dict.fromkeys(run.meta["config"]["data"] for run in runs if run.meta.get("config", {}).get("data")))
    tokens = sorted({r["tokens"] for run in runs for r in run.rows if r["tokens"]})
    model = f"{len(models)} models" if len(models) > 3 else ", ".join(models)
    count = f", {tokens[0]:,} predictions" if len(tokens) == 1 else ""
    return f"Model: {model}. Text: {', '.join(texts) or 'unknown'}{count}."


def _summary(runs):
    models = list(dict.fromkeys(figures.label(r) for run in runs for r in run.rows))
    texts = list(dict.fromkeys(run.meta["config"]["data"] for run in runs if run.meta.get("config", {}).get("data")))
    named = models[0] if len(models) == 1 else f"{len(models)} models"
    return f"{named} on {', '.join(texts) or 'a text'}: {sum(len(run.rows) for run in runs):,} measurements."


# Whole-model values, in the order of the table: metric, site (None: any), what people call it, unit, digits.
NUMBERS = (
    ("nll", None, "Negative log-likelihood", "nats a token", 4),
    ("nll", "perplexity", "Perplexity", "", 2),
    ("nll", "bits_per_byte", "Bits per byte", "", 3),
    ("knowledge_entropy", None, "Knowledge entropy, all layers", "nats", 2),
    ("attention_entropy", None, "Attention entropy, mean", "nats", 3),
    ("prediction_entropy", None, "Prediction entropy", "nats", 3),
    ("anisotropy", None, "Anisotropy after the last norm", "cosine", 3),
    ("singular_entropy", None, "Singular entropy of the head", "nats", 3),
    ("static_nll", None, "Static nll", "nats a token", 4),
    ("static_nll", "perplexity", "Static perplexity", "", 2),
    ("online_nll", None, "Online nll", "nats a token", 4),
    ("online_nll", "perplexity", "Online perplexity", "", 2),
)


def _key_numbers(runs):
    """One table of whole-model values a model, and one of costs and likelihoods a stream."""
    measured = [run for run in runs if not any(r["metric"] == "online_nll" for r in run.rows)]
    streams = [run for run in runs if run not in measured]
    parts = []
    columns = {}
    for run in measured:
        for r in run.rows:
            columns.setdefault(figures.label(r), []).append(r)
    if columns:
        parts.append(_table("Whole-model values", columns))
    if streams:
        names = {
            f"{figures.label(run.rows[0])}{f' ({run.name})' if len(streams) > 1 else ''}": run.rows for run in streams
        }
        parts.append(_table("Adapting to the stream", names))
    return "".join(parts)


def _table(caption, columns: Mapping[str, list]):
    """Few columns: a number a line. Many (a series): a model a line."""
    cells = {name: dict(_numbers(rows)) for name, rows in columns.items()}
    lines = list(dict.fromkeys(line for column in cells.values() for line in column))
    if not lines:
        return ""
    turned = len(columns) > 3  # a series

    def cell(column, line):
        return f"<td>{cells[column].get(line, '')}</td>"

    if turned:
        head = "".join(f"<th scope=col>{line}</th>" for line in lines)
        body = "".join(f"<tr><th scope=row>{_e(c)}</th>{''.join(cell(c, n) for n in lines)}</tr>" for c in columns)
    else:
        head = "".join(f"<th scope=col>{_e(c)}</th>" for c in columns)
        body = "".join(f"<tr><th scope=row>{line}</th>{''.join(cell(c, line) for c in columns)}</tr>" for line in lines)
    kind = " class=turned" if turned else ""
    head = f"<caption>{_e(caption)}</caption><thead><tr><td></td>{head}</tr></thead>"
    return f"<div class=scroll><table{kind}>{head}<tbody>{body}</tbody></table></div>"


def _numbers(rows):
    """(heading, value) pairs, as HTML."""
    whole = [r for r in rows if r["layer"] is None]
    for metric, extra, heading, unit, digits in NUMBERS:
        for r in whole:
            if r["metric"] == metric and (extra is None or extra in r):
                value = r["value"] if extra is None else r[extra]
                yield f"{_e(heading)}{f' <small>{_e(unit)}</small>' if unit else ''}", f"{value:,.{digits}f}"
    flops = {r["site"]: r["value"] for r in rows if r["metric"] == "flops"}
    for site, value in flops.items():
        yield f"Compute, {_e(site)} <small>TFLOP</small>", f"{value / 1e12:,.2f}"


def _places(figure: Figure) -> dict[str, alt.TopLevelMixin]:
    """The charts of a figure by the names of their places on the page."""
    several = isinstance(figure.chart, tuple)
    return (
        {f"{figure.name}.{i}": chart for i, chart in enumerate(figure.chart)}
        if several
        else {figure.name: figure.chart}
    )


def _wide(figs: Sequence[Figure]) -> list[bool]:
    """Which figures take the whole width: those of several charts, and those that would stand beside nothing."""
    wide: list[bool] = []
    for i, figure in enumerate(figs):
        pending = len(wide) - max(
            (k + 1 for k, w in enumerate(wide) if w), default=0
        )  # narrow ones since the last wide one
        alone = i + 1 == len(figs) or isinstance(figs[i + 1].chart, tuple)
        wide.append(isinstance(figure.chart, tuple) or (pending % 2 == 0 and alone))
    return wide


def columns(count: int) -> int:
    """Into how many columns so many charts of a figure go, where there is room.

    >>> [columns(n) for n in (1, 2, 3, 4, 5, 6)]
    [1, 2, 3, 2, 3, 3]
    """
    return 1 if count == 1 else 2 if count in (2, 4) else 3


def _figure(figure: Figure, svg: str, wide: bool) -> str:
    svg = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    table = "data:text/csv;charset=utf-8," + urllib.parse.quote(to_csv(figure.data))
    name, title = _e(figure.name), _e(figure.title)
    kind = "figure wide" if wide else "figure"
    places = _places(figure)
    charts = "".join(
        f'<div class=chart data-figure="{_e(place)}" role=img aria-label="{title}"></div>' for place in places
    )
    if len(places) > 1:
        charts = f'<div class="panels columns{columns(len(places))}">{charts}</div>'
    links = f'<a download="{name}.svg" href="{svg}">SVG</a> <a download="{name}.csv" href="{table}">CSV</a>'
    return (
        f'<section class="{kind}" id="{name}"><h2><a href="#{name}">{title}</a></h2>'
        f"<figure>{charts}<figcaption>{_e(figure.caption)}</figcaption></figure>"
        f"<p class=links>{links}</p>{_behind(figure.table)}</section>"
    )


def _behind(table: Sequence[Mapping[str, Any]]) -> str:
    """The table behind a figure, folded; its first column names the lines."""
    if not table:
        return ""
    names = list(table[0])
    head = "".join(f"<th scope=col>{_e(n)}</th>" for n in names[1:])
    lines = "".join(
        f"<tr><th scope=row>{_e(line[names[0]])}</th>{''.join(f'<td>{_e(_minus(line[n]))}</td>' for n in names[1:])}</tr>"
        for line in table
    )
    head = f"<thead><tr><th scope=col class=first>{_e(names[0])}</th>{head}</tr></thead>"
    table = f"<table class=turned>{head}<tbody>{lines}</tbody></table>"
    return f"<details><summary>Table</summary><div class=scroll>{table}</div></details>"


def _minus(text: str) -> str:
    """A number with a real minus, which is as wide as a plus."""
    return f"\u2212{text[1:]}" if text[:1] == "-" and text[1:2].isdigit() else text


def to_svg(chart: alt.TopLevelMixin | tuple[alt.TopLevelMixin, ...], width: int = 680) -> str:
    """A figure as SVG in its light dress, `width` pixels wide; of several charts each is half as wide."""
    import vl_convert

    if isinstance(chart, tuple):
        specs = [c.to_dict() for c in chart]
        outermost = ("$schema", "config", "autosize", "usermeta")
        parts = [{k: v for k, v in spec.items() if k not in outermost} | {"width": width // 2} for spec in specs]
        spec, shades = {"concat": parts, "columns": columns(len(parts)), "spacing": 28}, max(map(_shades, specs))
    else:
        spec = chart.to_dict() | {"width": width}
        shades = _shades(spec)
    return vl_convert.vegalite_to_svg(
        spec, config=theme.config("light", shades) | {"background": theme.INK["light"]["paper"]}
    )


def _shades(spec):
    return spec.get("usermeta", {}).get("shades", 5)


def to_csv(data: Sequence[Mapping[str, Any]]) -> str:
    """Dicts as CSV with a heading line; None is an empty cell.

    >>> to_csv([{"layer": 0, "value": 1.5}, {"layer": 1, "value": None}])
    'layer,value\\n0,1.5\\n1,\\n'
    """
    columns = list(dict.fromkeys(key for d in data for key in d))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(data)
    return out.getvalue()


def _provenance(runs):
    return "".join(_run(run) for run in runs)


def _run(run):
    m = run.meta
    if not m:
        return f"<h3>{_e(run.name)}</h3><p>No {_e(run.name)}.meta.json stands beside these rows.</p>"
    versions = ", ".join(f"{k} {v}" for k, v in m.get("versions", {}).items())
    seconds = f"{m['wall_seconds']:,.1f} s" if "wall_seconds" in m else ""
    speed = f"{m['tokens_per_second']:,.0f} predictions a second" if m.get("tokens_per_second") else ""
    lines = {
        "Device": m.get("device"),
        "Versions": versions,
        "Seed": "none: nothing in it is random" if m.get("seed") is None else m["seed"],
        "Started": m.get("started"),
        "Took": ", ".join(filter(None, (seconds, speed))),
        "Peak memory": f"{m['peak_memory_mib']:,.0f} MiB" if "peak_memory_mib" in m else None,
    }
    items = "".join(f"<dt>{_e(k)}</dt><dd>{_e(str(v))}</dd>" for k, v in lines.items() if v)
    if m.get("config"):
        items += f"<dt>Settings</dt><dd>{_settings(m['config'])}</dd>"
    return f"<h3>{_e(run.name)}</h3><pre><code>{_e(m.get('command', ''))}</code></pre><dl>{items}</dl>"


def _settings(config: Mapping[str, Any]) -> str:
    """Settings as HTML: plain ones in a line, each that holds others folded below."""
    plain = {k: v for k, v in config.items() if not _nested(v)}
    line = ", ".join(f"{_e(k)}={_e(_value(v))}" for k, v in plain.items())
    folded = [
        f"<details><summary>{_e(k)}{_hint(v)}</summary>{_settings(v if isinstance(v, Mapping) else _numbered(v))}</details>"
        for k, v in config.items()
        if _nested(v)
    ]
    return line + "".join(folded)


def _nested(value) -> bool:
    """Whether a setting holds settings: a mapping, or a list that has one in it."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        or isinstance(value, list)
        and any(isinstance(v, (Mapping, list)) for v in value)
    )


def _numbered(values: list) -> dict[str, Any]:
    """The items of a list by number, with their name where they have one."""
    return {
        f"{i} {v['name']}" if isinstance(v, Mapping) and "name" in v else str(i): v for i, v in enumerate(values, 1)
    }


def _hint(value) -> str:
    """What a folded setting is about, in a word."""
    name = f"{len(value)}" if isinstance(value, list) else value.get("name") or value.get("ref")
    return f" <small>{_e(name)}</small>" if isinstance(name, str) and name else ""


def _value(value):
    if isinstance(value, list):
        return " ".join(short(v) if isinstance(v, str) else f"{v}" for v in value) or "none"
    return "none" if value is None or value == {} else value


def _section(name, title, content):
    return f'<section id="{name}"><h2><a href="#{name}">{_e(title)}</a></h2>{content}</section>' if content else ""


def _style():
    def variables(mode):
        return "".join(f"--{k}:{v};" for k, v in theme.INK[mode].items())

    light = f":root{{{variables('light')}--font:{theme.FONT}}}"
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{variables('dark')}}}}}"
    return f"{light}\n{dark}\n{_asset('page.css')}"


def _bundle():
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def _json(value):
    """JSON that may stand inside a script element."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _asset(name):
    return resources.files("lmdyn.report").joinpath("assets", name).read_text(encoding="utf-8")


def _e(text):
    return html.escape(str(text))
