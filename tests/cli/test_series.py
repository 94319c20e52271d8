"""`lmdyn measure` of a series: damaged ones, stopped ones, ones in which a checkpoint is twice."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lmdyn.cli import main
from tests.checkpoints.cases import write_tiny


@pytest.fixture
def series(tmp_path):
    """A folder of six checkpoints, of which steps 2 and 4 hold the same parameters."""
    for step in range(6):
        write_tiny(tmp_path / f"step{step}", seed=2 if step == 4 else step)
    (tmp_path / "text.txt").write_text("abc ab bca cab " * 12)
    return tmp_path


def command(series, out: str, *more: str) -> list[str]:
    data = f"text:{series}/text.txt"
    words = ["measure", f"dir:{series}@*", "--data", data, "--length", "8", "--metrics", "nll"]
    return [*words, "--out", str(series / out), *more]


def rows_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_checkpoint_that_is_there_twice_is_named_and_marked(series, capfd):
    assert main(command(series, "a.jsonl")) == 0
    rows = rows_of(series / "a.jsonl")
    assert [r["step"] for r in rows] == list(range(6))
    assert rows[4]["value"] == rows[2]["value"]
    marked = {r["step"]: r["duplicate_of"] for r in rows if "duplicate_of" in r}
    assert marked == {4: f"dir:{series}@step2"}
    assert f"step4 holds the same parameters as dir:{series}@step2" in capfd.readouterr().err
    meta = json.loads((series / "a.jsonl.meta.json").read_text())
    assert len(set(meta["fingerprints"].values())) == 5
    assert not (series / "a.jsonl.partial").exists()


def test_a_checkpoint_that_fails_leaves_the_others(series, capfd):
    assert main(command(series, "whole.jsonl")) == 0
    weights = series / "step3/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-7])
    assert main(command(series, "a.jsonl")) == 3
    assert "1 of 6 checkpoints failed" in capfd.readouterr().err
    assert [r["step"] for r in rows_of(series / "a.jsonl")] == [0, 1, 2, 4, 5]
    weights.write_bytes(content)
    assert main(command(series, "a.jsonl")) == 0
    assert capfd.readouterr().err.count("measured before") == 5
    assert (series / "a.jsonl").read_text() == (series / "whole.jsonl").read_text()


def test_a_series_of_which_nothing_can_be_measured_is_an_error(series):
    for folder in series.glob("step*"):
        (folder / "config.json").write_text("{}")
    assert main(command(series, "a.jsonl")) == 2
    assert not (series / "a.jsonl").exists()


@pytest.mark.parametrize("change", ["settings", "weights", "text"])
def test_what_has_changed_is_measured_again(change, series, capfd):
    (series / "step3/model.safetensors").rename(series / "step3/kept")
    assert main(command(series, "a.jsonl")) == 3
    (series / "step3/kept").rename(series / "step3/model.safetensors")
    if change == "weights":
        write_tiny(series / "step1", seed=77)
    if change == "text":
        (series / "text.txt").write_text("abc ab bca cab " * 13)
    capfd.readouterr()
    assert (
        main(command(series, "a.jsonl", *(["--batch", "2"] if change == "settings" else []))) == 0
    )
    assert capfd.readouterr().err.count("measured before") == (4 if change == "weights" else 0)


@pytest.mark.slow
def test_killed_and_begun_again_gives_the_rows_of_an_undisturbed_run(series):
    """Killed twice, after the first checkpoint and after the fourth."""
    assert main(command(series, "whole.jsonl")) == 0
    words = [sys.executable, "-m", "lmdyn", *command(series, "a.jsonl")]
    for wanted in (1, 4):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        partial = series / "a.jsonl.partial"
        while process.poll() is None:
            if partial.exists() and partial.read_bytes().count(b"\n") > wanted:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        assert process.wait() in (0, -signal.SIGKILL)
    assert main(command(series, "a.jsonl")) == 0
    assert (series / "a.jsonl").read_text() == (series / "whole.jsonl").read_text()


def test_a_line_that_was_cut_off_is_dropped(series):
    (series / "step5/model.safetensors").rename(series / "kept")
    assert main(command(series, "a.jsonl")) == 3
    partial = series / "a.jsonl.partial"
    whole = partial.read_bytes()
    partial.write_bytes(whole[:-9])
    (series / "kept").rename(series / "step5/model.safetensors")
    assert main(command(series, "b.jsonl")) == 0
    assert main(command(series, "a.jsonl")) == 0
    assert (series / "a.jsonl").read_text() == (series / "b.jsonl").read_text()
