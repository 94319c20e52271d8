"""What rows are of, in words: the page's title, and where, when and on which models it ran.

All from the rows and their provenance.
"""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from lmdyn.report.figures import short
from lmdyn.report.folders import Run

DID = {
    "gradients": "gradients by layer",
    "online": "adapted online",
    "reactivate": "reactivated",
    "train": "measured in training",
}
"""What a command did with a model; any other has measured it."""
MOST_NAMED = 3
"""So many models are named one by one."""


def title(runs: Sequence[Run]) -> str:
    """The studies with the models given to them, then the models that were measured otherwise.

    >>> study = Run(
    ...     "rows.jsonl",
    ...     [],
    ...     {"study": "saturation", "config": {"series": ["gguf:m/small.gguf"]}},
    ...     {},
    ... )
    >>> title(
    ...     [
    ...         study,
    ...         Run(
    ...             "measure.jsonl",
    ...             [{"model": "hf:a/one@step8"}, {"model": "hf:a/two"}],
    ...             {},
    ...             {},
    ...         ),
    ...     ]
    ... )
    'Saturation (small) · measurements of one and two'
    """
    studies: dict[str, list[str]] = {}
    for run in runs:
        if study := run.meta.get("study"):
            studies.setdefault(study, []).extend(given(run.meta))
    pieces = [f"{name} ({_named(models)})" if models else name for name, models in studies.items()]
    measured = [name for run in runs if "study" not in run.meta for name in _measured(run)]
    if measured:
        pieces.append(f"measurements of {_named(measured, ' and ')}")
    return _capital(" · ".join(pieces))


def heading(run: Run) -> str:
    """What one rows file is of.

    >>> heading(
    ...     Run(
    ...         "o.jsonl",
    ...         [{"model": "gguf:m/small.gguf"}],
    ...         {"command": "lmdyn online gguf:m/small.gguf"},
    ...         {},
    ...     )
    ... )
    'small, adapted online'
    """
    if study := run.meta.get("study"):
        return _capital(study)
    words = str(run.meta.get("command", "")).split()
    return (
        f"{_named(_measured(run), ' and ')},"
        f" {DID.get(words[1] if len(words) > 1 else '', 'measured')}"
    )


def ran(meta: Mapping[str, Any]) -> str:
    """On what a study ran, and when, in a sentence; what is not known is not said.

    >>> text = ran(
    ...     {
    ...         "config": {
    ...             "seeds": 3,
    ...             "widths": [8, 64],
    ...             "pretrain": {"model": {"width": 64, "depth": 2}},
    ...         },
    ...         "seed": 0,
    ...         "device": "1 x cpu",
    ...         "started": "2026-01-02T03:04:05+00:00",
    ...         "wall_seconds": 1883.0,
    ...     }
    ... )
    >>> text.split("; ")[:2]
    ['Models trained for it, of width 8 to 64 and depth 2', 'seeds 0 to 2']
    >>> text.split("; ")[2]
    '2 January 2026, 31 minutes on 1 x cpu.'
    """
    models = given(meta)
    where = f" on {meta['device']}" if meta.get("device") else ""
    took = f"{_time(meta['wall_seconds'])}{where}" if meta.get("wall_seconds") else ""
    said = [
        f"Model{'s' if len(models) > 1 else ''}: {_named(models)}" if models else _trained(meta),
        seeds_said(meta),
        ", ".join(filter(None, (dates([meta]), took))),
    ]
    text = "; ".join(filter(None, said))
    return f"{_capital(text)}." if text else ""


def given(meta: Mapping[str, Any]) -> list[str]:
    """The short names of the models that a study was given; none where it trained its own.

    >>> given({"config": {"series": "hf:EleutherAI/pythia-70m@step1..step9"}})
    ['pythia-70m']
    """
    config = _config(meta)
    series = config.get("series") or ()
    references = [series] if isinstance(series, str) else [*series]
    if isinstance(config.get("model"), str):
        references.append(config["model"])
    return list(dict.fromkeys(short(reference).partition("@")[0] for reference in references))


def seeds(meta: Mapping[str, Any]) -> str:
    """Which seeds there were; nothing where they are not known.

    >>> seeds({"seed": 3, "config": {"seeds": 2}}), seeds({"seed": 0}), seeds({})
    ('3 to 4', '0', '')
    """
    seed, count = meta.get("seed"), _config(meta).get("seeds")
    if not isinstance(seed, int):
        return ""
    return f"{seed} to {seed + count - 1}" if isinstance(count, int) and count > 1 else f"{seed}"


def seeds_said(meta: Mapping[str, Any]) -> str:
    """The seeds of a study in words: `seeds 3 to 4`, `seed 0`.

    >>> seeds_said({"seed": 3, "config": {"seeds": 2}})
    'seeds 3 to 4'
    """
    said = seeds(meta)
    return f"seed{'s' if ' ' in said else ''} {said}" if said else ""


def dates(metas: Sequence[Mapping[str, Any]]) -> str:
    """The days on which runs were started, the first to the last.

    >>> day = lambda text: {"started": f"{text}T03:04:05+00:00"}
    >>> (
    ...     dates([day("2026-11-24"), day("2026-11-25")]),
    ...     dates([day("2026-11-24"), day("2025-12-31"), {}]),
    ...     dates([{}]),
    ... )
    ('24 to 25 November 2026', '31 December 2025 to 24 November 2026', '')
    """
    found = sorted({day for meta in metas if (day := _day(meta.get("started"))) is not None})
    if not found:
        return ""
    first, last = found[0], found[-1]
    said = f"{last.day} {last:%B %Y}"
    if first == last:
        return said
    begun = (
        f"{first.day}"
        if (first.year, first.month) == (last.year, last.month)
        else f"{first.day} {first:%B %Y}"
    )
    return f"{begun} to {said}"


def _day(text) -> datetime.date | None:
    try:
        return datetime.datetime.fromisoformat(text).date()
    except (TypeError, ValueError):
        return None


def _time(seconds: float) -> str:
    """A time to read.

    >>> [_time(s) for s in (5.2, 60, 1883, 14400)]
    ['5 seconds', '1 minute', '31 minutes', '4.0 hours']
    """
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} hours"
    number, unit = (seconds / 60, "minute") if seconds >= 60 else (seconds, "second")
    return f"{number:.0f} {unit}{'' if round(number) == 1 else 's'}"


def _trained(meta) -> str:
    """The architecture of a study's own models, as far as its config says."""
    config = _config(meta)
    pretrain = config.get("pretrain")
    model = pretrain.get("model") if isinstance(pretrain, Mapping) else None
    if not isinstance(model, Mapping) or not {"width", "depth"} <= model.keys():
        return ""
    widths = config.get("widths") or [model["width"]]
    width = f"{min(widths)} to {max(widths)}" if len(widths) > 1 else f"{widths[0]}"
    return f"models trained for it, of width {width} and depth {model['depth']}"


def _measured(run: Run) -> list[str]:
    """Its models; where several folders are laid beside one another, without the folder's name."""
    names = (
        short(row["model"]).removesuffix(f" ({run.part})").partition("@")[0] for row in run.rows
    )
    return list(dict.fromkeys(names))


def _named(models: Sequence[str], last: str = ", ") -> str:
    models = list(dict.fromkeys(models))
    if len(models) > MOST_NAMED:
        return f"{len(models)} models"
    return last.join(filter(None, (", ".join(models[:-1]), models[-1])))


def _config(meta) -> Mapping[str, Any]:
    config = meta.get("config")
    return config if isinstance(config, Mapping) else {}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
