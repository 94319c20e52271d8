"""Several processes, one run.

How they find each other, agree to stop, and end when one of them is lost.

Processes (one a machine, or one a GPU) meet at a coordinator, which is process 0. They then run the
same program in step, so that one that dies leaves the others waiting inside a sum that never ends.
JAX watches for this by heartbeats, and ends the survivors by aborting them in the middle of a C++
stack trace. `initialize` makes the last line of that a message that says which host was lost, and
at which step, and `guard` does the rest. Measured with two processes on one machine: about 12
seconds after a host was killed, at once if it was the coordinator.

All of this is harmless with one process.
"""

import atexit
import contextlib
import ctypes
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np

from lmdyn.errors import InputError

LOST = 75
"""Exit code when another host was lost: "temporary failure, try again", which is what to do."""
HEARTBEAT = 15
"""Seconds without a sign of life after which a host counts as lost."""

_BEATS = "lmdyn/beats/"
_kept: list = []  # what must outlive the interpreter


class _Peers:
    """What is known of the other hosts; read when this process is about to be aborted."""

    def __init__(self):
        self.meeting = ""
        """What is wrong if it ends now, while the processes have not met yet."""
        self.coordinator = ""
        self.leaving = False
        self.step: int | None = None
        self.process, self.processes = 0, 1
        self.seen: dict[int, tuple[str, float]] = {}
        """Of every other host: its last beat, and when that was new."""

    def beat(self, client, count: int) -> None:
        """Gives a sign of life, and notes those of the others."""
        client.key_value_set(f"{_BEATS}{self.process}", str(count), allow_overwrite=True)
        for key, value in client.key_value_dir_get(_BEATS):
            host = int(key.rsplit("/", 1)[1])
            if host != self.process and self.seen.get(host, ("",))[0] != value:
                self.seen[host] = (value, time.monotonic())

    def lost(self) -> list[int]:
        """The hosts that have been silent for long, or the coordinator if it cannot be reached."""
        now = time.monotonic()
        silent = sorted(host for host, (_, when) in self.seen.items() if now - when > HEARTBEAT / 3)
        if 0 in silent or (self.process and not silent and _unreachable(self.coordinator, 2)):
            return [0]  # without it there is no news of the others
        return silent

    def message(self) -> str:
        if self.meeting:
            return self.meeting
        when = "before the first step" if self.step is None else f"at step {self.step}"
        if not (hosts := self.lost()):
            return (
                f"this process was aborted {when}, with all other hosts alive; the lines above"
                " say why"
            )
        who = f"host {' and '.join(map(str, hosts))} of {self.processes} was lost {when}"
        return (
            f"{who}; start all hosts again with the same command: the run resumes from its last"
            " checkpoint"
        )


_peers = _Peers()


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    timeout: int = 120,
) -> None:
    """Joins the other processes of a run. To be called before anything else of JAX.

    Args:
      coordinator: `HOST:PORT` of process 0, reachable from all. With nothing given, TPU pods, Slurm
        and Open MPI tell.
      processes: how many there are.
      process: which one this is, from 0.
      timeout: seconds to wait for the others.

    Raises:
      InputError: only some of the three are given, or one is out of range; no cluster has them;
        the coordinator does not answer; its port is taken.

    >>> initialize("10.0.0.1:8476", processes=2, process=2)
    Traceback (most recent call last):
    lmdyn.errors.InputError: process=2 is none of 2 processes; count from 0 to 1
    """
    _check_given(coordinator, processes, process)
    if coordinator is not None and process:
        _reach(coordinator, timeout)
    _peers.processes, _peers.process = processes or 1, process or 0
    others = "all other processes" if process is None else f"all {processes} processes"
    _peers.meeting = (
        f"{others} did not meet at {coordinator or 'the coordinator'} within {timeout} s; start"
        " them all, with the same coordinator and processes, and try again"
    )
    _speak_before_abort()
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except ValueError as err:
        if coordinator is None:
            raise InputError(
                "no TPU pod, Slurm or Open MPI job is around this process; give coordinator,"
                " processes and process"
            ) from err
        raise
    except RuntimeError as err:
        if "RPC server" in str(err):
            raise InputError(
                f"the port of {coordinator} cannot be opened on this host; choose another, or end"
                " what uses it"
            ) from err
        if isinstance(err, jax.errors.JaxRuntimeError):
            raise InputError(f"{_peers.meeting} ({_brief(err)})") from err
        raise
    _peers.processes, _peers.process, _peers.meeting = jax.process_count(), jax.process_index(), ""
    _peers.coordinator = _state().coordinator_address or ""
    _start_beating()


def _check_given(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """All three or none, and each within its range."""
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise InputError(
            f"{' and '.join(missing)} not given; give coordinator, processes and process, or none"
            " of them on a TPU pod, Slurm or Open MPI"
        )
    if coordinator is not None and processes is not None and process is not None:
        if not re.fullmatch(r".+:\d{1,5}", coordinator):
            raise InputError(
                f"coordinator '{coordinator}' is not a HOST:PORT; write for example 10.0.0.1:8476"
            )
        if processes < 1:
            raise InputError(f"processes={processes}; a run needs processes>=1")
        if not 0 <= process < processes:
            raise InputError(
                f"process={process} is none of {processes} processes; count from 0 to"
                f" {processes - 1}"
            )


def is_primary() -> bool:
    """Whether this process is the one that writes logs and reports.

    >>> is_primary()
    True
    """
    return jax.process_index() == 0


def any_host(flag: bool) -> bool:
    """Whether `flag` holds on any host.

    All hosts must call it, at the same point; it costs one small exchange.

    >>> any_host(False)
    False
    """
    if jax.process_count() == 1:
        return bool(flag)
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.array(bool(flag)))))


class Guard:
    """Where the run is, and whether it has been asked to stop. Made by `guard`."""

    def __init__(self) -> None:
        self.asked: str | None = None
        """The signal that this process got."""

    def at(self, step: int) -> str | None:
        """To be called by every host after every step, with the same numbers.

        Returns:
          None; or the name of the signal that asks the run to stop, when this is the step at which
          all hosts save and stop. It is enough that one of them got it.
        """
        _peers.step = step
        if jax.process_count() == 1:
            return self.asked
        from jax.experimental import multihost_utils

        # Costs no exchange between devices: the hosts agree on a step in the background once one of
        # them is asked.
        return (
            (self.asked or "SIGTERM")
            if multihost_utils.reached_preemption_sync_point(step)
            else None
        )

    def _note(self, number, frame):
        if number == signal.SIGINT and self.asked == "SIGINT":
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX's own handler tells the other hosts


@contextlib.contextmanager
def guard() -> Iterator[Guard]:
    """Around a run: SIGTERM and SIGINT ask it to stop, and a lost host ends it with one clear line.

    A second SIGINT ends this process at once. Another host's death ends it with exit code `LOST`
    and a message on standard error. An error of its own passes through, and its exit then no longer
    waits for the other hosts.

    >>> with guard() as running:
    ...     print(running.at(1))
    None
    """
    found = Guard()
    with _handling_signals(found):
        if jax.process_count() == 1:
            yield found
            return
        try:
            yield found
        except jax.errors.JaxRuntimeError as err:
            if "RESOURCE_EXHAUSTED" not in str(err):
                # A broken connection does not say who was lost. The heartbeats will: JAX then
                # aborts this process.
                time.sleep(2 * HEARTBEAT)
            _leave()
            raise
        except BaseException:
            _leave()
            raise


@contextlib.contextmanager
def _handling_signals(found: Guard):
    # Signals belong to the main thread; whoever runs us in another one handles them. With several
    # processes, SIGTERM belongs to JAX.
    numbers = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else (signal.SIGINT,)
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    before = {number: signal.signal(number, found._note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _state():
    from jax._src import distributed

    return distributed.global_state


def _start_beating() -> None:
    """Signs of life, once a second until this process ends."""
    client, done, now = _state().client, threading.Event(), time.monotonic()
    _peers.seen = {host: ("", now) for host in range(_peers.processes) if host != _peers.process}

    def beat():
        count = 0
        # when the coordinator is gone, JAX ends this process by itself
        with contextlib.suppress(Exception):
            while not done.wait(1.0):
                count += 1
                _peers.beat(client, count)

    thread = threading.Thread(target=beat, daemon=True, name="lmdyn-beat")
    thread.start()

    def stop():
        done.set()
        thread.join(2)

    atexit.register(stop)


def _leave() -> None:
    """Lets this process end on its own after an error.

    JAX would wait for the other hosts first.

    If all of them have met the same error, they leave together; nobody is told of a lost host then.
    """
    state = _state()
    if state.client is None:
        return
    with contextlib.suppress(Exception):
        state.client.wait_at_barrier("lmdyn/leave", 3000)
    _peers.leaving = True
    for name in ("preemption_sync_manager", "client", "service"):
        held = getattr(state, name)
        if held is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))  # its destructor would wait as well
            setattr(state, name, None)


def _speak_before_abort() -> None:
    """Makes an abort by JAX end in our message and exit code.

    JAX offers no way to be asked first. A handler of Python's `signal` would not run, because
    `abort` does not return to the interpreter; one that C calls directly does.
    """

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def speak(_):
        # of an error of our own, which is about to be printed: this thread waits, the main one ends
        if _peers.leaving:
            time.sleep(60)
        os.write(2, f"\nlmdyn: error: {_peers.message()}\n".encode())
        os._exit(LOST)

    _kept.append(speak)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(speak, ctypes.c_void_p))


def _unreachable(address: str, timeout: float) -> str:
    """Why nobody takes a connection at `HOST:PORT`; empty if somebody does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
    except (OSError, OverflowError, ValueError) as err:
        return getattr(err, "strerror", None) or str(err) or type(err).__name__
    return ""


def _reach(coordinator: str, timeout: int) -> None:
    """Waits until the coordinator answers: JAX would abort where this says what is wrong."""
    until = time.monotonic() + timeout
    while why := _unreachable(coordinator, 5):
        if time.monotonic() > until:
            raise InputError(
                f"no coordinator answers at {coordinator} within {timeout} s ({why}); start process"
                " 0 there, and check the address and the firewall"
            )
        time.sleep(0.3)


def _brief(err: Exception) -> str:
    return " ".join(str(err).split())[:160]
