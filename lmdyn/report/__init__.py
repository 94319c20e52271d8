"""Rows to figures to one self-contained HTML file. Knows rows only: nothing is measured here."""

import os
from collections.abc import Sequence
from pathlib import Path

from lmdyn.errors import InputError
from lmdyn.files import atomic_write, check_writable
from lmdyn.report.rows import read_meta, read_rows, read_traces, row, write_rows

__all__ = ["build", "enable_theme", "read_meta", "read_rows", "read_traces", "row", "runs", "write_rows"]


def enable_theme(width: int = 520, height: int = 240) -> None:
    """Altair charts of this session look like the report's, and a notebook shows them as pictures (see `lmdyn.report.theme.enable`)."""
    from lmdyn.report import theme

    theme.enable(width, height)


def build(folder: str | os.PathLike | Sequence[str | os.PathLike], out: str | os.PathLike | None = None) -> Path:
    """Writes the report of a folder of rows, or of several folders beside one another.

    Args:
      folder: holds rows files (`*.jsonl`) with `.meta.json` and `.trace.npz` beside them; or a training run, with its
        measurements; or a study, with its claims: its figures are then also written to `figures/NAME.svg` there. Of several
        folders what was measured stands in the same figures and tables; studies follow one another.
      out: the page; `report.html` in the folder if None, which several folders cannot have.

    Returns:
      The page's path.

    Raises:
      InputError: no such folder, no rows in it, rows or claims that cannot be read; several folders and no `out`.
    """
    from lmdyn.report import beside, claims, page

    several = not isinstance(folder, (str, os.PathLike))
    folders = [Path(f) for f in folder] if several else [Path(folder)]
    if len(folders) > 1 and out is None:
        raise InputError(f"a page of {len(folders)} folders belongs to none of them; give --out FILE, such as --out report.html")
    out = check_writable(folders[0] / "report.html" if out is None else out)
    parts = [beside.Part(f.absolute().name, runs(f), claims.read(f)) for f in folders]
    if len(folders) > 1:
        parts = beside.told_apart(parts, folders)
    found, said = [run for part in parts for run in part.runs], [claim for part in parts for claim in part.said]
    figures = page.collect(found)
    svgs = {figure.name: page.to_svg(figure.chart) for figure in figures}
    if len(folders) == 1 and (folders[0] / "study.json").exists():
        for name, svg in svgs.items():
            atomic_write(folders[0] / "figures" / f"{name}.svg", svg)
    studies = list(dict.fromkeys(run.meta["study"] for run in found if "study" in run.meta))
    title = f"A study of {' and '.join(studies)}" if studies else "Language-model dynamics"
    atomic_write(out, page.render(f"{title}: {', '.join(part.name for part in parts)}", found, figures, svgs, said))
    return out


def runs(folder: str | os.PathLike) -> list:
    """Every rows file of a folder, by name, as `lmdyn.report.page.Run`."""
    from lmdyn.report.page import Run

    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the one that holds the rows of lmdyn measure and lmdyn online")
    paths = set(folder.glob("*.jsonl")) | {
        p.with_name(p.name.removesuffix(".meta.json")) for p in folder.glob("*.meta.json")
    }
    if (folder / "run.json").exists():  # a training run: its other files are no rows
        paths &= {folder / "rows.jsonl"}
    if (folder / "study.json").exists() and not (folder / "rows.jsonl").exists():
        raise InputError(
            f"the study in {folder} has not come to its end; go on with it: lmdyn study ... --out {folder}"
        )
    loaded = [Run(p.name, read_rows(p), read_meta(p), read_traces(p)) for p in sorted(paths)]
    loaded = [run for run in loaded if run.rows]
    if not loaded:
        raise InputError(
            f"{folder} holds no rows; write some there first: lmdyn measure ... --out {folder / 'measure.jsonl'}"
        )
    return loaded
