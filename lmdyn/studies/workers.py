"""Parts of a study made side by side, in processes that each have cores of their own.

A model of a million parameters cannot keep many cores busy: two processes with one core each do
about 1.4 times the work of one process with two. So what is independent in a study (a seed's run, a
lesson) is a `Task`, and tasks go to processes.
"""

import functools
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import jax

from lmdyn.allocator import keep_memory
from lmdyn.errors import InputError

LEAST_MEMORY = 2 << 30
"""Bytes of the machine's memory that a process needs to be started when others run."""


class Task(NamedTuple):
    """One part of a study.

    Attributes:
      name: of the part; a file name.
      make: a function of a module (not a lambda or a method), so that another process finds it;
        gives the part's rows.
      arguments: what it takes; anything that can be pickled.

    >>> Task("half", divmod, (7, 2)).name
    'half'
    """

    name: str
    make: Callable[..., Iterable[dict]]
    arguments: tuple = ()


def remembered(function: Callable) -> Callable:
    """A function that remembers what it gave last, and gives it again for equal arguments.

    It is for what the tasks of one process share, such as a compiled step or a loaded model.
    Arguments are compared as they are pickled, so that configs that hold dicts will do.

    >>> calls = []
    >>> @remembered
    ... def double(x):
    ...     calls.append(x)
    ...     return [2 * i for i in x]
    >>> double([1]), double([1]), double([2]), calls
    ([2], [2], [4], [[1], [2]])
    """
    known: dict[bytes, Any] = {}

    @functools.wraps(function)
    def wrapped(*arguments):
        key = pickle.dumps(arguments)
        if key not in known:
            known.clear()  # before the new one is made: two models at once may be one too many
            known[key] = function(*arguments)
        return known[key]

    return wrapped


def worker_count(wanted: int, tasks: int) -> int:
    """The number of processes for a study's tasks.

    Args:
      wanted: this many; 0: on a CPU, as many as cores and memory allow; elsewhere one, since an
        accelerator has one user.
      tasks: at most this many.

    >>> worker_count(wanted=8, tasks=3)
    3
    """
    if wanted == 0:
        memory = (
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            if hasattr(os, "sysconf")
            else LEAST_MEMORY
        )
        wanted = (
            min(len(_cores()), max(1, memory // LEAST_MEMORY))
            if jax.default_backend() == "cpu"
            else 1
        )
    return max(1, min(wanted, tasks))


def run_tasks(tasks: Sequence[Task], workers: int = 0) -> Iterator[tuple[Task, list[dict], float]]:
    """Runs tasks, and yields each with its rows and seconds as it finishes, in any order.

    Args:
      tasks: what to run.
      workers: see `worker_count`. With one, or with tasks that cannot be pickled, they run in this
        process, one after another.

    Raises:
      InputError: as a task raised it, or a process was killed. The other tasks are abandoned.

    >>> rows = lambda value: [{"value": value}]
    >>> [
    ...     (task.name, made)
    ...     for task, made, _ in run_tasks([Task("one", rows, (1.5,))], workers=1)
    ... ]
    [('one', [{'value': 1.5}])]
    """
    processes = worker_count(workers, len(tasks))
    if processes == 1 or not _picklable(tasks):
        for task in tasks:
            yield (task, *_made(task))
        return
    context = multiprocessing.get_context(
        "spawn"
    )  # a forked copy of a process with JAX's threads would hang
    cores, number = sorted(_cores()), context.Value("i", 0)
    cut = [
        cores[len(cores) * k // processes : len(cores) * (k + 1) // processes]
        for k in range(processes)
    ]
    shares = (
        cut if all(cut) else [[cores[k % len(cores)]] for k in range(processes)]
    )  # more processes than cores
    known: Any = jax.config  # its fields are made when JAX is imported
    cache = (known.jax_compilation_cache_dir, known.jax_persistent_cache_min_compile_time_secs)
    pool = ProcessPoolExecutor(processes, context, _begin, (number, shares, os.getpid(), *cache))
    others = set(multiprocessing.active_children())
    try:
        futures = {pool.submit(_made, task): task for task in tasks}
        for future in as_completed(futures):
            yield (futures[future], *future.result())
        pool.shutdown()
    except BrokenProcessPool:
        _give_up(pool, others)
        raise InputError(
            f"a process of {processes} was killed, as happens when memory is short; use fewer, such"
            " as workers=1; the same command resumes"
        ) from None
    except BaseException:
        _give_up(pool, others)
        raise


def _made(task: Task) -> tuple[list[dict], float]:
    started = time.time()
    return list(task.make(*task.arguments)), time.time() - started


def _picklable(tasks) -> bool:
    try:
        pickle.dumps(tasks)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _cores() -> set[int]:
    return (
        os.sched_getaffinity(0)
        if hasattr(os, "sched_getaffinity")
        else set(range(os.cpu_count() or 1))
    )


def _begin(number, shares, parent: int, cache: str | None, least: float):
    """What a process does first.

    It takes its cores, before JAX counts them, and watches over its parent.
    """
    with number.get_lock():
        mine = number.value
        number.value += 1
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, shares[mine % len(shares)])
    os.environ["TQDM_DISABLE"] = "1"  # bars of several processes would overwrite one another
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    keep_memory()
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int, every: float = 1.0, patience: float = 30.0):
    """Ends this process when its parent has gone.

    First by SIGTERM, so that a training run saves, then at once.
    """
    while os.getppid() == parent:
        time.sleep(every)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(patience)
    os._exit(1)


def _give_up(pool: ProcessPoolExecutor, others, patience: float = 30.0):
    """Ends the pool's processes: kindly, so that a training run saves, then at once."""
    pool.shutdown(wait=False, cancel_futures=True)
    own = [process for process in multiprocessing.active_children() if process not in others]
    for process in own:
        process.terminate()
    until = time.time() + patience
    for process in own:
        process.join(max(0.0, until - time.time()))
        if process.is_alive():
            process.kill()
