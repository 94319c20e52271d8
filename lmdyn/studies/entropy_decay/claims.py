"""From the rows of the entropy-decay study to its claims."""

import dataclasses
import functools

import numpy as np

from lmdyn.analysis.statistics import Interval, interval
from lmdyn.studies.claims import Claim, claim, differs, where
from lmdyn.types import Rows


def claims(rows: Rows) -> list[Claim]:
    """The paper's first sentence, and one sentence a factor."""
    make = functools.partial(claim, unit="share")
    runs = where(rows, "entropy_change")
    change = np.array([r["value"] for r in runs])
    falling = int((change < 0).sum())
    over = "mean over runs of the change of H / log F over the second half of training"
    found = [
        make(
            "entropy-decays",
            "Knowledge entropy decays during pretraining.",
            interval(-change),
            f"The negative of the {over}; it fell in {falling} of {len(change)} runs, and nll fell"
            f" in {sum(r['nll_change'] < 0 for r in runs)}.",
            figure="curves",
            source="Kim et al. 2024",
        ),
        make(
            "entropy-dips",
            "Knowledge entropy first drops, in the first half of training, below where it began.",
            interval([r["dip"] for r in runs]),
            "Mean over runs of the fall of H / log F from step 0 to its lowest.",
            figure="curves",
        ),
    ]
    for r in where(rows, "effect", of="change"):
        effect = Interval(r["value"], r["low"], r["high"], len(change))
        one = make(
            f"decay-{r['factor'].replace(' ', '-')}",
            f"Whether entropy falls or rises later on depends on: {r['factor']}.",
            effect,
            f"Change of H / log F over the second half of training, {r['factor']}"
            f" {r['high_level']} less {r['low_level']}, over {len(change)} runs.",
            figure="effects",
        )
        found.append(dataclasses.replace(one, verdict=differs(effect)))
    return found
