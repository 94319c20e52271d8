"""Several folders of rows on one page: names that tell them apart."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lmdyn.report.figures import short
from lmdyn.report.gather import Part
from lmdyn.report.markup import slug


def told_apart(parts: Sequence[Part], folders: Sequence[Path]) -> list[Part]:
    """The parts under names of their own: of folders; of studies' figures and claims; of models that several folders measured."""
    names = _names([str(folder.absolute()) for folder in folders])
    measured = Counter(model for part in parts for model in {row["model"] for run in part.runs for row in run.rows})
    found = []
    for name, part in zip(names, parts, strict=True):
        address = slug(name)

        def label(row, name=name):
            return row if measured[row["model"]] == 1 else {**row, "model": f"{short(row['model'])} ({name})"}

        runs = []
        for run in part.runs:
            rows = run.rows if "study" in run.meta else [label(row) for row in run.rows]
            runs.append(run._replace(name=f"{name}/{run.name}", rows=rows, folder=address, part=name))
        said = [{**c, "id": f"{address}-{c['id']}", "figure": f"{address}-{c['figure']}", "same": c["id"], "folder": name} for c in part.said]
        found.append(Part(name, runs, said))
    return found


def _names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, with as many before it as tell it apart; numbered where a folder is given twice.

    >>> _names(["/a/x", "/a/y"]), _names(["/a/x", "/b/x", "/b/y"]), _names(["/a/x", "/a/x"])
    (['x', 'y'], ['x in a', 'x in b', 'y'], ['x (1)', 'x (2)'])
    """
    pieces = [path.strip(os.sep).split(os.sep) for path in paths]
    if len(set(paths)) < len(paths):
        return [f"{parts[-1]} ({number})" for number, parts in enumerate(pieces, 1)]
    alone = lambda parts, n: sum(other[-n:] == parts[-n:] for other in pieces) == 1
    deep = [next(n for n in range(1, len(parts) + 1) if alone(parts, n)) for parts in pieces]
    return [" in ".join(reversed(parts[-n:])) for parts, n in zip(pieces, deep, strict=True)]
