"""Types are checked: pyright finds nothing wrong in `lmdyn` (settings: pyproject.toml)."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyright", reason="extra dev is not installed")


@pytest.mark.slow
def test_pyright_finds_nothing_wrong():
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
