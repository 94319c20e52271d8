"""How figures look: one place for type, ink and colour, in light and in dark.

The colours are told apart with the common kinds of colour blindness (after Okabe and Ito), and each
reaches a contrast of 3 to 1 with its background.
"""

from collections.abc import Mapping
from typing import Any, cast

import altair as alt

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

INK = {
    "light": {
        "paper": "#ffffff",
        "ink": "#1b1f24",
        "soft": "#5d6670",
        "line": "#d5dade",
        "grid": "#eceff2",
        "accent": "#0b6bb5",
        "quiet": "#7b858f",
        "supported": "#00704f",
        "not-supported": "#b3411b",
        "undecided": "#5d6670",
        "caution": "#c98a00",
    },
    "dark": {
        "paper": "#15181c",
        "ink": "#e8ebee",
        "soft": "#9ea8b2",
        "line": "#3a4149",
        "grid": "#252a30",
        "accent": "#5eb0ef",
        "quiet": "#8b96a1",
        "supported": "#3ec79b",
        "not-supported": "#f0825a",
        "undecided": "#9ea8b2",
        "caution": "#e0ac2b",
    },
}
CATEGORY = {
    "light": ["#0b6bb5", "#c2570c", "#00835f", "#a8488b", "#80670a", "#3f3f9f", "#5d6670"],
    "dark": ["#5eb0ef", "#f0944d", "#3ec79b", "#dd8fc4", "#d8bd4a", "#a3a3f5", "#a6b0ba"],
}
RAMP = {
    "light": ["#9cc9ea", "#5f9fd0", "#2f78b3", "#155489", "#0a3157"],
    "dark": ["#24507a", "#2f73ad", "#4b98d8", "#87c1f0", "#d3eafc"],
}


def ramp(mode: str, count: int) -> list[str]:
    """`count` shades from early to late, for the checkpoints of a series.

    >>> ramp("light", 3)
    ['#9cc9ea', '#2f78b3', '#0a3157']
    """
    stops = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in RAMP[mode]]
    shades = []
    for i in range(count):
        place = i * (len(stops) - 1) / max(count - 1, 1)
        low = min(int(place), len(stops) - 2)
        mixed = [
            round(a + (b - a) * (place - low))
            for a, b in zip(stops[low], stops[low + 1], strict=True)
        ]
        shades.append("#" + "".join(f"{c:02x}" for c in mixed))
    return shades


def config(mode: str = "light", shades: int = 5) -> dict[str, Any]:
    """The Vega-Lite configuration of one mode.

    Args:
      mode: `light` or `dark`.
      shades: how many checkpoints a series has.

    >>> config("dark")["axis"]["labelColor"]
    '#9ea8b2'
    """
    c = INK[mode]
    text = {"font": FONT, "labelFont": FONT, "titleFont": FONT}
    return {
        "background": None,
        "font": FONT,
        "padding": {"left": 2, "right": 8, "top": 4, "bottom": 2},
        "view": {"stroke": None},
        **_axes(c, text),
        "title": {
            "font": FONT,
            "fontSize": 12,
            "fontWeight": "normal",
            "color": c["soft"],
            "anchor": "start",
            "frame": "bounds",
            "offset": 8,
        },
        "line": {"strokeJoin": "round", "strokeCap": "round"},
        "mark": {"color": c["accent"]},
        "rule": {"color": c["quiet"]},
        "text": {"font": FONT, "fontSize": 12, "color": c["soft"]},
        "range": {"category": CATEGORY[mode], "ordinal": ramp(mode, shades)},
        "style": _styles(c),
    }


def _axes(c: Mapping[str, str], text: Mapping[str, str]) -> dict[str, Any]:
    """Axes and legends; `c`: the ink, `text`: the fonts."""
    return {
        "axis": {
            **text,
            "labelColor": c["soft"],
            "titleColor": c["soft"],
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "domainColor": c["line"],
            "tickColor": c["line"],
            "gridColor": c["grid"],
            "tickSize": 4,
            "labelPadding": 4,
            "titlePadding": 8,
        },
        "axisX": {"grid": False},
        "axisY": {
            "domain": False,
            "ticks": False,
            "titleAngle": 0,
            "titleAlign": "left",
            "titleAnchor": "start",
            "titleY": -10,
            "titleX": 0,
            "titleBaseline": "bottom",
        },
        "legend": {
            **text,
            "orient": "top",
            "direction": "horizontal",
            "title": None,
            "labelColor": c["ink"],
            "labelFontSize": 12,
            "labelLimit": 260,
            "titleColor": c["soft"],
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "symbolStrokeWidth": 3,
            "symbolBaseFillColor": c["soft"],
            "symbolBaseStrokeColor": c["soft"],
            "symbolSize": 70,
            "offset": 30,
            "columnPadding": 16,
            "rowPadding": 4,
        },
    }


def _styles(ink: Mapping[str, str]) -> dict[str, Any]:
    """The named styles of marks: `mark_line(style="mean")` and the like."""
    return {
        "under": {"fillOpacity": 0.13},
        "ceiling": {"strokeWidth": 1, "strokeDash": [4, 3]},
        "zero": {"strokeWidth": 1},
        "cursor": {"strokeWidth": 1},
        "note": {"fill": ink["soft"], "font": FONT, "fontSize": 12},
        "line": {
            "strokeWidth": 2
        },  # here, not above: what stands above would win over the styles below
        "mean": {"strokeWidth": 2.5},
        "seed": {"strokeWidth": 1, "opacity": 0.6},
        "run": {"strokeWidth": 1.5, "opacity": 0.85},
        "pale": {"strokeWidth": 1, "opacity": 0.6, "color": ink["quiet"]},
        "plain": {"strokeWidth": 2, "color": ink["quiet"]},
        "plain-dot": {"filled": True, "opacity": 1, "size": 36, "color": ink["quiet"]},
        "interval": {"strokeWidth": 2.5, "color": ink["accent"]},
        "band": {"strokeWidth": 1.5, "opacity": 0.5},
        "round": {"strokeWidth": 1, "strokeDash": [2, 3]},
        "dot": {"filled": True, "opacity": 1, "size": 36},
        "one": {"filled": True, "opacity": 0.5, "size": 18},
        "best": {"filled": False, "opacity": 1, "size": 240, "strokeWidth": 2},
        "target": {"filled": True, "opacity": 0, "size": 420},
    }


def enable(width: int = 520, height: int = 240, ppi: int = 96) -> None:
    """Altair charts made from now on look like the report's; notebooks show them as PNG pictures.

    A picture needs no network and no JavaScript, so a stored notebook shows it wherever it is
    opened.

    A picture needs no network and no JavaScript, so a stored notebook shows it wherever it is
    opened.

    Args:
      width: of a chart that has none of its own, in pixels.
      height: the same.
      ppi: sharpness; 72 is one pixel for one.

    >>> enable()
    >>> alt.Chart(alt.Data(values=[{"x": 1}])).mark_point().encode(x="x:Q").to_dict()["config"][
    ...     "view"
    ... ]["continuousWidth"]
    520
    >>> _ = alt.theme.enable("default"), alt.renderers.enable("default")  # as Altair was
    """
    look = config("light")
    look |= {
        "background": "#ffffff",
        "padding": 10,
        "view": {**look["view"], "continuousWidth": width, "continuousHeight": height},
    }
    look["header"] = {
        key: value
        for key, value in look["legend"].items()
        if key.startswith(("label", "title")) and "Padding" not in key
    }
    look["header"] |= {"titlePadding": 4, "labelPadding": 8}

    @alt.theme.register("lmdyn", enable=True)
    def _():
        return alt.theme.ThemeConfig(config=cast(Any, look))

    alt.renderers.enable("png", ppi=ppi)
