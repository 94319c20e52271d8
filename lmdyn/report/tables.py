"""Tables of whole-model values, a line for every metric, and of what streams cost."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmdyn.records import describe, quantity_of
from lmdyn.report import gradient_profiles, stream_figures
from lmdyn.report.figures import label
from lmdyn.report.folders import Run
from lmdyn.report.markup import e, minus, slug
from lmdyn.types import Row

FEW = 3
"""So many columns at most; with more, the table is turned: a line per model."""
Cells = dict[tuple[str, str], str]
"""A column: (heading, unit) -> value, as text."""


def tables(runs: Sequence[Run]) -> str:
    """A table of the values of models, and one of costs and likelihoods of streams, as HTML."""
    streams = [run for run in runs if any(r["metric"] == "online_nll" for r in run.rows)]
    models: dict[str, Cells] = {}
    last = lambda run: any(r["metric"] in gradient_profiles.PROFILE_METRICS for r in run.rows)
    for run in sorted(runs, key=last):
        if run not in streams:
            for name in dict.fromkeys(label(r) for r in run.rows):
                own = [r for r in run.rows if label(r) == name]
                models.setdefault(name, {}).update(cells(own, run.meta))
    columns = {
        label(run.rows[0]) + (f" ({run.name})" if len(streams) > 1 else ""): cells(
            run.rows, run.meta
        )
        for run in streams
    }
    return _table("Whole-model values", models) + _table("Adapting to the stream", columns)


def cells(rows: Sequence[Row], meta: Mapping[str, Any]) -> Cells:
    """One column: every whole-model value, with the further numbers of its row.

    Of a metric that has layers only, their mean, but where the rows are of several kinds.

    Args:
      rows: of one model.
      meta: the rows' provenance, which has each metric's title and unit.

    >>> row = {"metric": "my_metric", "site": "mlp", "layer": None, "unit": "share"}
    >>> cells([{**row, "value": 0.5}], {})
    {('My metric', 'share'): '0.5000'}
    >>> cells([{**row, "layer": i, "value": i} for i in range(2)], {})
    {('My metric, mean over layers', 'share'): '0.5000'}
    """
    known = describe(stream_figures.STREAM_QUANTITIES.values()) | meta.get("metrics", {})
    found: Cells = {}
    for metric in dict.fromkeys(r["metric"] for r in rows):
        own = [r for r in rows if r["metric"] == metric]
        whole = [r for r in own if r["layer"] is None]
        kinds = {str(r.get("kind") or r.get("set")) for r in own}
        if not whole and len(kinds) == 1 and metric not in gradient_profiles.PROFILE_METRICS:
            mean = sum(r["value"] for r in own) / len(own)
            quantity = quantity_of(own[0], {"metrics": known})
            found[f"{quantity.title}, mean over layers", quantity.unit] = value(mean)
        several = len({r["site"] for r in whole}) > 1
        for r in whole:
            found.update(_cells(r, {"metrics": known}, several))
    return found


def _cells(row: Row, meta: Mapping[str, Any], several: bool) -> Iterator[tuple[tuple, str]]:
    """A row's value and its further numbers, each under its heading."""
    quantity = quantity_of(row, meta)
    kinds = row.get("kinds") or ([row["kind"]] if row.get("kind") else [])
    site = "after the last norm" if row["site"] == "final" else row["site"] if several else None
    parts = [quantity.title, site, " and ".join(kinds)]
    heading = ", ".join(filter(None, parts))
    if row["unit"] == "flops":
        yield (heading, "TFLOP"), value(row["value"] / 1e12)
        return
    yield (heading, quantity.unit), value(row["value"])
    for field, title in quantity.fields.items():
        if isinstance(row.get(field), (int, float)):
            yield (title, heading), value(row[field])


def value(number: float) -> str:
    """A number to five significant digits, at most four of them after the point.

    >>> [value(x) for x in (3.25, 25.79, 148.3, 0.37, -1234567.0, 0.0)]
    ['3.2500', '25.790', '148.30', '0.3700', '\u22121,234,567', '0.0000']
    """
    digits = 4 - math.floor(math.log10(abs(number))) if number else 4
    return minus(f"{number:,.{min(4, max(0, digits))}f}")


def _table(caption: str, columns: Mapping[str, Cells]) -> str:
    """Few columns: a number per line. Many (a series): a model per line."""
    lines = list(dict.fromkeys(line for column in columns.values() for line in column))
    if not lines:
        return ""
    named = {
        line: e(line[0]) + (f" <small>{e(line[1])}</small>" if line[1] else "") for line in lines
    }
    turned = len(columns) > FEW

    def cell(column, line):
        return f"<td>{columns[column].get(line, '')}</td>"

    if turned:
        heads = "".join(f"<th scope=col>{named[line]}</th>" for line in lines)
        rows = [(e(name), [cell(name, line) for line in lines]) for name in columns]
    else:
        heads = "".join(f"<th scope=col>{e(name)}</th>" for name in columns)
        rows = [(named[line], [cell(name, line) for name in columns]) for line in lines]
    body = "".join(f"<tr><th scope=row>{name}</th>{''.join(own)}</tr>" for name, own in rows)
    first = "Model" if turned else "Measured"
    head = f"<thead><tr><th scope=col class=first>{first}</th>{heads}</tr></thead>"
    table = f"<table{' class=turned' if turned else ''} id={slug(caption)}>"
    return (
        f'<div class=scroll tabindex=0 role=region aria-label="{e(caption)}">'
        f"{table}<caption>{e(caption)}</caption>{head}<tbody>{body}</tbody></table></div>"
    )
