"""Series damaged in the ways that published ones are, seen before anything is loaded."""

import os
import subprocess
import sys

import pytest

from lmdyn.checkpoints import Reference, series
from lmdyn.checkpoints.integrity import Listing, StoredFile, list_checkpoint, remarks
from lmdyn.cli import main
from tests.checkpoints.cases import write_tiny
from tests.checkpoints.local_hub import serve


def listed(*files: tuple[str, str], step: int = 0, problem: str | None = None) -> Listing:
    stored = tuple(StoredFile(name, 9, digest) for name, digest in files)
    return Listing(Reference("hf", "org/name", f"step{step}"), stored, None, problem)


def said(*listings: Listing) -> dict[int, list[str]]:
    return {reference.step: lines for reference, lines in remarks(listings).items()}


def test_equal_parameters_and_foreign_shards_are_named():
    a, b = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    found = said(
        listed((a, "1"), (b, "2"), step=1),
        listed((a, "3"), (b, "4"), step=2),
        listed((a, "1"), (b, "2"), step=3),
        listed((a, "3"), (b, "5"), step=4),
        listed(step=5, problem="no weights"),
    )
    assert found == {
        3: ["the same parameters as step1"],
        4: [f"its {a} is {a} of step2"],
        5: ["cannot be read: no weights"],
    }


@pytest.mark.parametrize(
    "steps, expected",
    [
        ([0, 1, 2, 4, 8, 512, 1000, 2000, 3000, 4000], {}),  # Pythia's, whole
        ([0, 1000, 2000, 3000, 5000, 6000], {5000: "1 missing after step 3000"}),
        ([10, 20, 30, 40, 80, 90, 100], {80: "3 missing after step 40"}),
        ([0, 3, 10, 40], {}),  # no rule, so no gap
        ([7], {}),
    ],
)
def test_steps_that_are_missing_where_others_are_regular(steps, expected):
    found = said(*(listed(("m", str(step)), step=step) for step in steps))
    assert {step: lines[0].split(",")[0] for step, lines in found.items()} == expected


def test_folders(tmp_path, capsys):
    for step in range(1, 6):
        write_tiny(tmp_path / f"step{step}", seed=2 if step == 4 else step)
    write_tiny(tmp_path / "step6", seed=6, intermediate_size=7)
    (tmp_path / "step3/model.safetensors").unlink()
    found = remarks([list_checkpoint(one) for one in series(f"dir:{tmp_path}@*")])
    by_step = {reference.step: lines for reference, lines in found.items()}
    assert by_step[4] == ["the same parameters as step2"]
    assert by_step[3][0].startswith("cannot be read:")
    assert "no model.safetensors or pytorch_model.bin" in by_step[3][0]
    assert by_step[6] == ["another architecture than step5"]
    assert main(["series", f"dir:{tmp_path}@*"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "6 checkpoints, 3 with remarks"
    assert max(map(len, out.splitlines()[:3])) < 120


def test_the_hubs_lists_are_enough(tmp_path):
    """A main branch and four steps, of which two are the final weights and one has no config."""
    revisions = {}
    for number, name in enumerate(["main", "step1", "step2", "step3", "step4"]):
        write_tiny(tmp_path / name, seed=0 if name in ("step2", "step4") else number)
        revisions[name] = {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
    del revisions["step3"]["config.json"]
    with serve("org/name", revisions) as (address, asked):
        environment = {
            **os.environ,
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        done = subprocess.run(
            [sys.executable, "-m", "lmdyn", "series", "hf:org/name@*"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "remarks" in lines["checkpoint"]
    assert lines["step4"].endswith("the same parameters as step2")
    assert lines["main"].endswith("the same parameters as step2")
    assert "cannot be read: hf:org/name@step3 has no config.json" in lines["step3"]
    assert done.stdout.splitlines()[-1] == "5 checkpoints, 3 with remarks"
    assert not any("safetensors" in request for request in asked)  # nothing large was fetched


def test_a_file_that_is_missing(tmp_path):
    missing = list_checkpoint(Reference("gguf", str(tmp_path / "no.gguf")))
    assert "No such file" in missing.problem
