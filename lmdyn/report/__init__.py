"""Rows to figures to one self-contained HTML file. Knows rows only: nothing is measured here."""

import os
from collections.abc import Sequence
from pathlib import Path

from lmdyn.errors import InputError
from lmdyn.files import atomic_write, check_writable
from lmdyn.report.folders import runs

__all__ = ["build", "enable_theme", "runs"]


def enable_theme(width: int = 520, height: int = 240) -> None:
    """Altair charts of this session look like the report's; notebooks show them as pictures.

    See `lmdyn.report.theme.enable`.

    >>> import altair
    >>> with altair.theme.enable("default"):  # a session would not go back
    ...     enable_theme(width=400)
    ...     altair.Chart().mark_point().to_dict()["config"]["view"]["continuousWidth"]
    400
    """
    from lmdyn.report import theme

    theme.enable(width, height)


def build(
    folder: str | os.PathLike | Sequence[str | os.PathLike], out: str | os.PathLike | None = None
) -> Path:
    """Writes the report of a folder of rows, or of several folders beside one another.

    Args:
      folder: holds rows files (`*.jsonl`) with `.meta.json` and `.trace.npz` beside them; or a
        training run, with its measurements; or a study, with its claims: its figures are then also
        written to `figures/NAME.svg` there; or folders like these, to a depth of three. Of several
        folders measurements share figures and tables; studies follow one another.
        An unfinished study is left out, and the page says so.
      out: the page; `report.html` in the folder if None, which several folders cannot have.

    Returns:
      The page's path.

    Raises:
      InputError: no such folder, no rows in it, rows or claims that cannot be read; several folders
        and no `out`.

    >>> import tempfile
    >>> from lmdyn.records import row, write_rows
    >>> folder = tempfile.mkdtemp()
    >>> write_rows(
    ...     f"{folder}/measure.jsonl", [row("nll", 3.0, "nats", model="tiny", tokens=7)], {}
    ... )
    >>> build(folder).name
    'report.html'
    """
    from lmdyn.report import folder_names, page
    from lmdyn.report.folders import gathered, part

    several = not isinstance(folder, (str, os.PathLike))
    given = [Path(f) for f in folder] if several else [Path(folder)]
    if len(given) > 1 and out is None:
        raise InputError(
            f"a page of {len(given)} folders belongs to none of them; give --out FILE, such as"
            " --out report.html"
        )
    out = check_writable(given[0] / "report.html" if out is None else out)
    found = [gathered(f) for f in given]
    folders, unfinished = (
        [f for one in found for f in getattr(one, name)] for name in ("folders", "unfinished")
    )
    parts = [part(f) for f in folders]
    if len(folders) > 1:
        parts = folder_names.told_apart(parts, folders)
    made = page.render(parts, [f.absolute().name for f in unfinished])
    if len(folders) == 1 and (folders[0] / "study.json").exists():
        for figure, svg in made.svgs.items():
            atomic_write(folders[0] / "figures" / f"{figure}.svg", svg)
    atomic_write(out, made.html)
    return out
