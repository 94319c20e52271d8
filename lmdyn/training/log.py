"""What a run writes and shows on the way.

A JSON Lines log, measurements as rows, TensorBoard event files, and a progress bar.

Files grow by whole lines. A run that resumes first removes what was written after the checkpoint it
resumes from, so that a run that was stopped and one that was not leave the same files, except for
times.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from lmdyn.files import atomic_write
from lmdyn.types import PathLike

LOG, ROWS_FILE = "log.jsonl", "rows.jsonl"


class Log:
    r"""The files and the bar of a run; a context manager.

    Args:
      folder: of the run.
      step: where it resumes; lines of later steps are removed.
      steps: of the whole run.
      progress: show a bar.
      active: False on all hosts but the first: nothing is written or shown.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with Log(folder, 0, 2) as log:
    ...     log.line({"step": 1, "loss": 3.5})
    ...     log.line({"step": 2, "loss": 3.0})
    >>> with Log(folder, 1, 2) as log:
    ...     pass
    >>> (Path(folder) / LOG).read_text()
    '{"step": 1, "loss": 3.5}\n'
    """

    def __init__(
        self, folder: PathLike, step: int, steps: int, progress: bool = False, active: bool = True
    ) -> None:
        self.folder, self.active = Path(folder), active
        self._bar: Any = None
        self._board: Any = None
        if not active:
            return
        for name in (LOG, ROWS_FILE):
            cut_back(self.folder / name, step)
        self._files = {
            name: (self.folder / name).open("a", encoding="utf-8") for name in (LOG, ROWS_FILE)
        }
        import tensorboardX

        self._board = tensorboardX.SummaryWriter(
            str(self.folder / "tensorboard"), purge_step=step + 1
        )
        if progress:
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=steps, initial=step, desc="training", unit="step", dynamic_ncols=True
            )

    def line(self, values: Mapping[str, float]) -> None:
        """One line of the log; all but `step` also to TensorBoard, under `train/`."""
        if self.active:
            self._write(LOG, [values])
            for name, value in values.items():
                if name != "step" and value is not None:
                    self._board.add_scalar(f"train/{name}", value, values["step"])

    def rows(self, rows: list[dict]) -> None:
        """Measurements as tidy rows; whole-model values also to TensorBoard, under `held_out/`."""
        if self.active:
            self._write(ROWS_FILE, rows)
            for row in rows:
                if row["layer"] is None:
                    name = "/".join(filter(None, ("held_out", row["metric"], row["site"])))
                    self._board.add_scalar(name, row["value"], row["step"])
            self._board.flush()

    def shown(self, step: int, text: str) -> None:
        """Moves the bar on."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)

    def _write(self, name, rows):
        self._files[name].write("".join(json.dumps(row) + "\n" for row in rows))
        self._files[name].flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.active:
            for file in self._files.values():
                file.close()
            self._board.close()
        if self._bar is not None:
            self._bar.close()


def cut_back(path: PathLike, step: int) -> None:
    r"""Removes lines of steps after `step`, and a last line that was not finished.

    A file that is not there stays so.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "log.jsonl"
    >>> _ = path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    >>> cut_back(path, 2)
    >>> path.read_text()
    '{"step": 1}\n{"step": 2}\n'
    """
    path = Path(path)
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            if line.endswith(b"\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    atomic_write(path, b"".join(kept))
