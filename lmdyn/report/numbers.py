"""Tables of whole-model values and of what streams cost."""

from collections.abc import Mapping, Sequence

from lmdyn.report import figures
from lmdyn.report.gather import Run
from lmdyn.report.markup import e

# Whole-model values, in the order of the table: metric, site (None: any), what people call it,
# unit, digits.
NUMBERS = (
    ("nll", None, "Negative log-likelihood", "nats a token", 4),
    ("nll", "perplexity", "Perplexity", "", 2),
    ("nll", "bits_per_byte", "Bits per byte", "", 3),
    ("knowledge_entropy", None, "Knowledge entropy, all layers", "nats", 2),
    ("attention_entropy", None, "Attention entropy, mean", "nats", 3),
    ("prediction_entropy", None, "Prediction entropy", "nats", 3),
    ("anisotropy", None, "Anisotropy after the last norm", "cosine", 3),
    ("singular_entropy", None, "Singular entropy of the head", "nats", 3),
    ("static_nll", None, "Static nll", "nats a token", 4),
    ("static_nll", "perplexity", "Static perplexity", "", 2),
    ("online_nll", None, "Online nll", "nats a token", 4),
    ("online_nll", "perplexity", "Online perplexity", "", 2),
)


def tables(runs: Sequence[Run]) -> str:
    """One table of whole-model values a model, and one of costs and likelihoods a stream."""
    measured = [run for run in runs if not any(r["metric"] == "online_nll" for r in run.rows)]
    streams = [run for run in runs if run not in measured]
    parts = []
    columns = {}
    for run in measured:
        for r in run.rows:
            columns.setdefault(figures.label(r), []).append(r)
    if columns:
        parts.append(_table("Whole-model values", columns))
    if streams:
        names = {
            f"{figures.label(run.rows[0])}{f' ({run.name})' if len(streams) > 1 else ''}": run.rows
            for run in streams
        }
        parts.append(_table("Adapting to the stream", names))
    return "".join(parts)


def _table(caption, columns: Mapping[str, list]):
    """Few columns: a number a line. Many (a series): a model a line."""
    cells = {name: dict(_numbers(rows)) for name, rows in columns.items()}
    lines = list(dict.fromkeys(line for column in cells.values() for line in column))
    if not lines:
        return ""
    turned = len(columns) > 3  # a series

    def cell(column, line):
        return f"<td>{cells[column].get(line, '')}</td>"

    if turned:
        head = "".join(f"<th scope=col>{line}</th>" for line in lines)
        body = "".join(
            f"<tr><th scope=row>{e(c)}</th>{''.join(cell(c, n) for n in lines)}</tr>"
            for c in columns
        )
    else:
        head = "".join(f"<th scope=col>{e(c)}</th>" for c in columns)
        body = "".join(
            f"<tr><th scope=row>{line}</th>{''.join(cell(c, line) for c in columns)}</tr>"
            for line in lines
        )
    kind = " class=turned" if turned else ""
    head = f"<caption>{e(caption)}</caption><thead><tr><td></td>{head}</tr></thead>"
    return f"<div class=scroll><table{kind}>{head}<tbody>{body}</tbody></table></div>"


def _numbers(rows):
    """(heading, value) pairs, as HTML."""
    whole = [r for r in rows if r["layer"] is None]
    for metric, extra, heading, unit, digits in NUMBERS:
        for r in whole:
            if r["metric"] == metric and (extra is None or extra in r):
                value = r["value"] if extra is None else r[extra]
                yield (
                    f"{e(heading)}{f' <small>{e(unit)}</small>' if unit else ''}",
                    f"{value:,.{digits}f}",
                )
    flops = {r["site"]: r["value"] for r in rows if r["metric"] == "flops"}
    for site, value in flops.items():
        yield f"Compute, {e(site)} <small>TFLOP</small>", f"{value / 1e12:,.2f}"
