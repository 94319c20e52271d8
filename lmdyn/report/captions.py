"""What some runs are of, in words: models, checkpoints, texts."""

from collections.abc import Sequence

from lmdyn.report.figures import label, short
from lmdyn.report.folders import Run
from lmdyn.types import Row


def base_name(row: Row) -> str:
    """The name of a row's model, without its step.

    >>> base_name({"model": "hf:EleutherAI/pythia-70m@step1000"})
    'pythia-70m'
    """
    return short(row["model"]).partition("@")[0]


def about(runs: Sequence[Run]) -> str:
    """Model and text of some runs, as the end of a caption.

    >>> row = {"model": "dir:tiny", "step": None, "tokens": 512}
    >>> about([Run("a", [row], {"config": {"data": "text:book.txt"}}, {})])
    'Model: tiny. Text: text:book.txt, 512 predictions.'
    """
    models = list(dict.fromkeys(label(r) for run in runs for r in run.rows))
    tokens = sorted({r["tokens"] for run in runs for r in run.rows if r["tokens"]})
    model = _counted(runs) if len(models) > 3 else ", ".join(models)
    count = f", {tokens[0]:,} predictions" if len(tokens) == 1 else ""
    text = f" Text: {', '.join(texts(runs))}{count}." if texts(runs) else ""
    return f"Model: {model}.{text}"


def _counted(runs: Sequence[Run]) -> str:
    """How many models, or the only one's name, and how many checkpoints where those are more."""
    labels = {label({**r, "when": None}): base_name(r) for run in runs for r in run.rows}
    names = list(dict.fromkeys(labels.values()))
    if len(labels) == 1:
        return next(iter(labels))
    checkpoints = f" ({len(labels)} checkpoints)" if len(labels) > len(names) else ""
    return f"{names[0] if len(names) == 1 else f'{len(names)} models'}{checkpoints}"


def texts(runs: Sequence[Run]) -> list[str]:
    """The texts that some runs are of.

    >>> texts([Run("a", [], {"config": {"data": "text:book.txt"}}, {})])
    ['text:book.txt']
    """
    found = (run.meta.get("config", {}).get("data") for run in runs)
    return list(dict.fromkeys(filter(None, found)))


def summary(runs: Sequence[Run]) -> str:
    """What was measured, in a line.

    >>> row = {"model": "dir:tiny", "step": None, "tokens": 512}
    >>> summary([Run("a", [row], {"config": {"data": "text:book.txt"}}, {})])
    'tiny on text:book.txt: 1 measurements.'
    """
    count = sum(len(run.rows) for run in runs)
    return f"{_counted(runs)} on {', '.join(texts(runs)) or 'a text'}: {count:,} measurements."
