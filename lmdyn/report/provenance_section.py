"""Where the numbers come from, as the last part of the page.

Command, settings, versions, device, seeds, time and cost of each rows file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lmdyn.report import titles
from lmdyn.report.figures import short
from lmdyn.report.folders import Run
from lmdyn.report.markup import e


def section(runs: Sequence[Run]) -> str:
    """A heading and a list for each rows file."""
    return "".join(_run(run) for run in runs)


def _run(run):
    m = run.meta
    head = f"<h3>{e(titles.heading(run))} <small>{e(run.name)}</small></h3>"
    if not m:
        return f"{head}<p>No {e(run.name)}.meta.json stands beside these rows.</p>"
    config = m.get("config") or {}
    seconds = m.get("wall_seconds")
    speed = (
        f", {m['tokens_per_second']:,.0f} predictions per second"
        if m.get("tokens_per_second")
        else ""
    )
    lines = {
        "Device": m.get("device"),
        "Versions": ", ".join(f"{k} {v}" for k, v in m.get("versions", {}).items()),
        "Seeds": titles.seeds(m) or "none: nothing in it is random",
        "Started": m.get("started"),
        "Took": None if seconds is None else f"{seconds:,.1f} s{speed}",
        "Cost": _cost(m, run.rows),
    }
    items = "".join(f"<dt>{e(k)}</dt><dd>{e(str(v))}</dd>" for k, v in lines.items() if v)
    if config:
        items += f"<dt>Settings</dt><dd>{_settings(config)}</dd>"
    return f"{head}<pre><code>{e(m.get('command', ''))}</code></pre><dl>{items}</dl>"


def _cost(meta: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Device time, predictions, operations and memory, as far as they are known.

    >>> _cost(
    ...     {
    ...         "wall_seconds": 1800,
    ...         "device": "1 x cpu (x86_64, 2 cores)",
    ...         "tokens": 12000,
    ...         "peak_memory_mib": 512.0,
    ...     },
    ...     [],
    ... )
    '0.50 hours of 1 x cpu (x86_64, 2 cores), 12,000 predictions, 512 MiB of memory at most'
    """
    flops = sum(r["value"] for r in rows if r["metric"] == "flops")
    said = [
        (
            f"{meta['wall_seconds'] / 3600:,.2f} hours of {meta['device']}"
            if meta.get("wall_seconds") and meta.get("device")
            else ""
        ),
        f"{meta['tokens']:,} predictions" if meta.get("tokens") else "",
        f"{flops / 1e12:,.2f} TFLOP by formula" if flops else "",
        (
            f"{meta['peak_memory_mib']:,.0f} MiB of memory at most"
            if "peak_memory_mib" in meta
            else ""
        ),
    ]
    return ", ".join(filter(None, said))


def _settings(config: Mapping[str, Any]) -> str:
    """Settings as HTML: plain ones in a line, each that holds others folded below."""
    plain = {k: v for k, v in config.items() if not _nested(v)}
    line = ", ".join(f"{e(k)}={e(_value(v))}" for k, v in plain.items())
    folded = [
        f"<details><summary>{e(k)}{_hint(v)}</summary>"
        f"{_settings(v if isinstance(v, Mapping) else _numbered(v))}</details>"
        for k, v in config.items()
        if _nested(v)
    ]
    return line + "".join(folded)


def _nested(value) -> bool:
    """Whether a setting holds settings: a mapping, or a list that has one in it."""
    return (isinstance(value, Mapping) and bool(value)) or (
        isinstance(value, list) and any(isinstance(v, (Mapping, list)) for v in value)
    )


def _numbered(values: list) -> dict[str, Any]:
    """The items of a list by number, with their name where they have one."""
    return {
        f"{i} {v['name']}" if isinstance(v, Mapping) and "name" in v else str(i): v
        for i, v in enumerate(values, 1)
    }


def _hint(value) -> str:
    """What a folded setting is about, in a word."""
    name = f"{len(value)}" if isinstance(value, list) else value.get("name") or value.get("ref")
    return f" <small>{e(name)}</small>" if isinstance(name, str) and name else ""


def _value(value):
    if isinstance(value, list):
        return " ".join(short(v) if isinstance(v, str) else f"{v}" for v in value) or "none"
    return "none" if value is None or value == {} else value
