"""What the rows of a metric hold, in words: title, unit, site, caption.

A table, a chart and a line on the terminal can be made of any metric's rows from this alone. A
metric brings its `Quantity` (`lmdyn.metrics.Metric.quantities`); whoever writes its rows keeps it
beside them, as `metrics` in `FILE.meta.json`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lmdyn.types import Row


class Quantity(NamedTuple):
    """What rows of one name hold.

    >>> Quantity("participation", "Participation", "share", "mlp", "1: all units alike.").axis
    'layer'
    """

    name: str
    """`metric` of the rows."""
    title: str
    """A heading, such as `Knowledge entropy`."""
    unit: str = ""
    """`unit` of the rows, such as `nats`."""
    site: str | None = None
    """`site` of the rows; None where they name several sites, or none."""
    caption: str = ""
    """A sentence or two under a chart: what it is, how to read it, its source."""
    axis: str = "layer"
    """What `layer` of the rows counts."""
    fields: Mapping[str, str] = {}
    """Further numbers of a row, field -> heading, such as `perplexity`."""
    rank: int = 0
    """1: its figure opens a page before those of rank 0; -1: it never opens one."""


def describe(quantities: Iterable[Quantity]) -> dict[str, dict[str, Any]]:
    """Quantities by name, as `FILE.meta.json` keeps them under `metrics`.

    >>> describe([Quantity("nll", "Negative log-likelihood", "nats")])["nll"]["unit"]
    'nats'
    """
    return {one.name: {**one._asdict(), "fields": dict(one.fields)} for one in quantities}


def quantity_of(row: Row, meta: Mapping[str, Any]) -> Quantity:
    """The quantity of a row, from the provenance beside it.

    Where that does not know it, the row's own name and unit serve.

    Args:
      row: see `lmdyn.records.row`.
      meta: the content of `FILE.meta.json`.

    >>> row = {"metric": "my_metric", "site": "mlp", "layer": 0, "value": 1.0, "unit": "nats"}
    >>> quantity_of(row, {}).title, quantity_of(row, {}).unit
    ('My metric', 'nats')
    >>> meta = {"metrics": describe([Quantity("my_metric", "A metric of mine")])}
    >>> quantity_of(row, meta).title
    'A metric of mine'
    """
    name = row["metric"]
    known = meta.get("metrics", {}).get(name)
    if known is not None:
        return Quantity(**{key: known[key] for key in Quantity._fields if key in known})
    words = name.replace("_", " ")
    return Quantity(name, words[:1].upper() + words[1:], row.get("unit") or "", row.get("site"))
