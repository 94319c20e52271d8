"""Pieces of HTML that every part of the page is made of; text from rows is escaped here."""

import html
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

SHORT = 40
"""Lines of a table that is printed; a longer one is folded on paper too."""


def e(text: Any) -> str:
    """Text as HTML.

    >>> e("a <b>")
    'a &lt;b&gt;'
    """
    return html.escape(str(text))


def asset(name: str) -> str:
    """A file of `lmdyn/report/assets`.

    >>> "{" in asset("page.css")
    True
    """
    return resources.files("lmdyn.report").joinpath("assets", name).read_text(encoding="utf-8")


def section(name: str, title: str, content: str, kind: str = "") -> str:
    """A part of the page under a heading that links to itself; nothing without content.

    >>> section("limits", "Limits", "<p>None.</p>")
    '<section id="limits"><h2><a href="#limits">Limits</a></h2><p>None.</p></section>'
    """
    if not content:
        return ""
    kind = f' class="{kind}"' if kind else ""
    return (
        f'<section id="{e(name)}"{kind}><h2><a'
        f' href="#{e(name)}">{e(title)}</a></h2>{content}</section>'
    )


def slug(text: str) -> str:
    """A name as an anchor of a URL.

    >>> slug("study one in a/b")
    'study-one-in-a-b'
    """
    kept = "".join(c if (c.isalnum() and c.isascii()) or c in "_." else "-" for c in text)
    return "-".join(filter(None, kept.split("-"))) or "part"


def behind(table: Sequence[Mapping[str, Any]], title: str = "Table") -> str:
    """The table behind a figure, folded; its first column names the lines.

    >>> "<td>3.1</td>" in behind([{"model": "tiny", "nll": "3.1"}])
    True
    """
    if not table:
        return ""
    names = list(table[0])
    head = "".join(f"<th scope=col>{e(n)}</th>" for n in names[1:])
    lines = "".join(
        f"<tr><th scope=row>{e(line[names[0]])}</th>"
        + "".join(f"<td>{e(minus(line[n]))}</td>" for n in names[1:])
        + "</tr>"
        for line in table
    )
    head = f"<thead><tr><th scope=col class=first>{e(names[0])}</th>{head}</tr></thead>"
    kind = "behind short" if len(table) <= SHORT else "behind"
    return (
        f'<details class="{kind}"><summary>{e(title)}</summary><div class=scroll tabindex=0>'
        f"<table class=turned>{head}<tbody>{lines}</tbody></table></div></details>"
    )


def minus(text: str) -> str:
    """A number with a real minus, which is as wide as a plus.

    >>> minus("-1.5"), minus("-x")
    ('\u22121.5', '-x')
    """
    return f"\u2212{text[1:]}" if text[:1] == "-" and text[1:2].isdigit() else text
