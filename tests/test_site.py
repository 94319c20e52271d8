"""The documentation site: built strictly, so that no link and no name is dead; every public name is
in it; and no page needs a network.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_documentation import NAMES

pytest.importorskip("mkdocs", reason="extra docs is not installed")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages, by path."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*.html")
    }


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site):
    shown = set(re.findall(r'id="(lmdyn\.[\w.]+)"', "".join(site.values())))
    missing = [
        where
        for where, value in NAMES
        if where not in shown and f"{value.__module__}.{value.__qualname__}" not in shown
    ]
    assert not missing, "\n".join(missing)


@pytest.mark.slow
def test_pages_need_no_network(site):
    for path, text in site.items():
        taken = re.findall(r'<(?:script|img|source|iframe)[^>]* src="(https?:[^"]+)"', text)
        taken += re.findall(r'<link[^>]* rel="(?:stylesheet|preload)"[^>]*"(https?:[^"]+)"', text)
        assert not taken, f"{path}: {taken}"


@pytest.mark.slow
def test_formulas_are_mathml(site):
    formulas = re.findall(r"<math.*?</math>", site["methods.html"], re.DOTALL)
    assert len(formulas) > 60
    for text in site.values():
        assert "arithmatex" not in text
        assert not re.search(r"\\(frac|mathrm|sum|theta)\b", re.sub(r"<pre.*?</pre>", "", text))


@pytest.mark.slow
def test_tables_are_tables(site):
    for path, text in site.items():
        prose = re.sub(r"<(pre|code|math)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert not re.search(r"^\|", prose, re.MULTILINE), f"{path} shows a row as it is written"
