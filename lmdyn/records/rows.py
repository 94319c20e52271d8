"""Tidy rows: one measurement a line, with its provenance beside it.

A row is a dict with the keys of `FIELDS`, in that order, and free extra ones after them; `layer` is
None for a whole-model value, `step` is None where the model is not one of a series, `tokens`
is the number of predictions measured. Rows are kept as JSON Lines in `FILE`, what made them in
`FILE.meta.json`, and per-token values in `FILE.trace.npz`.
"""

import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lmdyn.errors import InputError
from lmdyn.files import atomic_write_all

FIELDS = ("model", "step", "metric", "site", "layer", "value", "unit", "tokens")
OF_THE_MODEL = ("model", "step", "tokens")
"""What a metric does not know of the rows that it returns."""


def row(
    metric: str,
    value: Any,
    unit: str,
    site: str | None = None,
    layer: int | None = None,
    *,
    model: str | None = None,
    step: int | None = None,
    tokens: int | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """One measurement; without `model`, one that a metric returns.

    A metric knows neither the model nor how much it read. Whoever writes its rows does, and
    completes them: `row(**r, model=..., step=..., tokens=...)`.

    Args:
      metric: what was measured.
      value: the number; of NumPy or JAX, too.
      unit: of the value, such as `nats`.
      site: where in the model, such as `mlp`.
      layer: its index; None for a value of the whole model.
      model: the model's reference.
      step: the model's training step.
      tokens: how many predictions it rests on.
      **extra: anything else that JSON can hold.

    >>> row("nll", 3.02, "nats")
    {'metric': 'nll', 'site': None, 'layer': None, 'value': 3.02, 'unit': 'nats'}
    >>> row(**row("nll", 3.02, "nats"), model="gguf:m.gguf", tokens=512)["tokens"]
    512
    """
    found = {
        "model": model,
        "step": step,
        "metric": metric,
        "site": site,
        "layer": layer,
        "value": value,
        "unit": unit,
        "tokens": tokens,
        **extra,
    }
    return {
        key: _plain(value)
        for key, value in found.items()
        if model is not None or value is not None or key not in OF_THE_MODEL
    }


def dumps(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSON Lines. A value that is not finite is an `InputError` that names the row.

    >>> json.loads(dumps([row("nll", 1.5, "nats", model="m")]))["value"]
    1.5
    """
    lines = []
    for r in rows:
        missing = [f for f in FIELDS if f not in r]
        if missing:
            raise InputError(f"a row lacks {', '.join(missing)}; a row has: {', '.join(FIELDS)}")
        plain = {k: _plain(v) for k, v in r.items()}
        for key, value in plain.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(
                    f"{r['metric']} of {r['model']} (site {r['site']}, layer {r['layer']}) is"
                    f" {value} in '{key}', not a finite number; look for NaN or infinity in the"
                    " checkpoint"
                )
        lines.append(json.dumps({f: plain[f] for f in FIELDS} | plain) + "\n")
    return "".join(lines)


def write_rows(
    path: str | os.PathLike,
    rows: Iterable[Mapping[str, Any]],
    meta: Mapping[str, Any],
    traces: Mapping[str, Any] | None = None,
) -> None:
    """Writes `path`, `path.meta.json` and, if given, `path.trace.npz`: all of them, or none.

    Args:
      path: the rows' file.
      rows: see `row`.
      meta: what made them.
      traces: name -> array, one number per token.

    Raises:
      InputError: a value that is not finite.
      OSError: the disk is full, or the like; nothing is left behind.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/rows.jsonl"
    >>> write_rows(path, [row("nll", 1.5, "nats", model="m")], {"seed": 0})
    >>> read_rows(path)[0]["value"], read_meta(path)
    (1.5, {'seed': 0})
    """
    contents = {}
    if traces is not None:
        import numpy as np

        packed = io.BytesIO()
        np.savez_compressed(packed, **traces)
        contents[trace_path(path)] = packed.getvalue()
    contents[meta_path(path)] = json.dumps({k: _plain(v) for k, v in meta.items()}, indent=2) + "\n"
    contents[Path(path)] = dumps(rows)  # last: rows that are there are complete
    atomic_write_all(contents)


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a file, in its order.

    Raises:
      InputError: no such file, or a line that is not a row (its number, and what it lacks).

    >>> import tempfile
    >>> from lmdyn import records
    >>> path = tempfile.mkdtemp() + "/measure.jsonl"
    >>> records.write_rows(path, [records.row("nll", 3.0, "nats", model="tiny", tokens=7)], {})
    >>> records.read_rows(path)[0]["value"]
    3.0
    """
    rows = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            r = json.loads(line)
        except ValueError as err:
            raise InputError(
                f"{path} line {number} is not JSON: {err}; rows are JSON Lines, as lmdyn measure"
                " writes them"
            ) from err
        missing = [f for f in FIELDS if not isinstance(r, dict) or f not in r]
        if missing:
            raise InputError(f"{path} line {number} is not a row: it lacks {', '.join(missing)}")
        if (
            isinstance(r["value"], bool)
            or not isinstance(r["value"], (int, float))
            or not math.isfinite(r["value"])
        ):
            raise InputError(f"{path} line {number}: value {r['value']!r} is not a finite number")
        rows.append(r)
    return rows


def read_meta(path: str | os.PathLike) -> dict[str, Any]:
    """What made the rows of `path`; empty where `path.meta.json` is not there.

    >>> import tempfile
    >>> from lmdyn import records
    >>> path = tempfile.mkdtemp() + "/measure.jsonl"
    >>> records.write_rows(
    ...     path,
    ...     [records.row("nll", 3.0, "nats", model="tiny", tokens=7)],
    ...     {"command": "lmdyn measure"},
    ... )
    >>> records.read_meta(path)["command"]
    'lmdyn measure'
    """
    path = meta_path(path)
    if not path.exists():
        return {}
    try:
        meta = json.loads(_read(path))
    except ValueError as err:
        raise InputError(f"{path} is not JSON: {err}; measure again, or remove it") from err
    if not isinstance(meta, dict):
        raise InputError(f"{path} is not a JSON object; measure again, or remove it")
    return meta


def read_traces(path: str | os.PathLike) -> dict[str, Any]:
    """Name -> [N] float32 of `path.trace.npz`; empty where it is not there.

    >>> import tempfile
    >>> from lmdyn import records
    >>> path = tempfile.mkdtemp() + "/measure.jsonl"
    >>> records.write_rows(
    ...     path,
    ...     [records.row("nll", 3.0, "nats", model="tiny", tokens=3)],
    ...     {},
    ...     {"online": [2.0, 3.0, 4.0]},
    ... )
    >>> records.read_traces(path)["online"].tolist()
    [2.0, 3.0, 4.0]
    """
    import numpy as np

    path = trace_path(path)
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as packed:
            return {name: packed[name] for name in packed.files}
    except Exception as err:  # a damaged archive raises zipfile, zlib, EOF or value errors
        raise InputError(f"{path} is damaged ({err}); measure again, or remove it") from err


def meta_path(path: str | os.PathLike) -> Path:
    """`FILE.meta.json` beside the rows.

    >>> meta_path("rows.jsonl").name
    'rows.jsonl.meta.json'
    """
    return Path(f"{path}.meta.json")


def trace_path(path: str | os.PathLike) -> Path:
    """`FILE.trace.npz` beside the rows.

    >>> trace_path("rows.jsonl").name
    'rows.jsonl.trace.npz'
    """
    return Path(f"{path}.trace.npz")


def _read(path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as err:
        raise InputError(f"cannot read {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise InputError(
            f"{path} is not UTF-8 (byte offset {err.start}); rows are JSON Lines, as lmdyn measure"
            " writes them"
        ) from err


def _plain(value):
    """Numpy and JAX scalars, and arrays, as Python's own."""
    if hasattr(value, "tolist") and not isinstance(value, (str, bytes)):
        return value.tolist()
    return value
