"""From the rows of the fact-learning study to its claims."""

import functools

import numpy as np

from lmdyn.analysis.statistics import Interval, bootstrap
from lmdyn.studies.claims import Claim, claim, where
from lmdyn.types import Rows

SOURCE = "Chang et al. 2024"


def claims(rows: Rows) -> list[Claim]:
    """That facts are learnt, and words better than what follows from them."""
    make = functools.partial(claim, source=SOURCE, unit="nats", figure="learning")
    found, depths = [], set()
    how = "Rise of the span's log-probability, mean over probes; interval over facts."
    for r in where(rows, "acquisition"):
        if (depth := r["depth"]) is not None:
            depths.add(depth)
            value = Interval(r["value"], r["low"], r["high"], r["tokens"])
            text = f"Injected facts are learnt: {depth}."
            found.append(make(f"learnt-{depth}", text, value, how=how))
    gains = {(r["depth"], r["fact"]): r["value"] for r in where(rows, "fact_gain")}
    if {"memorisation", "composition"} <= depths:
        facts = sorted({fact for _, fact in gains})
        of = lambda depth: np.array([gains.get((depth, fact), np.nan) for fact in facts])
        more = of("memorisation") - of("composition")
        found.append(
            make(
                "words-before-meaning",
                "The words of injected facts are learnt better than what follows from them.",
                bootstrap(more[np.isfinite(more)]),
                how="Rise for memorisation less that for composition, mean over facts; interval"
                " over facts.",
            )
        )
    return found
