"""Folders to what a page is made of: rows files with their provenance, and claims.

A folder that is a study or a training run is one part; its subfolders are its own business. Any
other folder is gathered: its own rows, then those of the studies, runs and measurements in folders
below it.

A folder that is a study or a training run is one part; its subfolders are its own business. Any
other folder is gathered: its own rows, then those of the studies, runs and measurements in folders
below it.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from lmdyn.errors import InputError
from lmdyn.records.rows import read_meta, read_rows, read_traces
from lmdyn.report import claims_table, small_versions

DEPTH = 3
"""So many levels of folders below the one that is given are looked into."""


class Run(NamedTuple):
    """A file of rows, with its provenance and its traces. Made by `runs`."""

    name: str
    rows: list[dict[str, Any]]
    meta: dict[str, Any]
    traces: dict[str, Any]
    folder: str = ""
    """Of several folders beside one another, its name as an anchor."""
    part: str = ""
    """The same, as people read it."""


class Part(NamedTuple):
    """A folder: its name, files of rows, and claims if it is a study's. Made by `part`."""

    name: str
    runs: list[Run]
    said: list[dict[str, Any]]
    """The claims, each with `small`: see `lmdyn.report.small_versions.whole`."""


class Gathered(NamedTuple):
    """The folders with rows in a folder and below it. Made by `gathered`."""

    folders: list[Path]
    """Those that have rows, in the order of the page."""
    unfinished: list[Path]
    """Studies that have no rows yet."""


def part(folder: Path) -> Part:
    """A folder's rows and claims.

    Raises:
      InputError: as `runs`, and claims that cannot be read.

    >>> import tempfile
    >>> from lmdyn import records
    >>> folder = tempfile.mkdtemp()
    >>> records.write_rows(
    ...     f"{folder}/a.jsonl", [records.row("nll", 3.0, "nats", model="tiny")], {}
    ... )
    >>> len(part(Path(folder)).runs), part(Path(folder)).said
    (1, [])
    """
    found, said = runs(folder), claims_table.read(folder)
    config = next(filter(None, (small_versions.whole(run.meta) for run in found)), "")
    return Part(folder.absolute().name, found, [{**claim, "small": config} for claim in said])


def gathered(folder: str | os.PathLike) -> Gathered:
    """The folder itself, if it has rows, and the studies, runs and measurements below it.

    Raises:
      InputError: it is not a folder, or there is nothing to gather.

    >>> import tempfile
    >>> from lmdyn import records
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "run").mkdir()
    >>> records.write_rows(
    ...     folder / "run/a.jsonl", [records.row("nll", 3.0, "nats", model="tiny")], {}
    ... )
    >>> [found.name for found in gathered(folder).folders]
    ['run']
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; give the one that holds the rows of lmdyn measure and lmdyn"
            " online"
        )
    if _whole(folder):
        return Gathered([folder], [])
    below = sorted(_below(folder, DEPTH))
    unfinished = [f for f in below if _unfinished(f)]
    found = [f for f in below if f not in unfinished]
    own = any(folder.glob("*.jsonl")) or any(folder.glob("*.jsonl.meta.json"))
    if unfinished and not found and not own:
        raise InputError(_to_end(unfinished[0]))
    if own or not found:  # if neither, `runs` says what is missing
        found.insert(0, folder)
    return Gathered(found, unfinished)


def _whole(folder: Path) -> bool:
    """Whether it is a study or a training run, with all that is in it."""
    return (folder / "study.json").exists() or (folder / "run.json").exists()


def _unfinished(folder: Path) -> bool:
    return (folder / "study.json").exists() and not (folder / "rows.jsonl").exists()


def _to_end(folder: Path) -> str:
    return (
        f"the study in {folder} is unfinished; resume it with its own command: lmdyn study ..."
        f" --out {folder}"
    )


def _below(folder: Path, depth: int):
    """Folders below that lmdyn wrote rows to; hidden ones and links are not followed."""
    for child in folder.iterdir():
        if child.name.startswith(".") or child.is_symlink() or not child.is_dir():
            continue
        if (child / "study.json").exists() or any(child.glob("*.jsonl.meta.json")):
            yield child
        if depth > 1 and not _whole(child):
            yield from _below(child, depth - 1)


def runs(folder: str | os.PathLike) -> list[Run]:
    """Every rows file of one folder, by name; folders below it do not count.

    Raises:
      InputError: it is not a folder, or has no rows, unreadable rows or an unfinished study.

    >>> import tempfile
    >>> from lmdyn import records
    >>> folder = tempfile.mkdtemp()
    >>> records.write_rows(
    ...     f"{folder}/measure.jsonl",
    ...     [records.row("nll", 3.0, "nats", model="tiny", tokens=7)],
    ...     {},
    ... )
    >>> [(run.name, len(run.rows)) for run in runs(folder)]
    [('measure.jsonl', 1)]
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; give the one that holds the rows of lmdyn measure and lmdyn"
            " online"
        )
    paths = set(folder.glob("*.jsonl")) | {
        p.with_name(p.name.removesuffix(".meta.json")) for p in folder.glob("*.meta.json")
    }
    if (folder / "run.json").exists():  # a training run: its other files are not rows
        paths &= {folder / "rows.jsonl"}
    if _unfinished(folder):
        raise InputError(_to_end(folder))
    loaded = [Run(p.name, read_rows(p), read_meta(p), read_traces(p)) for p in sorted(paths)]
    loaded = [run for run in loaded if run.rows]
    if not loaded:
        raise InputError(
            f"{folder} holds no rows; write some there first: lmdyn measure ... --out"
            f" {folder / 'measure.jsonl'}"
        )
    return loaded
