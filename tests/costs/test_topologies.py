"""TPUs that are not here: slices by name, and lmdyn's programs through their own compiler."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmdyn.costs import has_libtpu
from lmdyn.costs.topologies import ENVIRONMENT, parse_topology, smallest_topology
from lmdyn.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("chip,text", [("v5e", "4x8"), ("v5e", "1x1"), ("v5p", "2x4x4")])
def test_slices(chip, text):
    assert "x".join(map(str, parse_topology(chip, text))) == text


@pytest.mark.parametrize(
    "chip,text", [("v5e", "3x4"), ("v5e", "2x2x2"), ("v5p", "4x4"), ("v6e", "1x2"), ("v6e", "big")]
)
def test_no_such_slice(chip, text):
    with pytest.raises(InputError, match=f"topology {text}: a slice of {chip} has"):
        parse_topology(chip, text)


def test_the_smallest_slices_are_those_on_offer():
    two = [smallest_topology("v6e", n) for n in (1, 4, 8, 16, 32, 64, 128, 256)]
    assert two == ["1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"]
    three = [smallest_topology("v5p", n) for n in (1, 4, 8, 16, 32, 64)]
    assert three == ["1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4"]


@pytest.mark.skipif(not has_libtpu(), reason="libtpu is not installed: pip install 'lmdyn[tpu]'")
@pytest.mark.slow
def test_programs_compile_for_every_tpu():
    chips = ("v5e", "v5p", "v6e")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.costs.tpu_programs", *chips],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, "XLA_FLAGS": ""},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert set(found) == set(chips)
    for programs in found.values():
        assert set(programs) == {"train", "measure", "online", "gradients"}
        # Parameters in float32, counted by hand: embedding, two blocks and norms.
        block = 128 * 64 * (2 + 1 + 1) + 128 * 128 + 3 * 128 * 128 + 2 * 128
        params = 4 * (256 * 128 + 2 * block + 128)
        for arguments, temporary in programs.values():
            assert params <= arguments < 1.3 * params
            assert temporary < 2**25  # small ones stay on the chip
