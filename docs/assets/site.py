"""Hooks of mkdocs: formulas become MathML while the site is built, and the search works from files,
so that no page needs a network; README's figure is part of the site.
"""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)
SHIM = "https://unpkg.com/iframe-worker/shim"  # what the plugin "offline" loads from a network
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


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Has a page load our own script in place of the plugin's."""
    return output.replace(SHIM, "../" * page.url.count("/") + "assets/worker.js")


def on_post_template(output_content: str, template_name: str, config: Any) -> str:
    """The same for the page of addresses that do not exist, which a server shows."""
    return output_content.replace(SHIM, "/assets/worker.js")


def on_files(files: Any, config: Any) -> Any:
    """Adds the figure, light and dark, beside the other assets."""
    for path in sorted(FIGURES.glob("instruments*.svg")):
        files.append(File.generated(config, f"assets/{path.name}", abs_src_path=str(path)))
    return files
