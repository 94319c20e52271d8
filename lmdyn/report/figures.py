"""A figure: a chart, its words, and its data; and what all charts share.

A figure's data are tidy and rounded for reading; they are what its CSV holds. Charts fill the width
that they are given, and have no title: the page writes it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt

FIGURE_HEIGHT = 260


class Figure(NamedTuple):
    """A chart, and the text that goes with it.

    >>> points = [{"layer": 0, "value": 1.5}, {"layer": 1, "value": 2.0}]
    >>> marks = alt.Chart().mark_line().encode(x="layer:Q", y="value:Q")
    >>> Figure("loss", "Loss by layer", "Nats per token.", chart_of(points, marks), points).name
    'loss'
    """

    name: str
    """File name of its downloads, without ending."""
    title: str
    caption: str
    chart: alt.TopLevelMixin | tuple[alt.TopLevelMixin, ...]
    """One chart, or several side by side."""
    data: list[dict[str, Any]]
    """What is drawn, for the CSV."""
    table: Sequence[Mapping[str, Any]] = ()
    """The same, or its gist, short enough to read on the page; empty where the figure is enough."""
    says: str = ""
    """What it shows, in a sentence with its numbers; empty where its claims say it."""
    rank: int = 0
    """Whether it opens a page, as `lmdyn.records.Quantity.rank`."""


def short(reference: str) -> str:
    """A reference as people say it: no kind, no folders, no ending of a file.

    >>> short("gguf:/models/SmolLM2-135M.Q4_1.gguf"), short("hf:EleutherAI/pythia-70m@step1000")
    ('SmolLM2-135M.Q4_1', 'pythia-70m@step1000')
    """
    kind, _, path = reference.partition(":")
    name = (path or kind).rstrip("/").rpartition("/")[2] or reference
    for ending in (".gguf", ".txt", ".jsonl"):
        name = name.removesuffix(ending)
    return name


def label(r: Mapping[str, Any]) -> str:
    """A row's model as people say it, with its step where the reference does not give it.

    `when` of a row tells before from after an intervention.

    >>> label({"model": "hf:EleutherAI/pythia-70m", "step": 1000, "when": "before"})
    'pythia-70m@1000, before'
    """
    name = short(r["model"])
    if r["step"] is not None and str(r["step"]) not in name.partition("@")[2]:
        name = f"{name}@{r['step']}"
    return f"{name}, {r['when']}" if r.get("when") else name


def whole_numbers(values: Iterable[int]) -> alt.Axis:
    """An axis whose ticks are whole numbers: all of them, or every n-th.

    A tick at one half would be labelled as a whole number.

    >>> whole_numbers([2, 0, 1]).values, whole_numbers(range(25)).values
    ([0, 1, 2], [0, 4, 8, 12, 16, 20, 24])
    """
    values = sorted(values)
    least, most = values[0], values[-1]
    every = next(
        n for n in (1, 2, 4, 5, 10, 20, 50, 100, most - least + 1) if (most - least) / n <= 8
    )
    return alt.Axis(format="d", values=list(range(least, most + 1, every)))


def chart_of(
    values: Sequence[Mapping[str, Any]], *layers: alt.Chart
) -> alt.LayerChart | alt.FacetChart:
    """One chart of layers over the same data, as wide as its place.

    A layer may have data of its own.

    >>> marks = alt.Chart().mark_line().encode(x="layer:Q", y="value:Q")
    >>> len(chart_of([{"layer": 0, "value": 1.5}], marks, marks).layer)
    2
    """
    chart = alt.layer(*layers, data=alt.Data(values=values))
    return chart.properties(
        width="container",
        height=FIGURE_HEIGHT,
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
    )


def rounded(value: float, digits: int = 6) -> float:
    """`value` to six significant digits, as a float.

    >>> rounded(1234.56789), rounded(0.000123456789)
    (1234.57, 0.000123457)
    """
    return (
        0.0 if value == 0 else round(float(value), digits - 1 - math.floor(math.log10(abs(value))))
    )


def number(value: float) -> str:
    """A number to three significant digits, with a real minus.

    >>> [number(x) for x in (0.21614, -2.4424, 1234.5, -0.000352, 0)]
    ['0.216', '\u22122.44', '1,234', '\u22120.000352', '0']
    """
    if value == 0:
        return "0"
    digits = min(9, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{digits}f}".replace("-", "\u2212")
