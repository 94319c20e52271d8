"""Processes that are killed, or asked to stop, at any moment: nothing is lost but time."""

import os
import pathlib
import random
import shutil
import signal
import time

import pytest

from lmdyn.checkpoints import runs
from tests.training import cases

KILLS = int(os.environ.get("LMDYN_TEST_KILLS", "4"))
"""How often the run is killed; each costs a start of the process."""
STEPS = 120
LONG = dict(
    steps=STEPS,
    checkpoints__save=3,
    checkpoints__powers_of_two=False,
    evaluation__every=30,
    log_every=20,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    cases.write_texts(folder)
    process = cases.start(cases.write_config(folder, **LONG))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    (folder / "run").rename(folder / "undisturbed")
    return folder


def until(condition, process, seconds=120):
    """Waits until something holds, or the process has ended."""
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def last_step(folder):
    try:
        return max(runs.steps(folder), default=-1)
    except ValueError:  # not there yet
        return -1


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_the_same(folder):
    path, out = cases.write_config(folder, **LONG), folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    moments = random.Random(7)
    saving, killed, during = out / "checkpoints" / ".saving", 0, 0
    while killed < KILLS:
        process = cases.start(path)
        reached, kind = last_step(out), moments.random()
        share = (STEPS - max(reached, 0)) / (KILLS - killed + 1)
        target = reached + int(moments.uniform(0, 1.5) * share)
        if kind < 0.2:  # anywhere, also before the first step
            end = time.monotonic() + moments.uniform(0, 6)
            until(lambda end=end: time.monotonic() > end, process)
        else:
            until(lambda target=target: last_step(out) >= min(target, STEPS - 9), process)
            if kind < 0.7:  # in the middle of a save
                until(lambda: saving.is_dir() and any(saving.rglob("*")), process)
                time.sleep(moments.uniform(0, 0.03))
            else:
                time.sleep(moments.uniform(0, 0.2))
        ended = process.poll() is not None
        process.kill()
        process.communicate()
        if ended:
            break
        killed += 1
        during += saving.is_dir() and any(saving.iterdir())
    process = cases.start(path)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "warning" not in said  # never a half-written checkpoint
    assert killed >= min(KILLS, 3)
    print(f"{killed} kills, {during} of them during a save")
    cases.same_runs(folder / "undisturbed", out)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_and_ends_within_seconds(folder, number, code):
    path, out = cases.write_config(folder, **LONG), folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    process = cases.start(path)
    until(lambda: last_step(out) >= 30, process)
    process.send_signal(number)
    asked = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert (
        time.monotonic() - asked < 30
    )  # two seconds alone on two cores; tests may share them with others
    step = last_step(out)
    assert 30 <= step < STEPS
    assert f"stopped by {number.name} at step {step} of {STEPS}" in said
    assert "Traceback" not in said
    process = cases.start(path)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert f"resuming at step {step} of {STEPS}" in said
    cases.same_runs(folder / "undisturbed", out)


def test_a_full_disk_keeps_what_was_saved(folder):
    """A limit on file size stands for the full disk: the system refuses to write on."""
    import resource

    path, out = cases.write_config(folder, **LONG), folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    process = cases.start(path)
    until(lambda: last_step(out) >= 12, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    before = last_step(out)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    process = cases.start(path, preexec_fn=limit)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("lmdyn: error: ") and "could not be written" in last, said
    assert "Traceback" not in said
    assert last_step(out) == before
    process = cases.start(path)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    cases.same_runs(folder / "undisturbed", out)


def test_two_processes_do_not_write_to_one_run(folder):
    path, out = cases.write_config(folder, **LONG | {"steps": 100000}), folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    first = cases.start(path)
    until(lambda: last_step(out) >= 3, first)
    second = cases.start(path)
    _, said = second.communicate(timeout=120)
    assert second.returncode == 2
    assert "another process is writing to this run" in said
    first.kill()
    first.communicate()
    assert pathlib.Path(out).is_dir()
