"""The writing side of a run."""

import contextlib
import functools
import inspect
import json
import os
import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from lmdyn.checkpoints.runs import arrays, manifest, restoring, run_folder
from lmdyn.checkpoints.runs.processes import failed, quiet, shared
from lmdyn.checkpoints.runs.retention import Retention
from lmdyn.errors import InputError
from lmdyn.types import PathLike, Say

SAVING, DELETED, DAMAGED = ".saving", ".deleted", ".damaged"


class Checkpoints:
    """Writes the checkpoints of a run, in the background, and deletes those that need not be kept.

    A context manager; one at a time for a run. What a killed process left unfinished is removed at
    the start.

    Args:
      path: the folder of a run (see `create`).
      retention: which checkpoints are kept.
      asynchronous: `save` returns while the files are being written; else once they are.

    Raises:
      InputError: no run, or another process is writing to it.

    >>> import tempfile
    >>> import jax.numpy as jnp
    >>> from lmdyn.checkpoints import runs
    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> from lmdyn.models import ModelConfig
    >>> path = tempfile.mkdtemp()
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> runs.create(path, model=tiny, tokenizer=byte_tokenizer(), config={}, data={})
    >>> with Checkpoints(path, Retention()) as checkpoints:
    ...     checkpoints.save(3, {"params": {"w": jnp.arange(3.0)}}, {"tokens": 96})
    >>> items, position = runs.restore(path, 3, {"params": {"w": jnp.zeros(3)}})
    >>> runs.steps(path), items["params"]["w"].tolist(), position
    ([3], [0.0, 1.0, 2.0], {'tokens': 96})
    """

    def __init__(self, path: PathLike, retention: Retention, asynchronous: bool = True) -> None:
        self.path = Path(path).absolute()
        self.retention = retention
        self.asynchronous = asynchronous
        self._parent = self.path / "checkpoints"
        self._thread: threading.Thread | None = None
        self._together = True
        self._problem: BaseException | None = None
        self._step = -1
        self._written: set[int] = set()
        self._before = set(shared(functools.partial(run_folder.steps, self.path)))
        self._stack = contextlib.ExitStack()
        shared(self._start)
        self._stack.enter_context(quiet())

    def _start(self):
        try:
            self._stack.enter_context(_lock(self.path))
            self._parent.mkdir(exist_ok=True)
        except OSError as err:
            self._stack.close()
            raise InputError(
                f"{self._parent} cannot be written: {err.strerror}; choose another folder"
            ) from err
        for name in (SAVING, DELETED):
            shutil.rmtree(self._parent / name, ignore_errors=True)

    def save(self, step: int, items: Mapping[str, Any], position: Any) -> None:
        """Writes a checkpoint, in the background.

        Waits for the one before, then returns as soon as the arrays may be changed or donated. A
        whole checkpoint of that step is left as it is; a damaged one is replaced.

        Args:
          step: 0 or more.
          items: `params`, the whole tree; `optimizer`; and any other pytrees of arrays. Their bits
            come back as they are.
          position: JSON: everything else that is needed to resume, such as the position in the
            data.

        Raises:
          InputError: this checkpoint, or the one before it, could not be written. All others are
            whole.
        """
        self.wait()
        text = json.loads(
            json.dumps(position)
        )  # a copy; and what is not JSON fails here, not in the background
        if step < 0 or "params" not in items:
            raise ValueError(
                f"a checkpoint needs step>=0 and an item 'params', not step={step} and"
                f" {sorted(items)}"
            )
        if step in self._written or (step in self._before and not self._replace(step)):
            return
        named = {item: arrays.named(tree) for item, tree in items.items()}
        content = {
            "step": step,
            "position": text,
            "arrays": {item: arrays.describe(leaves) for item, leaves in named.items()},
        }
        self._step = step
        try:
            writer = _write(
                self._parent / SAVING / str(step), {k: arrays.stored(v) for k, v in named.items()}
            )
        except Exception as err:
            self._sweep()
            raise self._failure(err) from err
        self._thread = threading.Thread(
            target=self._finish, args=(writer, content), name=f"checkpoint {step}"
        )
        self._thread.start()
        if not self.asynchronous:
            self.wait()

    def wait(self) -> None:
        """Blocks until the last save is whole on the disk.

        Raises:
          InputError: it could not be written, for example because the disk is full. The checkpoints
            before it are whole.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        problem, self._problem = self._problem, None
        # Where Orbax failed on one process, it keeps the others waiting for it: they cannot be
        # told, and end with it.
        process = failed(problem is not None) if self._together else None
        if problem is not None:
            raise self._failure(problem) from problem
        if process is not None:
            raise InputError(
                f"{self.path}: checkpoint {self._step} was not written: process {process} failed"
            )
        self._written.add(self._step)

    def resume(self, like: Mapping[str, Any], warn: Say) -> tuple[int, dict, Any] | None:
        """As `restore_latest`; damaged checkpoints after the one restored move to `.damaged`."""
        found = restoring.restore_latest(self.path, like, warn)
        if found is not None:
            shared(functools.partial(self._set_aside, found[0]))
            self._before = {step for step in self._before if step <= found[0]}
        return found

    def close(self) -> None:
        """Waits, and lets another process write to this run.

        Raises:
          InputError: as `wait`.
        """
        try:
            self.wait()
        finally:
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if problem is None:
            self.close()
            return
        # The other processes may be elsewhere, so that nothing can be agreed on; and the block's
        # error is the one to tell.
        if self._thread is not None:
            self._thread.join()
        self._stack.close()

    def _finish(self, writer, content: dict):
        """Waits for Orbax, writes checksums, names the checkpoint, deletes old ones."""
        self._together = False
        try:
            with contextlib.closing(writer):
                writer.wait_until_finished()
            self._together = True
            if jax.process_index() == 0:
                step = content["step"]
                unnamed = self._parent / SAVING / str(step)
                manifest.seal(unnamed, content)
                os.rename(unnamed, self._parent / str(step))
                manifest.sync(self._parent)
                self._prune(step)
        except BaseException as err:
            self._problem = err
            self._sweep()

    def _prune(self, newest: int):
        # Steps after the newest are from before a restart, and damaged: they do not count among the
        # last.
        there = [step for step in run_folder.steps(self.path) if step <= newest]
        for step in set(there) - set(self.retention.kept(there)):
            self._delete(step)

    def _delete(self, step: int):
        """Takes the name away first, so that a checkpoint is never seen half deleted."""
        target = self._parent / DELETED / str(step)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        os.rename(self._parent / str(step), target)
        shutil.rmtree(target, ignore_errors=True)

    def _replace(self, step: int) -> bool:
        """Deletes a damaged checkpoint of an earlier process; False where it is whole."""

        def look():
            try:
                manifest.check(self._parent / str(step))
            except manifest.DamagedError:
                self._delete(step)
                return True
            return False

        self._before.discard(step)
        damaged = shared(look)
        if not damaged:
            self._written.add(step)
        return damaged

    def _set_aside(self, newest: int):
        for step in run_folder.steps(self.path):
            if step > newest:
                target = self._parent / DAMAGED / str(step)
                shutil.rmtree(target, ignore_errors=True)
                target.parent.mkdir(exist_ok=True)
                os.rename(self._parent / str(step), target)

    def _sweep(self):
        """After a failure: gives the space back."""
        if jax.process_index() == 0:
            shutil.rmtree(self._parent / SAVING, ignore_errors=True)

    def _failure(self, err: BaseException) -> InputError:
        return InputError(
            f"{self.path}: checkpoint {self._step} could not be written: {_reason(err)}; "
            "those before it are whole; free some space, or fix the cause, and start again"
        )


def _write(target: Path, items: dict[str, dict]):
    """Starts to write; what it returns has `wait_until_finished` and `close`."""
    import orbax.checkpoint as ocp

    handler: Any = ocp.PyTreeCheckpointHandler
    # Random weights do not compress (by 7%), but trying takes half the time. Older versions always
    # try.
    options = (
        {"use_compression": False}
        if "use_compression" in inspect.signature(handler).parameters
        else {}
    )
    trees = {
        item: arrays.nested({p: arrays.local(v) for p, v in leaves.items()})
        for item, leaves in items.items()
    }
    trees = {item: tree for item, tree in trees.items() if tree}
    writer = ocp.AsyncCheckpointer(
        ocp.CompositeCheckpointHandler(**{item: handler(**options) for item in trees})
    )
    writer.save(
        target, args=ocp.args.Composite(**{k: ocp.args.PyTreeSave(v) for k, v in trees.items()})
    )
    return writer


def _reason(err: BaseException) -> str:
    """One line: what the operating system says, where that is the cause."""
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    text = " ".join(str(err).split()) or type(err).__name__
    code = re.search(r"os_error_code='(\d+)'|\[OS error (\d+)", text)
    return os.strerror(int(code[1] or code[2])) if code else text[:300]


@contextlib.contextmanager
def _lock(path: Path):
    """Keeps a second process from writing to the same run; it ends with the process.

    A POSIX record lock: children do not inherit it, so that a data worker which outlives a killed
    process holds nothing.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    with (path / ".lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as err:
            raise InputError(
                f"{path}: another process is writing to this run; stop it, or choose another folder"
            ) from err
        except OSError:
            pass  # this file system has no locks
        yield
