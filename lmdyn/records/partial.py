"""Rows of a series while it is measured, kept so that a run that was stopped goes on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class PartialRows:
    """The file `OUT.partial`: a line of settings, then a line for each checkpoint that is done.

    A line that was cut off by a kill is dropped, and so is everything under other settings.

    >>> import tempfile
    >>> out = tempfile.mkdtemp() + "/rows.jsonl"
    >>> PartialRows(out, {"length": 8}).add("dir:a", {"rows": [1, 2]})
    >>> PartialRows(out, {"length": 8}).done
    {'dir:a': {'rows': [1, 2]}}
    >>> PartialRows(out, {"length": 9}).done
    {}
    """

    def __init__(self, out: str | os.PathLike, settings: Mapping[str, Any]) -> None:
        """Reads what is there.

        Args:
          out: the file that the rows are for.
          settings: what the rows depend on; JSON can hold it.
        """
        self.path = Path(f"{out}.partial")
        self.done: dict[str, dict[str, Any]] = {}
        """what `add` was given, by name"""
        self._first = json.dumps({"settings": settings}, sort_keys=True) + "\n"
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            lines = []
        self._size = 0
        if lines[:1] == [self._first]:
            for line in lines:
                if not line.endswith("\n"):
                    break
                self.done |= json.loads(line).get("done", {})
                self._size += len(line.encode())

    def add(self, name: str, entry: Mapping[str, Any]) -> None:
        """Keeps what one checkpoint gave; it is on the disk when this returns.

        Args:
          name: of the checkpoint.
          entry: JSON can hold it.

        Raises:
          OSError: the disk is full, or the like; what was kept before stays.
        """
        line = json.dumps({"done": {name: entry}}) + "\n"
        with self.path.open("r+b" if self._size else "wb") as file:
            file.truncate(self._size)
            file.seek(self._size)
            new = line if self._size else self._first + line
            file.write(new.encode())
            file.flush()
            os.fsync(file.fileno())
        self._size += len(new.encode())
        self.done[name] = dict(entry)

    def remove(self) -> None:
        """Deletes the file: the rows are where they belong."""
        self.path.unlink(missing_ok=True)
