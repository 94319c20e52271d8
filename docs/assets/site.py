"""A hook of mkdocs: formulas become MathML while the site is built, so that no page needs a script
or a network to show them.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)


def _mathml(found: re.Match) -> str:
    display = "block" if found[1] == "div" else "inline"
    return convert(html.unescape(found[2]).strip(), display=display)


def on_page_content(content: str, **more: Any) -> str:
    """Replaces the formulas of one page."""
    return FORMULA.sub(_mathml, content)
