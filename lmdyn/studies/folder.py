"""The folder of a study.

Parts are kept as they are finished, so that a study that was stopped can be resumed; then rows and
claims.

DIR/study.json            which study, and its config
DIR/parts/NAME.jsonl      the rows of a finished part
DIR/rows.jsonl            all rows, with rows.jsonl.meta.json
DIR/claims.json           what they say
DIR/figures, report.html  made from those
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lmdyn import records, report
from lmdyn.errors import InputError
from lmdyn.files import atomic_write, check_writable
from lmdyn.records import provenance
from lmdyn.records.rows import dumps
from lmdyn.studies.claims import Claim
from lmdyn.studies.config import StudyConfig
from lmdyn.studies.registry import package_of
from lmdyn.studies.workers import Task, run_tasks
from lmdyn.training.config import differences, to_json
from lmdyn.types import PathLike, Say


def open_folder(
    config: StudyConfig, command: list[str] | None = None, say: Say | None = None
) -> "Folder":
    """Opens the folder of a study's config.

    Args:
      config: of the study; its class tells the study's package.
      command: the words of the command line, for the record.
      say: called with lines for the user.

    Raises:
      InputError: the folder holds another study, or this one with another config.

    >>> import tempfile
    >>> from lmdyn import studies
    >>> config = studies.FactLearning(
    ...     out=tempfile.mkdtemp() + "/facts",
    ...     model="dir:model",
    ...     injection=studies.FactInjection("facts.jsonl"),
    ...     continual=studies.ContinualTraining("builtin:code:train"),
    ... )
    >>> open_folder(config).study
    'lmdyn.studies.fact_learning'
    """
    return Folder(config.out, package_of(config).__name__, to_json(config), command, say)


class Folder:
    """The folder of a study, and how far the study has come. Made by `open_folder`.

    Args:
      path: the folder; created if missing.
      study: the dotted name of the study's package.
      config: its config as JSON holds it.
      command: the words of the command line, for the record.
      say: called with lines for the user.

    Raises:
      InputError: the folder holds another study, or this one with another config.
    """

    def __init__(
        self,
        path: PathLike,
        study: str,
        config: dict,
        command: list[str] | None = None,
        say: Say | None = None,
    ) -> None:
        self.path, self.study, self.config, self.command = Path(path), study, config, command or []
        self.say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        self.started, self.tokens = time.time(), 0
        record = self.path / "study.json"
        check_writable(record)
        begun = (self.path / "parts").exists() or (self.path / "runs").exists()
        if record.exists() and begun:
            known = json.loads(record.read_text(encoding="utf-8"))
            if known["study"] != self.title:
                raise InputError(
                    f"{path} holds a study of {known['study']}, not of {self.title}; choose another"
                    " --out"
                )
            changed = [
                line
                for line in differences(known["config"], config)
                if line.partition(":")[0] not in provenance.STUDY_FREE
            ]
            if changed:
                raise InputError(
                    f"{path} holds this study with another config: {changed[0]}; choose another"
                    " --out"
                )
        elif self.path.exists() and any(p != record for p in self.path.iterdir()):
            raise InputError(f"{path} is not empty and holds no study; choose another --out")
        else:
            known = {**self._names(), "config": config}
            atomic_write(record, json.dumps(known, indent=1) + "\n")

    @property
    def title(self) -> str:
        """The study's name in words."""
        return self.study.rpartition(".")[2].replace("_", " ")

    def _names(self) -> dict[str, str]:
        return {"study": self.title, "package": self.study}

    def part(self, name: str, make: Callable[[], Iterable[dict]]) -> list[dict]:
        """The rows of a part: read if it was finished before, else made and kept.

        Args:
          name: of the part; a file name.
          make: gives its rows (`lmdyn.records.row`).
        """
        return self.parts([Task(name, make)], workers=1)

    def parts(self, tasks: Sequence[Task], workers: int = 0) -> list[dict]:
        """The rows of several parts, in their order.

        Those that are not finished yet are made side by side.

        Args:
          tasks: the parts.
          workers: processes; 0: on a CPU one per core, elsewhere one.
        """
        file = lambda task: self.path / "parts" / f"{task.name}.jsonl"
        missing = [task for task in tasks if not file(task).exists()]
        for task, rows, seconds in run_tasks(missing, workers):
            atomic_write(file(task), dumps([{**row, "part": task.name} for row in rows]))
            self.say(
                f"{task.name}: {seconds:.0f} s ({(time.time() - self.started) / 60:.1f} minutes so"
                " far)"
            )
        return [row for task in tasks for row in records.read_rows(file(task))]

    def finish(self, rows: Iterable[dict], claims: Iterable[Claim], seed: int) -> Path:
        """Writes rows, claims, figures and the report; returns the report's path."""
        meta = provenance.collect(self.command, self.config, self.started, self.tokens, seed)
        records.write_rows(self.path / "rows.jsonl", rows, {**meta, **self._names()})
        said = [{"study": self.title, **dataclasses.asdict(c)} for c in claims]
        atomic_write(self.path / "claims.json", json.dumps(said, indent=1) + "\n")
        return report.build(self.path)
