"""A hook of mkdocs: formulas become MathML while the site is built, so that no page needs a script
or a network to show them.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)


def _mathml(found: re.Match) -> str:
    latex = re.sub(r"\\log (?=\w)", r"\\log\\, ", html.unescape(found[2]).strip())
    if found[1] == "span":
        return convert(latex)
    parts = (convert(part.strip(), display="block") for part in latex.split(r"\qquad"))
    return f'<div class="formula">{"".join(parts)}</div>'  # side by side where there is room


def on_page_content(content: str, **more: Any) -> str:
    """Replaces the formulas of one page."""
    return FORMULA.sub(_mathml, content)
