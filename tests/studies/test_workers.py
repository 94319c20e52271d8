"""Parts made side by side: the same rows, one process a core, and what happens when one fails, is
killed or is interrupted.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from lmdyn import records
from lmdyn.errors import InputError
from lmdyn.studies.folder import Folder
from lmdyn.studies.workers import Task, remembered, run_tasks, worker_count


def square(x):
    return [
        records.row(
            "square",
            float(x * x),
            "",
            model="m",
            process=os.getpid(),
            cores=sorted(os.sched_getaffinity(0)),
        )
    ]


def refuse(x):
    if x == 3:
        raise InputError("x=3; it must be less")
    time.sleep(60)
    return []


def die(x):
    os.kill(os.getpid(), signal.SIGKILL)


def test_tasks_run_in_processes_of_their_own_and_keep_their_order(tmp_path):
    said = []
    folder = Folder(tmp_path / "out", "a", {}, say=said.append)
    rows = folder.parts([Task(f"x{x}", square, (x,)) for x in range(5)], workers=2)
    assert [r["value"] for r in rows] == [0, 1, 4, 9, 16] and [r["part"] for r in rows] == [
        "x0",
        "x1",
        "x2",
        "x3",
        "x4",
    ]
    assert os.getpid() not in {r["process"] for r in rows}
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        half = len(cores) // 2
        assert {tuple(r["cores"]) for r in rows} <= {tuple(cores[:half]), tuple(cores[half:])}
    assert sorted(line.split(":")[0] for line in said) == [f"x{x}" for x in range(5)]


def test_finished_parts_are_read_and_not_made_again(tmp_path):
    folder = Folder(tmp_path / "out", "a", {}, say=lambda text: None)
    first = folder.parts([Task("x0", square, (0,)), Task("x2", square, (2,))], workers=1)
    again = folder.parts(
        [Task("x0", die, (0,)), Task("x1", square, (1,)), Task("x2", die, (2,))], workers=1
    )
    assert [again[0], again[2]] == first and again[1]["value"] == 1


def test_more_processes_than_cores():
    many = len(os.sched_getaffinity(0)) + 1
    found = list(run_tasks([Task(str(x), square, (x,)) for x in range(many)], workers=many))
    assert sorted(rows[0]["value"] for _, rows, _ in found) == [x * x for x in range(many)]


def test_what_cannot_be_sent_to_a_process_is_made_here(tmp_path):
    found = [
        rows[0]["process"]
        for _, rows, _ in run_tasks([Task(str(x), lambda: square(2)) for x in range(2)], workers=2)
    ]
    assert found == [os.getpid()] * 2


def test_a_refusal_ends_the_others_at_once():
    started = time.time()
    with pytest.raises(InputError, match="x=3; it must be less"):
        list(run_tasks([Task(str(x), refuse, (x,)) for x in (1, 3, 4, 5)], workers=2))
    assert time.time() - started < 18


def test_a_killed_process_is_one_line():
    with pytest.raises(
        InputError, match="a process of 2 was killed, as happens when memory is short; use fewer"
    ):
        list(run_tasks([Task(str(x), die, (x,)) for x in range(2)], workers=2))


def test_how_many():
    assert (
        worker_count(3, 2) == 2
        and worker_count(3, 9) == 3
        and worker_count(0, 1) == 1
        and worker_count(5, 0) == 1
    )
    assert 1 <= worker_count(0, 1000) <= len(os.sched_getaffinity(0))


def test_equal_arguments_are_remembered_and_others_forgotten():
    calls = []
    kept = remembered(lambda *x: calls.append(x) or len(calls))
    assert [kept({"a": [1]}, 2), kept({"a": [1]}, 2), kept({"a": [3]}, 2), kept({"a": [1]}, 2)] == [
        1,
        1,
        2,
        3,
    ]


SCRIPT = """
import faulthandler, signal, sys, time
faulthandler.register(signal.SIGUSR1)
# whatever started the tests in the background has Ctrl-C ignored by all below it
signal.signal(signal.SIGINT, signal.default_int_handler)
from lmdyn.studies.workers import Task, run_tasks
from tests.studies.test_workers import refuse
if __name__ == "__main__":
    try:
        for task, *_ in run_tasks([Task(str(x), refuse, (x,)) for x in (1, 2)], workers=2):
            pass
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_its_parent(tmp_path, how):
    (tmp_path / "script.py").write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, sys.path)])}
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "stderr").open("w"),
        text=True,
    )
    children = []
    until = time.time() + 90
    while (
        time.time() < until and len(children) < 2
    ):  # those that have begun (they ignore Ctrl-C from then on); not the resource tracker
        time.sleep(0.2)
        children = [
            p for p in _children(parent.pid) if "spawn_main" in _words(p) and _ignores_interrupts(p)
        ]
    assert len(children) == 2
    time.sleep(1)
    said = None
    for _ in range(
        5
    ):  # a Ctrl-C that falls into a callback of the garbage collector is lost: one presses it again
        parent.send_signal(how)
        try:
            said, _ = parent.communicate(timeout=8)
            break
        except subprocess.TimeoutExpired:
            pass
    if said is None:  # where does it stand?
        parent.send_signal(signal.SIGUSR1)
        time.sleep(2)
        parent.kill()
        pytest.fail(
            f"the parent went on after five times Ctrl-C: {(tmp_path / 'stderr').read_text()}"
        )
    assert ("interrupted" in said) == (how == signal.SIGINT)
    until = time.time() + 20
    while time.time() < until and any("spawn_main" in _words(p) for p in children):
        time.sleep(0.2)
    assert not [p for p in children if "spawn_main" in _words(p)]


def _ignores_interrupts(pid) -> bool:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as f:
            ignored = next(int(line.split()[1], 16) for line in f if line.startswith("SigIgn:"))
    except (OSError, StopIteration):
        return False
    return bool(ignored >> (signal.SIGINT - 1) & 1)


def _children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(p) for p in file.read().split()]
    except FileNotFoundError:
        return []


def _words(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""
