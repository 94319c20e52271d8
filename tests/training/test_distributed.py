"""Processes that meet, agree to stop, and lose each other."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from lmdyn.errors import InputError
from lmdyn.training import distributed

WORK = """
import os, sys, time
from lmdyn.training import distributed, sharding
# Whole lines: Gloo prints, too.
say = lambda *words: os.write(1, ("\\n" + " ".join(map(str, words)) + "\\n").encode())
address, processes, process, what = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
distributed.initialize(address, processes, process, timeout=60)
import jax, numpy as np
devices = sharding.make_mesh((2, 2 * processes, 1))
batch = np.full([8, 16], 1.0 + sharding.row_share(devices)[0], np.float32)
rows = sharding.put_batch(batch, devices)
add = jax.jit(lambda x: x.sum())
with distributed.guard() as watch:
    for step in range(1, 10**9):
        total = float(add(rows))
        asked = watch.at(step)
        if step == 3:
            say("running", total, sharding.row_share(devices), distributed.any_host(process == 1))
        if step == 5 and what == "error" and process == 0:
            raise ZeroDivisionError("an error of its own")
        if asked:
            say("asked by", asked, "at", step)
            break
        time.sleep(0.02)
"""


def start(what: str, processes: int = 2) -> list[subprocess.Popen]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    env = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    found = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, address, str(processes), str(process), what],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        for process in range(processes)
    ]
    for index, process in enumerate(found):
        line = next((line for line in process.stdout if line.startswith("running")), "")
        if line != f"running 384.0 ({index}, 2) True\n":  # 8 x 16 ones, and as many twos
            for other in found:
                other.kill()
            pytest.fail(line + process.stderr.read()[-2000:])
    return found


def test_sigterm_to_one_host_stops_all_at_the_same_step():
    first, second = start("train")
    second.send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    lines = [re.findall(r"asked by SIGTERM at \d+\n", text) for text in said]
    assert len(lines[0]) == 1
    assert lines[0] == lines[1]


@pytest.mark.parametrize("killed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_host_ends_the_other_with_one_clear_line(killed):
    both = start("train")
    both[killed].kill()
    began, survivor = time.monotonic(), both[1 - killed]
    said = survivor.communicate(timeout=60)[1]
    assert time.monotonic() - began < 3 * distributed.HEARTBEAT  # 13 s alone on two cores
    assert survivor.returncode == distributed.LOST
    last = said.strip().splitlines()[-1]
    wanted = (
        rf"lmdyn: error: host {killed} of 2 was lost at step \d+; start all hosts again with the"
        r" same command: .*"
    )
    assert re.fullmatch(wanted, last), last


def test_an_error_of_one_host_ends_both():
    first, second = start("error")
    said = [
        process.communicate(timeout=60)[1].strip().splitlines()[-1] for process in (first, second)
    ]
    assert said[0] == "ZeroDivisionError: an error of its own"
    assert (first.returncode, second.returncode) == (1, distributed.LOST)
    assert "host 0 of 2 was lost at step" in said[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_process_notes_signals(number):
    before = signal.getsignal(number)
    with distributed.guard() as watch:
        assert watch.at(1) is None
        os.kill(os.getpid(), number)
        assert watch.at(2) == number.name
    assert signal.getsignal(number) is before


def test_a_second_interrupt_ends_at_once():
    def twice():
        with distributed.guard():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        twice()


@pytest.mark.parametrize(
    "given,said",
    [
        (("127.0.0.1:9", None, None), "processes and process not given"),
        (("127.0.0.1:9", 2, None), "process not given"),
        (("127.0.0.1", 2, 0), "coordinator '127.0.0.1' is not a HOST:PORT"),
        (("127.0.0.1:9", 0, 0), "processes=0"),
        (("127.0.0.1:9", 2, -1), "count from 0 to 1"),
        (
            ("127.0.0.1:9", 2, 1),
            "no coordinator answers at 127.0.0.1:9 within 0 s (Connection refused)",
        ),
    ],
)
def test_bad_input(given, said):
    with pytest.raises(InputError, match=re.escape(said)):
        distributed.initialize(*given, timeout=0)
