"""What the figures of online adaptation are drawn from: rows of an analysis, and what they save."""

from collections.abc import Callable, Mapping
from typing import Any

from lmdyn.report.figures import short
from lmdyn.studies.claims import where
from lmdyn.types import Rows

GAIN = "Nats per token saved against the static model"


def rows_of(rows: Rows, analysis: str, metric: str = "online_nll") -> list[Mapping[str, Any]]:
    """The rows of an analysis and a metric."""
    return where(rows, metric, analysis=analysis)


def adapted_text(row: Mapping[str, Any]) -> str:
    """The text that is adapted to, and whether the model was fine-tuned for it."""
    trained = {"base": "", "tuned": ", fine-tuned"}.get(row.get("trained", ""), "")
    return f"{short(row['stream'])}{trained}"


def text_name(reference: str) -> str:
    """A text's name without its part."""
    return short(reference).removesuffix(":test")


def gains(
    found: Rows, name: Callable[[Mapping[str, Any]], str] = lambda r: r["setting"]
) -> list[dict[str, Any]]:
    """What each row saves: `name`, `seed`, `value` (nats per token), `mflop`."""
    return [
        {"name": name(r), "seed": r["seed"], "value": saved(r), "mflop": float(r["flops"] / 1e6)}
        for r in found
    ]


def saved(row: Mapping[str, Any]) -> float:
    """Nats per token that adapting saves."""
    return float(row["static"] - row["value"])
