"""Hooks of mkdocs: formulas become MathML while the site is built, so that no page needs a script
or a network to show them; README's figure is part of the site.
"""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)


FIGURES = Path(__file__).parents[2] / "notebooks" / "figures"


def _mathml(found: re.Match) -> str:
    latex = re.sub(r"\\log (?=\w)", r"\\log\\, ", html.unescape(found[2]).strip())
    if found[1] == "span":
        return convert(latex)
    parts = (convert(part.strip(), display="block") for part in latex.split(r"\qquad"))
    return f'<div class="formula">{"".join(parts)}</div>'  # side by side where there is room


def on_page_content(content: str, **more: Any) -> str:
    """Replaces the formulas of one page."""
    return FORMULA.sub(_mathml, content)


def on_files(files: Any, config: Any) -> Any:
    """Adds the figure, light and dark, beside the other assets."""
    for path in sorted(FIGURES.glob("instruments*.svg")):
        files.append(File.generated(config, f"assets/{path.name}", abs_src_path=str(path)))
    return files
