"""Pages of every study in a browser, at phone and desktop width: drawn, within the page, quiet, off
the network; hovering and downloads work.

The browser is started once. Without Chromium all of this is skipped.
"""

import csv
import io
import json
import xml.etree.ElementTree as ElementTree

import pytest

from lmdyn import records, report
from lmdyn.report.studies import find, package_of
from tests.report import browser, cases, test_study_pages
from tests.studies.gradient_localization.test_figures import rows as gradient_localization
from tests.studies.online_adaptation.test_figures import whole as online_adaptation
from tests.studies.saturation.cases import study as saturation

pytestmark = pytest.mark.skipif(not browser.FOUND, reason="no Chromium here")
WIDTHS = (400, 800, 1400)
PAGES = ("every study", "beside")


def law():
    about = {"a": 0.3, "b": 0.3, "A": 400.0, "B": 400.0, "runs": 4, "intervals": {"a": [0.2, 0.4]}}
    rows = [records.row("scaling_law", 1.7, "nats", model="t", **about)]
    for size in (1e7, 1e8, 1e9):
        for tokens in (1e9, 1e10):
            loss = 1.7 + 400 * size**-0.3 + 400 * tokens**-0.3
            rows.append(
                records.row(
                    "scaling_point",
                    loss,
                    "nats",
                    model="m",
                    name=f"{size:g}",
                    parameters=size,
                    trained=tokens,
                    predicted=loss,
                    fitted=True,
                )
            )
        rows.append(
            records.row(
                "scaling_residual",
                0.01,
                "share",
                model="m",
                name=f"{size:g}",
                parameters=size,
                trained=1e10,
                low=0.0,
                high=0.02,
                fitted=True,
            )
        )
    return rows


ROWS = {
    "knowledge entropy": test_study_pages.whole,
    "entropy decay": test_study_pages.decay,
    "fact learning": test_study_pages.told,
    "gradient localization": gradient_localization,
    "online adaptation": online_adaptation,
    "saturation": lambda: saturation(seeds=2),
    "scaling law": law,
}


def study(folder, name):
    """A study's folder, with a claim of each verdict that links to its first figure."""
    rows = ROWS[name]()
    about = (
        {"study": name, "package": "lmdyn.report.scaling_figures"}
        if name == "scaling law"
        else {"study": name}
    )
    figure = find(package_of(about)).figures(rows)[0].name
    folder.mkdir(parents=True)
    (folder / "study.json").write_text("{}")
    records.write_rows(
        folder / "rows.jsonl",
        rows,
        {**cases.META, **about, "seed": 0, "command": "lmdyn study --config c.py --out o"},
    )
    said = [
        test_study_pages.claim(v.replace(" ", "-"), v, figure, study=name)
        for v in ("supported", "not supported", "undecided")
    ]
    (folder / "claims.json").write_text(json.dumps(said))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Every study and what was measured, gathered from one folder; and two of a kind beside one
    another.
    """
    root = tmp_path_factory.mktemp("pages")
    for name in ROWS:
        study(root / "all" / name, name)
    cases.folder(root / "all" / "a model")
    for folder in ("first", "second"):
        study(root / "two" / folder, "entropy decay")
        records.write_rows(
            root / "two" / folder / "more" / "measure.jsonl", cases.measured(), cases.META
        )
    both = [root / "two" / folder for folder in ("first", "second", "first/more", "second/more")]
    return {
        "every study": report.build(root / "all"),
        "beside": report.build(both, root / "two.html"),
    }


@pytest.fixture(scope="module")
def tab():
    with browser.browser() as tab:
        yield tab


BOXES = """(() => {
  const box = (n) => { const r = n.getBoundingClientRect(); return [r.left, r.right, r.height]; };
  return {
    width: document.documentElement.clientWidth, reach: document.documentElement.scrollWidth,
    places: document.querySelectorAll("[data-figure]").length,
    figures: [...document.querySelectorAll("[data-figure] svg.marks")].map(box),
    marks: [...document.querySelectorAll("[data-figure]")]
      .map(p => p.querySelectorAll("svg path").length),
    clipped: [...document.querySelectorAll("[data-figure] svg text")].filter(t => {
      const r = t.getBoundingClientRect(), s = t.closest("svg").getBoundingClientRect();
      return t.textContent && r.width && (r.left < s.left - 1 || r.right > s.right + 1);
    }).map(t => t.textContent),
    broken: [...document.querySelectorAll("a[href^='#']")].map(a => a.getAttribute("href").slice(1))
      .filter(n => document.querySelectorAll(`[id="${n}"]`).length !== 1),
    claims: [...document.querySelectorAll(".claims tbody tr:not(.paper):not(.several)")]
      .map(p => (p.querySelector("a") || {}).hash || ""),
  };
})()"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_every_figure_is_seen_and_nothing_complains(tab, pages, name, width):
    tab.open(pages[name], width)
    seen = tab.run(BOXES)
    assert tab.complaints() == []
    assert [url.rpartition("/")[2] for url in tab.requested()] == [pages[name].name], (
        "nothing else is asked for"
    )
    assert seen["reach"] <= seen["width"] == width, "nothing sticks out sideways"
    assert len(seen["figures"]) == seen["places"] > 5
    assert min(seen["marks"]) > 0
    for left, right, height in seen["figures"]:
        assert 0 <= left < right <= width
        assert right - left > min(width * 0.6, 200)
        assert height > 60
    assert seen["broken"] == []
    assert seen["claims"] and all(seen["claims"]), "every claim links to its figure"
    assert seen["clipped"] == []


@pytest.mark.parametrize("width", [400, 1400])
def test_hovering_tells_the_values(tab, pages, width):
    tab.open(pages["every study"], width)
    # A figure in which every point can be hit, and one where the nearest point is told.
    for figure, said in (("#knowledge-entropy-series", "step"), ("[data-figure=stream]", "online")):
        marks = "path[aria-roledescription='point']" if figure.startswith("#") else "svg"
        tab.run(f"document.querySelector(`{figure} {marks}`).scrollIntoView({{block: 'center'}})")
        x, y = tab.run(
            f"(() => {{ const r = document.querySelector(`{figure}"
            f" {marks}`).getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2];"
            " })()"
        )
        for shift in (-3, 0):
            tab.point(x + shift, y)
        tip = tab.until(
            "(document.querySelector('.vg-tooltip.visible') || {}).innerText", seconds=20
        )
        assert said in tip
        assert (
            tab.run("document.querySelector('.vg-tooltip.visible').getBoundingClientRect().right")
            <= width
        )
        tab.point(1, 1)
        tab.until("!document.querySelector('.vg-tooltip.visible')", seconds=20)


def test_claims_are_sorted_by_keyboard_and_told_to_a_screen_reader(tab, pages):
    tab.open(pages["every study"], 1400)
    head = "document.querySelector('table.sortable th.verdict')"
    order = "[...document.querySelector('table.sortable tbody').querySelectorAll('td.verdict')]"
    before = tab.run(f"{order}.map(c => c.innerText.slice(2))")
    assert before == ["supported", "not supported", "undecided"]
    for state, expected in (("ascending", before), ("descending", before[::-1]), (None, before)):
        tab.run(f"{head}.querySelector('button').focus()")
        for kind in ("keyDown", "keyUp"):
            tab.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r")
        assert tab.run(f"{head}.getAttribute('aria-sort')") == state
        assert tab.run(f"{order}.map(c => c.innerText.slice(2))") == expected


@pytest.mark.parametrize("width", [400, 1400])
def test_the_contents_list_stays_in_sight_and_marks_what_is_read(tab, pages, width):
    tab.open(pages["every study"], width)
    names = tab.run("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert names[:2] == ["answer", "claims"] and names[-1] == "provenance"
    tab.run("document.getElementById('numbers').scrollIntoView()")
    tab.until("(document.querySelector('nav a[aria-current]') || {}).hash === '#numbers'")
    top = tab.run("document.querySelector('nav').getBoundingClientRect().top")
    assert 0 <= top < 60


def test_every_figure_downloads(tab, pages):
    tab.open(pages["every study"], 1400)
    names = tab.run("[...document.querySelectorAll('.links a')].map(a => a.download)")
    sections = tab.run(
        "[...document.querySelectorAll('section.figure')].map(s => s.querySelectorAll('.links"
        " a').length)"
    )
    assert set(sections) == {2} and len(names) == len(set(names)) == 2 * len(sections)
    svg = next(n for n in names if n.endswith("series.svg"))
    for name in (svg, svg.replace(".svg", ".csv")):
        content = tab.download(
            name, f"document.querySelector('a[download=\"{name}\"]').click()"
        ).decode()
        if name.endswith(".svg"):
            assert ElementTree.fromstring(content).tag.endswith("svg")
        else:
            assert {r["step"] for r in csv.DictReader(io.StringIO(content))} == {
                str(s) for s in test_study_pages.STEPS
            }
    empty = tab.run(
        "[...document.querySelectorAll('.links a')].filter(a => a.href.length < 60).map(a =>"
        " a.download)"
    )
    assert empty == []


INK = """[...document.querySelectorAll("[data-figure] svg text")].filter(t => t.textContent)
  .map(t => getComputedStyle(t).fill)"""


SYMBOLS = """[...document.querySelectorAll("[data-figure] .role-legend-symbol path")]
  .map(t => getComputedStyle(t).fill)"""


def luminance(color):
    """Of an `rgb(r, g, b)`, from 0 to 1 (WCAG 2.1)."""
    parts = [float(x) / 255 for x in color[color.index("(") + 1 : -1].split(",")[:3]]
    return sum(
        k * (x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4)
        for k, x in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_in_figures_can_be_read(tab, pages, scheme):
    tab.open(pages["every study"], 1400, scheme)
    paper = luminance(tab.run("getComputedStyle(document.documentElement).backgroundColor"))
    assert (paper < 0.1) == (scheme == "dark")
    inks = set(tab.run(INK))
    assert inks
    for ink in inks:
        light, dark = sorted((luminance(ink), paper), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, ink
    for symbol in set(tab.run(SYMBOLS)) - {"none"}:
        light, dark = sorted((luminance(symbol), paper), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 1.5, symbol


def test_it_follows_the_machine_from_light_to_dark(tab, pages):
    tab.open(pages["beside"], 400, "light")
    tab.dress("dark")
    tab.until("document.documentElement.dataset.drawn === 'dark'")
    assert tab.complaints() == []


def test_it_prints_light_and_whole(tab, pages):
    """On paper figures are pictures, short tables are open, and nothing is wider than the paper;
    also from a dark screen.
    """
    tab.open(pages["every study"], 700, "dark")
    tab.run("window.dispatchEvent(new Event('beforeprint'))")
    tab.dress("dark", "print")
    seen = tab.run(
        """({reach: document.documentElement.scrollWidth,
             paper: getComputedStyle(document.documentElement).backgroundColor,
             images: [...document.querySelectorAll('img.printed')]
               .map(i => i.complete && i.naturalWidth && i.getBoundingClientRect().width),
             figures: document.querySelectorAll('section.figure').length,
             live: [...document.querySelectorAll('[data-figure]')]
               .filter(f => f.getBoundingClientRect().height).length,
             closed: document.querySelectorAll('details.short:not([open])').length})"""
    )
    tab.run("window.dispatchEvent(new Event('afterprint'))")
    assert seen["reach"] <= 700
    assert luminance(seen["paper"]) > 0.9
    assert len(seen["images"]) == seen["figures"] and min(seen["images"]) > 200
    assert seen["live"] == seen["closed"] == 0
    assert tab.run("document.querySelectorAll('details.short[open]').length") == 0
    assert tab.printed().startswith(b"%PDF")
