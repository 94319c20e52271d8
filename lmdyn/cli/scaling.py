"""`lmdyn scaling`: a scaling law, from a table of runs."""

import dataclasses
import math
import time
from typing import Any

from lmdyn import records
from lmdyn.cli.common import at_least, say
from lmdyn.cli.options import Scaling
from lmdyn.errors import InputError
from lmdyn.files import check_writable


def scaling(options: Scaling, command: list[str]) -> None:
    """`lmdyn scaling`. Args: options: `lmdyn.cli.options.Scaling`. command: the words of the
    command line, for the record.
    """
    started = time.time()
    at_least(0, options, "seed")
    check_writable(options.out)
    import numpy as np

    from lmdyn.analysis import scaling_laws as laws
    from lmdyn.records import provenance

    runs = laws.read_runs(options.table)
    fitted = runs.parameters > options.above
    if not fitted.any():
        raise InputError(
            f"--above {options.above:g}: no run of {options.table} has more parameters; the largest"
            f" has {runs.parameters.max():g}"
        )
    law = laws.fit_scaling_law(*(column[fitted] for column in runs), seed=options.seed)
    between = {
        name: [low, high] for name, (low, high) in law.intervals().items() if math.isfinite(low)
    }
    about = {name: getattr(law, name) for name in "AabB"}
    rows = [
        records.row(
            options.table,
            "scaling_law",
            law.E,
            "nats",
            **about,
            intervals=between,
            runs=int(fitted.sum()),
        )
    ]
    name = lambda size: (
        f"{next(f'{size / unit:.3g}{letter}' for unit, letter in ((1e9, 'B'), (1e6, 'M'), (1, '')) if size >= unit or unit == 1)}"
        " parameters"
    )
    for size, tokens, loss, inside in zip(*runs, fitted, strict=True):
        predicted = float(law.predict(size, tokens))
        rows.append(
            records.row(
                name(size),
                "scaling_point",
                loss,
                "nats",
                name=name(size),
                parameters=size,
                trained=tokens,
                predicted=predicted,
                fitted=bool(inside),
            )
        )
    for size in np.unique(runs.parameters):
        last = max(np.flatnonzero(runs.parameters == size), key=lambda i: runs.tokens[i])
        found = law.residual(size, runs.tokens[last], runs.losses[last], seed=options.seed)
        ends: dict[str, Any] = (
            {"low": found.low, "high": found.high} if math.isfinite(found.low) else {}
        )
        rows.append(
            records.row(
                name(size),
                "scaling_residual",
                found.value,
                "share",
                name=name(size),
                parameters=size,
                trained=runs.tokens[last],
                fitted=bool(fitted[last]),
                **ends,
            )
        )
    meta = provenance.collect(command, dataclasses.asdict(options), started, 0, options.seed)
    study = {"study": "scaling law", "package": "lmdyn.report.scaling_law"}
    records.write_rows(options.out, rows, {**meta, **study})
    told = lambda key: (
        f" ({between[key][0]:.4g} to {between[key][1]:.4g})" if key in between else ""
    )
    for key in "EABab":
        print(f"{key} {getattr(law, key):12.5g}{told(key)}")
    for r in rows:
        if r["metric"] == "scaling_residual":
            about = f" ({r['low']:+.1%} to {r['high']:+.1%})" if "low" in r else ""
            print(
                f"{r['name']:24} ends {r['value']:+.1%}{about} from the"
                f" law{'' if r['fitted'] else ', which it is not part of'}"
            )
    say(f"wrote {len(rows)} rows to {options.out}; intervals are of 90%, from a bootstrap")
