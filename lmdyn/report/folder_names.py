"""Several folders of rows on one page: names that tell them apart."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmdyn.records import provenance
from lmdyn.report import titles
from lmdyn.report.figures import short
from lmdyn.report.folders import Part, Run
from lmdyn.report.markup import slug


def told_apart(parts: Sequence[Part], folders: Sequence[Path]) -> list[Part]:
    """Gives parts distinct names: folders, figures, claims, models measured in several of them.

    A study's name also says how its config differs from that of the other folders of the same
    study, where a few words suffice.
    """
    names = _names([str(folder.absolute()) for folder in folders])
    measured = Counter(
        model for part in parts for model in {row["model"] for run in part.runs for row in run.rows}
    )
    found = []
    for name, other, part in zip(
        names, _differences([_study(part) for part in parts]), parts, strict=True
    ):
        address, shown = slug(name), f"{name} ({other})" if other else name

        def label(row, name=name):
            return (
                row
                if measured[row["model"]] == 1
                else {**row, "model": f"{short(row['model'])} ({name})"}
            )

        runs = []
        for run in part.runs:
            rows = run.rows if "study" in run.meta else [label(row) for row in run.rows]
            runs.append(
                run._replace(name=f"{name}/{run.name}", rows=rows, folder=address, part=shown)
            )
        said = [
            {
                **c,
                "id": f"{address}-{c['id']}",
                "figure": f"{address}-{c['figure']}",
                "same": c["id"],
                "folder": shown,
            }
            for c in part.said
        ]
        found.append(Part(shown, runs, said))
    return found


def _study(part: Part) -> Run | None:
    return next((run for run in part.runs if "study" in run.meta), None)


def _differences(studies: Sequence[Run | None]) -> list[str]:
    """For each study how its settings differ from those of the others of its kind.

    Nothing where that is much.

    >>> runs = [
    ...     Run(
    ...         "r",
    ...         [],
    ...         {"study": "s", "seed": seed, "config": {"seeds": 3, "seed": seed, "rate": 0.1}},
    ...         {},
    ...     )
    ...     for seed in (0, 3)
    ... ]
    >>> _differences([*runs, None])
    ['seeds 0 to 2', 'seeds 3 to 5', '']
    """
    found = []
    for run in studies:
        kind = [
            other.meta.get("config") or {}
            for other in studies
            if run is not None and other is not None and other.meta["study"] == run.meta["study"]
        ]
        keys = [
            key
            for key in dict.fromkeys(key for config in kind for key in config)
            if key not in provenance.STUDY_FREE
            and any(c.get(key) != kind[0].get(key) for c in kind)
        ]
        found.append("" if run is None else _told(run.meta, keys))
    return found


def _told(meta: dict[str, Any], keys: Sequence[str]) -> str:
    config = meta.get("config") or {}
    said = [titles.seeds_said(meta)] if {"seed", "seeds"} & {*keys} else []
    rest = [key for key in keys if key not in ("seed", "seeds")]
    if len(rest) > 2 or not all(
        isinstance(config.get(key), (str, int, float, type(None))) for key in rest
    ):
        return ", ".join(said)
    return ", ".join([*said, *(f"{key} {short(str(config.get(key)))}" for key in rest)])


def _names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, with as many before it as distinguish it.

    Numbered where a folder is given twice.

    >>> _names(["/a/x", "/a/y"]), _names(["/a/x", "/b/x", "/b/y"]), _names(["/a/x", "/a/x"])
    (['x', 'y'], ['x in a', 'x in b', 'y'], ['x (1)', 'x (2)'])
    """
    pieces = [path.strip(os.sep).split(os.sep) for path in paths]
    if len(set(paths)) < len(paths):
        return [f"{parts[-1]} ({number})" for number, parts in enumerate(pieces, 1)]
    alone = lambda parts, n: sum(other[-n:] == parts[-n:] for other in pieces) == 1
    deep = [next(n for n in range(1, len(parts) + 1) if alone(parts, n)) for parts in pieces]
    return [" in ".join(reversed(parts[-n:])) for parts, n in zip(pieces, deep, strict=True)]
