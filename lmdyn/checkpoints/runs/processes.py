"""What several processes of one run do together, and what they leave unsaid."""

import contextlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np

from lmdyn.errors import InputError

Result = TypeVar("Result")


def shared(make: Callable[[], Result]) -> Result:
    """What `make()` gives on the first process, on every process.

    What is raised there is an `InputError` on the others. With one process that is `make()`. With
    several, all of them must call this, in the same order.

    Args:
      make: a function without arguments that returns JSON.

    >>> shared(lambda: [1, 2])
    [1, 2]
    """
    if jax.process_count() == 1:
        return make()
    from jax.experimental import multihost_utils

    text, problem = b"", None
    if jax.process_index() == 0:
        try:
            text = json.dumps({"value": make()}).encode()
        except Exception as err:
            text, problem = json.dumps({"error": str(err)}).encode(), err
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = np.zeros(size, np.uint8)
    buffer[: len(text)] = np.frombuffer(text, np.uint8)
    answer = json.loads(
        np.asarray(multihost_utils.broadcast_one_to_all(buffer)).astype(np.uint8).tobytes()
    )
    if problem is not None:
        raise problem
    if "error" in answer:
        raise InputError(answer["error"])
    return answer["value"]


def failed(problem: bool) -> int | None:
    """The first process that has a problem, or None; all processes must call this.

    >>> failed(True), failed(False)
    (0, None)
    """
    if jax.process_count() == 1:
        return 0 if problem else None
    from jax.experimental import multihost_utils

    found = np.flatnonzero(multihost_utils.process_allgather(np.int32(problem)))
    return int(found[0]) if found.size else None


class _Quiet(logging.Filter):
    """Drops what Orbax logs.

    Each of its failures comes back as an exception, which the caller reports in one line.
    """

    def filter(self, record):
        return f"{os.sep}orbax{os.sep}checkpoint{os.sep}" not in record.pathname


class _Unasked(logging.Filter):
    """Drops what asyncio says of Orbax's writes that failed after the first one had.

    Nobody asks them for their exception. They speak when they are collected, which may be as late
    as the end of the process, so this stays for good.
    """

    def filter(self, record):
        if "exception was never retrieved" not in record.getMessage():
            return True
        return not any(
            mark in str(record.exc_info and record.exc_info[1])
            for mark in ("OCDBT", "Event loop is closed")
        )


_UNASKED = _Unasked()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """While the block runs, Orbax says nothing of its own.

    When one of its writes fails (on a full disk), the others fail after it has stopped listening,
    and each of them prints a traceback about a closed event loop; those are dropped too. So is the
    warning about the writes that were made and never begun, which Python gives when it collects
    them: as late as the end of the process, so that filter stays for good.

    >>> with quiet():
    ...     pass
    """
    log, silence, before = logging.getLogger("absl"), _Quiet(), sys.unraisablehook

    def hook(problem):
        if not (
            problem.exc_type is RuntimeError and str(problem.exc_value) == "Event loop is closed"
        ):
            before(problem)

    log.addFilter(silence)
    logging.getLogger("asyncio").addFilter(_UNASKED)  # once, however often it is added
    warnings.filterwarnings(
        "ignore", "coroutine 'async_serialize.*' was never awaited", RuntimeWarning
    )
    sys.unraisablehook = hook
    try:
        yield
    finally:
        log.removeFilter(silence)
        if sys.unraisablehook is hook:
            sys.unraisablehook = before
