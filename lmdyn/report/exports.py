"""Figures to what a page carries: specifications for the browser, an SVG, a CSV, a table."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from lmdyn.report import theme
from lmdyn.report.figures import Figure

LINES = 120
"""A table made of a figure's data has at most this many lines; the CSV has them all."""


def places(figure: Figure) -> dict[str, alt.TopLevelMixin]:
    """The charts of a figure by the names of their places on the page.

    >>> list(places(Figure("loss", "", "", (alt.Chart(), alt.Chart()), [])))
    ['loss.0', 'loss.1']
    """
    if isinstance(figure.chart, tuple):
        return {f"{figure.name}.{i}": chart for i, chart in enumerate(figure.chart)}
    return {figure.name: figure.chart}


def columns(count: int) -> int:
    """Into how many columns this many charts of a figure go, where there is room.

    >>> [columns(n) for n in (1, 2, 3, 4, 5, 6)]
    [1, 2, 3, 2, 3, 3]
    """
    return 1 if count == 1 else 2 if count in (2, 4) else 3


def specs(figures: Sequence[Figure]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the browser draws: the specification of each place, and its look in either mode."""
    found = {place: spec_of(chart) for figure in figures for place, chart in places(figure).items()}
    for spec in found.values():
        spec.pop("$schema", None)
    return found, {
        place: {mode: theme.config(mode, _shades(spec)) for mode in theme.INK}
        for place, spec in found.items()
    }


def spec_of(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A chart as Vega-Lite, without the theme that a session may have enabled.

    That theme would win over the page's own, in dark mode too.

    >>> spec_of(alt.Chart(alt.Data(values=[{"x": 1}])).mark_point())["mark"]
    {'type': 'point'}
    """
    with alt.theme.enable("default"):
        return chart.to_dict()


def to_svg(chart: alt.TopLevelMixin | tuple[alt.TopLevelMixin, ...], width: int = 680) -> str:
    """A figure as SVG in its light look.

    It is `width` pixels wide; of several charts each is half as wide.
    """
    import vl_convert

    if isinstance(chart, tuple):
        parts = [spec_of(c) for c in chart]
        outermost = ("$schema", "config", "autosize", "usermeta")
        inner = [
            {k: v for k, v in spec.items() if k not in outermost} | {"width": width // 2}
            for spec in parts
        ]
        spec, shades = (
            {"concat": inner, "columns": columns(len(parts)), "spacing": 28},
            max(map(_shades, parts)),
        )
    else:
        spec = spec_of(chart) | {"width": width}
        shades = _shades(spec)
    return vl_convert.vegalite_to_svg(
        spec, config=theme.config("light", shades) | {"background": theme.INK["light"]["paper"]}
    )


def _shades(spec):
    return spec.get("usermeta", {}).get("shades", 5)


def to_csv(data: Sequence[Mapping[str, Any]]) -> str:
    """Dicts as CSV with a heading line; None is an empty cell.

    >>> to_csv([{"layer": 0, "value": 1.5}, {"layer": 1, "value": None}]).splitlines()
    ['layer,value', '0,1.5', '1,']
    """
    names = list(dict.fromkeys(key for d in data for key in d))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(data)
    return out.getvalue()


def table(figure: Figure) -> tuple[str, list[dict[str, str]]]:
    """What the table behind a figure is called, and its lines.

    The figure's own table, or else its data: every n-th line where there are more than can be
    read.

    >>> table(Figure("a", "", "", None, [{"layer": n, "value": n / 3} for n in range(2)]))
    ('Table', [{'layer': '0', 'value': '0'}, {'layer': '1', 'value': '0.333333'}])
    >>> name, lines = table(Figure("a", "", "", None, [{"n": n} for n in range(500)]))
    >>> name, len(lines)
    ('Table: every 5th of 500 lines, all in the CSV', 100)
    """
    if figure.table:
        return "Table", [dict(line) for line in figure.table]
    every = -(-len(figure.data) // LINES) or 1
    names = list(dict.fromkeys(key for d in figure.data for key in d))
    lines = [{name: _cell(d.get(name)) for name in names} for d in figure.data[::every]]
    nth = {2: "2nd", 3: "3rd"}.get(every, f"{every}th")
    return (
        "Table"
        if every == 1
        else f"Table: every {nth} of {len(figure.data):,} lines, all in the CSV"
    ), lines


def _cell(value) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def bundle() -> str:
    """The program that draws figures in the browser, as one script."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace(
        "</script", "<\\/script"
    )
