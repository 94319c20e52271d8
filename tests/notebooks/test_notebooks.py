"""Every notebook runs from top to bottom in a fresh process, what its prose says is true of its
numbers, and what is stored is what its code shows.
"""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from scripts import notebooks
from tests.notebooks import claims

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home without a model: the two notebooks that want a real one make a small one, and the
    second finds what the first has made.
    """
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_prose_is_true(path, home):
    assert hasattr(claims, path.stem), f"write in claims.py what {path.name} claims"
    environment = os.environ | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "PYTHONPATH": str(ROOT),
    }
    # As for a reader: one device (the notebook that wants eight asks for them itself), and programs
    # compiled to be run many times, which here costs less than the flags of the other tests.
    for name in ("LMDYN_MODEL", "LMDYN_TEXT", "XLA_FLAGS"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "tests.notebooks.claims", str(path)]
    ended = subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-4000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_is_what_the_code_showed(path):
    notebook = notebooks.read(path)
    cells = notebooks.code(notebook)
    assert notebook["metadata"]["lmdyn"]["ran"] == notebooks.fingerprint(notebook), (
        f"run it again: python scripts/notebooks.py {path.name}"
    )
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert all(output["output_type"] in ("stream", "execute_result") for output in outputs)
    text = "".join(
        json.dumps(output.get("text") or output["data"]["text/plain"]) for output in outputs
    )
    assert not any(
        place in text for place in ("/home/", "/root/", "/tmp/", "/usr/", "/var/", str(ROOT))
    ), text
    assert path.stat().st_size < 150_000


def test_packing_a_picture_changes_no_pixel():
    rows = zlib.compress(bytes(range(200)) * 50, 0)
    chunk = lambda kind, body: (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    )
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13))
    found = notebooks.packed(
        head + chunk(b"IDAT", rows[:60]) + chunk(b"IDAT", rows[60:]) + chunk(b"IEND", b"")
    )
    assert found == head + chunk(b"IDAT", zlib.compress(bytes(range(200)) * 50, 9)) + chunk(
        b"IEND", b""
    )
    assert len(found) < len(rows) / 5


def test_notebooks_are_what_the_house_promises():
    assert [path.stem for path in NOTEBOOKS] == [
        "adapt_online",
        "knowledge_entropy",
        "localize_then_update",
        "own_metric",
        "own_transform",
        "sharding",
    ]
