"""Figures as HTML: their places, captions, downloads and tables.

Those of several folders are side by side, panel by panel.
"""

import base64
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lmdyn.report.exports import columns, places, table, to_csv
from lmdyn.report.figures import Figure
from lmdyn.report.markup import behind, e


class Group(NamedTuple):
    """What one heading covers: a figure, or the same figure of several folders.

    >>> group = Group(
    ...     "Loss", [("one", Figure("a", "", "", (), [])), ("two", Figure("b", "", "", (), []))]
    ... )
    >>> address(group), many(group)
    ('all-a', True)
    """

    title: str
    figures: list[tuple[str, Figure]]
    """With the folder's name, which is empty where there is one."""


def figures_of(groups: Sequence[Group], svgs: Mapping[str, str], says: Sequence[str] = ()) -> str:
    """Figures, two in a row where there is room for narrow ones.

    Args:
      groups: the figures.
      svgs: each figure's picture by its name.
      says: a sentence above each, as HTML.
    """
    blocks = "".join(
        _block(group, svgs, w, said)
        for group, w, said in zip(groups, wide(groups), says or [""] * len(groups), strict=True)
    )
    return f"<div class=figures>{blocks}</div>" if blocks else ""


def address(group: Group) -> str:
    """The anchor of a group of figures; see `Group`.

    >>> address(Group("Loss", [("", Figure("loss", "", "", (), []))]))
    'loss'
    """
    name = group.figures[0][1].name
    return name if len(group.figures) == 1 else f"all-{name}"


def wide(groups: Sequence[Group]) -> list[bool]:
    """Which take the whole width: those of several charts, or without a neighbour.

    >>> narrow = Group("Loss", [("", Figure("loss", "", "", None, []))])
    >>> wide([narrow, narrow, narrow])  # the third has no neighbour
    [False, False, True]
    """
    found: list[bool] = []
    for i, group in enumerate(groups):
        pending = len(found) - max(
            (k + 1 for k, w in enumerate(found) if w), default=0
        )  # narrow ones since the last wide one
        alone = i + 1 == len(groups) or many(groups[i + 1])
        found.append(many(group) or (pending % 2 == 0 and alone))
    return found


def many(group: Group) -> bool:
    """Whether a group has several charts, and so needs the whole width.

    >>> many(Group("Loss", [("", Figure("loss", "", "", None, []))]))
    False
    """
    return len(group.figures) > 1 or isinstance(group.figures[0][1].chart, tuple)


def _block(group: Group, svgs: Mapping[str, str], wide: bool, says: str) -> str:
    several, name = len(group.figures) > 1, address(group)
    charts = _beside(group) if several else _panels(group.figures[0][1])
    notes = "".join(_note(folder, figure, svgs[figure.name]) for folder, figure in group.figures)
    return (
        f'<section class="figure{" wide" if wide else ""}" id="{e(name)}">'
        f'<h3><a href="#{e(name)}">{e(group.title)}</a></h3>'
        + (f"<p class=says>{says}</p>" if says else "")
        + f"<figure>{charts}{_captions(group)}</figure>{notes}</section>"
    )


def _chart(place: str, figure: Figure, folder: str = "") -> str:
    """The place of a chart; its label says what a sighted reader takes from it, where known."""
    text = ". ".join(filter(None, (figure.title, folder, figure.says)))
    return f'<div class=chart data-figure="{e(place)}" role=img aria-label="{e(text)}"></div>'


def _panels(figure: Figure) -> str:
    charts = [_chart(place, figure) for place in places(figure)]
    return (
        charts[0]
        if len(charts) == 1
        else f'<div class="panels columns{columns(len(charts))}">{"".join(charts)}</div>'
    )


def _beside(group: Group) -> str:
    """A row for each panel, a column for each folder."""
    each = [(folder, figure, list(places(figure))) for folder, figure in group.figures]
    cells = []
    for row in range(max(len(own) for _, _, own in each)):
        for folder, figure, own in each:
            name = f' id="{e(figure.name)}"' if row == 0 else ""
            chart = _chart(own[row], figure, folder) if row < len(own) else ""
            cells.append(f"<div{name}><p class=of>{e(folder)}</p>{chart}</div>")
    return f'<div class="panels columns{min(len(each), 3)}">{"".join(cells)}</div>'


def _captions(group: Group) -> str:
    captions = dict.fromkeys(figure.caption for _, figure in group.figures)
    if len(captions) == 1:
        return f"<figcaption>{e(next(iter(captions)))}</figcaption>"
    said = "".join(
        f"<p><b>{e(folder)}</b> {e(figure.caption)}</p>" for folder, figure in group.figures
    )
    return f"<figcaption>{said}</figcaption>"


def _note(folder: str, figure: Figure, svg: str) -> str:
    """A figure's downloads and the table behind it."""
    svg = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    csv = "data:text/csv;charset=utf-8," + urllib.parse.quote(to_csv(figure.data))
    name = e(figure.name)
    title, lines = table(figure)
    links = (
        f'<a download="{name}.svg" href="{svg}">SVG</a> <a download="{name}.csv"'
        f' href="{csv}">CSV</a>'
    )
    head = f"<b>{e(folder)}</b> " if folder else ""
    named = f"{title}: {folder}" if folder else title
    return f"<p class=links>{head}{links}</p>{behind(lines, named)}"
