"""Parts to one HTML file that needs nothing else: no network, no server, no folder beside it.

First the answer: two or three figures, a sentence each. Then the claims; study by study its other
figures, the table behind each and how to run it larger; what was measured otherwise; and where the
numbers come from. The page carries Vega once, every figure's specification, an SVG and a CSV of
each. A content security policy in it forbids the browser to fetch anything.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from lmdyn.errors import InputError
from lmdyn.report import claims_table, highlights, provenance_section, tables, theme, titles
from lmdyn.report.captions import summary
from lmdyn.report.exports import bundle, specs, to_svg
from lmdyn.report.figure_blocks import Group, address, figures_of
from lmdyn.report.figures import Figure
from lmdyn.report.folders import Part, Run
from lmdyn.report.markup import asset, e, section, slug
from lmdyn.report.metric_figures import measured
from lmdyn.report.small_versions import in_study
from lmdyn.report.studies import StudyPage, find, larger, package_of

__all__ = ["Page", "collect", "render", "to_svg"]


class Page(NamedTuple):
    """A page, and its figures as files."""

    html: str
    svgs: dict[str, str]


class StudyPart(NamedTuple):
    """One study on the page, from one folder or from several beside one another."""

    page: StudyPage
    runs: list[Run]
    groups: list[Group]


class Section(NamedTuple):
    """A part of the page, which the contents list names."""

    name: str
    title: str
    content: str
    kind: str = ""


def render(parts: Sequence[Part], unfinished: Sequence[str] = ()) -> Page:
    """The whole page.

    Args:
      parts: what it is made of, in their order.
      unfinished: names of studies that are left out.

    Returns:
      HTML, self-contained, and the SVG of each figure by the figure's name.
    """
    runs = [run for part in parts for run in part.runs]
    said = [claim for part in parts for claim in part.said]
    studies, others = _studies(runs), [run for run in runs if not package_of(run.meta)]
    rest = [Group(figure.title, [("", figure)]) for figure in measured(others)]
    groups = [*(group for study in studies for group in study.groups), *rest]
    drawn = [figure for group in groups for _, figure in group.figures]
    svgs = {figure.name: to_svg(figure.chart) for figure in drawn}
    title, date = titles.title(runs), titles.dates([run.meta for run in runs])
    first = highlights.choose([study.groups for study in studies], rest, said)
    above = {id(one.group) for one in first}
    more = [group for group in rest if id(group) not in above]
    sections = [
        Section(
            "answer",
            "In short",
            figures_of([h.group for h in first], svgs, [h.says for h in first]),
        ),
        Section("claims", "Claims", claims_table.section(said, {figure.name for figure in drawn})),
        *(_of_study(study, svgs, above) for study in studies),
        Section("numbers", "Numbers of models" if studies else "Numbers", tables.tables(others)),
        Section("figures", "More figures", figures_of(more, svgs)),
        Section("provenance", "Where the numbers come from", provenance_section.section(runs)),
    ]
    figures, configs = specs(drawn)
    html = asset("page.html").format(
        title=e(", ".join(filter(None, (title, date)))),
        style=_style(),
        heading=e(title),
        summary=e(_summary(runs, said, unfinished, date)),
        contents=_contents(sections),
        body="\n".join(section(*one) for one in sections),
        vega=bundle(),
        data=_json({"figures": figures, "configs": configs}),
        script=asset("page.js"),
    )
    return Page(html, svgs)


def _contents(sections: Sequence[Section]) -> str:
    """The items of the contents list: the parts that there are."""
    return "".join(
        f'<li><a href="#{e(one.name)}">{e(one.title)}</a></li>' for one in sections if one.content
    )


def collect(runs: Sequence[Run]) -> list[Figure]:
    """Every figure that the runs have the rows for, in the order of the page."""
    own = [
        figure for study in _studies(runs) for group in study.groups for _, figure in group.figures
    ]
    return own + measured([run for run in runs if not package_of(run.meta)])


def _studies(runs: Sequence[Run]) -> list[StudyPart]:
    """The studies in their order.

    What several folders have of the same one is laid beside one another, figure by figure.
    """
    found = []
    for package in dict.fromkeys(filter(None, (package_of(run.meta) for run in runs))):
        page, own = find(package), [run for run in runs if package_of(run.meta) == package]
        groups: dict[str, Group] = {}
        for run in own:
            for figure in _figures(page, package, run):
                group = groups.setdefault(figure.name, Group(figure.title, []))
                group.figures.append((run.part if len(own) > 1 else "", _of(run.folder, figure)))
        found.append(StudyPart(page, own, list(groups.values())))
    return found


def _figures(page: StudyPage, package: str, run: Run) -> list[Figure]:
    """A study's figures of its rows.

    Raises:
      InputError: the package cannot draw these rows.
    """
    try:
        return page.figures(run.rows)
    except (KeyError, TypeError, ValueError) as err:
        raise InputError(
            f"{run.name}: {package} cannot draw these rows ({type(err).__name__}: {err}); they are"
            " of another version of the study: run its command again with a new --out"
        ) from err


def _of(folder: str, figure: Figure) -> Figure:
    """A study's figure, named after its folder where there are several."""
    return figure._replace(name=f"{folder}-{figure.name}") if folder else figure


def _of_study(study: StudyPart, svgs: Mapping[str, str], above: Collection[int]) -> Section:
    """Question, figures that are not shown above, and how to run it larger."""
    page, several = study.page, len(study.runs) > 1
    names = ", ".join(run.part for run in study.runs)
    beside = f" Beside one another: {names}; each has axes of its own." if several else ""
    source = f" <small>{e(page.source)}.</small>" if page.source else ""
    ways = "".join(
        f"<p>{e(what)}</p>" + (f"<pre><code>{e(command)}</code></pre>" if command else "")
        for what, command in larger(page, study.runs[0].meta)
    )
    shown = ", ".join(
        f'<a href="#{e(address(group))}">{e(group.title)}</a>'
        for group in study.groups
        if id(group) in above
    )
    content = (
        f"<p class=asks>{e(page.question)}{source}{e(beside)}</p>{_ran(study)}"
        + in_study([run.meta for run in study.runs], [run.part for run in study.runs])
        + (f"<p class=ran>At the top of the page: {shown}.</p>" if shown else "")
        + figures_of([group for group in study.groups if id(group) not in above], svgs)
        + (f"<div class=larger><h3>Run it larger</h3>{ways}</div>" if ways else "")
    )
    return Section(f"study-{slug(page.title)}", page.title, content, "study")


def _ran(study: StudyPart) -> str:
    """On what it ran, and when; by folder where there are several."""
    lines = [
        (f"<b>{e(run.part)}</b> " if len(study.runs) > 1 else "") + e(said)
        for run in study.runs
        if (said := titles.ran(run.meta))
    ]
    return "".join(f"<p class=ran>{line}</p>" for line in lines)


def _summary(runs, said, unfinished, date) -> str:
    counted = f"{sum(len(run.rows) for run in runs):,} measurements."
    text = f"{claims_table.count(said)}, from {counted}" if said else summary(runs)
    if date:
        text += f" Run on {date}."
    if unfinished:
        text += f" Left out because unfinished: {', '.join(unfinished)}."
    return text


def _style():
    def variables(mode):
        return "".join(f"--{k}:{v};" for k, v in theme.INK[mode].items())

    light = f":root{{{variables('light')}--font:{theme.FONT}}}"
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{variables('dark')}}}}}"
    return f"{light}\n{dark}\n{asset('page.css')}"


def _json(value: Any) -> str:
    """JSON that is safe inside a script element."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")
