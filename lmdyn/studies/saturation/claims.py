"""From the rows of the saturation study to its claims.

Every number here is made of rows, so it can be made again from them.

Shape letters: S seeds, n measurements of a run.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np

from lmdyn.analysis import curves
from lmdyn.analysis.statistics import interval
from lmdyn.studies.claims import OURS, Claim, claim, judge, over_seeds, seeds_of, where
from lmdyn.studies.saturation.runs import (
    RunCurves,
    aligned,
    alternatives,
    by_seed,
    change,
    flattening,
    plain,
    since_elsewhere,
)
from lmdyn.types import Rows

SOURCE = "Godey et al. 2024"
_claim = functools.partial(claim, source=SOURCE)


def claims(rows: Rows) -> list[Claim]:
    """What the study ends in."""
    return [
        *_saturation(rows),
        *_spectra(rows),
        *_ranks(rows),
        *_targets(rows),
        *_alternatives(rows),
    ]


def _names(runs) -> str:
    return ", ".join(dict.fromkeys(run.name for run in sorted(runs, key=lambda run: run.width)))


def _sides(rows) -> tuple[list[RunCurves], list[RunCurves]]:
    runs = plain(rows)
    return [run for run in runs if run.narrow], [run for run in runs if not run.narrow]


def _saturation(rows) -> Iterator[Claim]:
    make = functools.partial(_claim, figure="losses")
    narrow, wide = _sides(rows)
    if not narrow:
        return
    over = f"Mean over the narrow models ({_names(narrow)})"
    residuals = where(rows, "scaling_residual", narrow=True)
    if residuals:
        own = [[r["value"] for r in residuals if r["seed"] == seed] for seed in seeds_of(residuals)]
        yield make(
            "above-law",
            "Narrow models end above what the scaling law of the wide ones predicts.",
            interval([np.mean(values) for values in own]),
            f"{over} of their final loss over the law's prediction, less 1.",
            "share",
        )
    points = where(rows, "saturated")
    detected = {side: [r["value"] for r in points if r["narrow"] == side] for side in (True, False)}
    seen = (
        f" The detector finds a point in {sum(detected[True]):.0f} of {len(detected[True])} narrow"
        f" runs and {sum(detected[False]):.0f} of {len(detected[False])} wide ones."
    )
    if len(narrow[0].steps) >= curves.LEAST_POINTS:
        up = aligned(narrow, lambda run: run.nll[run.steps > 0], since_elsewhere)
        yield make(
            "turns-up",
            "The loss of narrow models turns up late in training.",
            over_seeds(up),
            f"{over}: smoothed held-out loss at the end, less where it is lowest in the other"
            f" seeds, before the last tenth.{seen}",
            "nats",
        )
    yield from _anisotropy(narrow, wide)


def _anisotropy(narrow: list[RunCurves], wide: list[RunCurves]) -> Iterator[Claim]:
    make = functools.partial(_claim, unit="cosine", figure="anisotropy")
    over = f"Mean over the narrow models ({_names(narrow)})"
    last = lambda run: run.anisotropy[:, -1]
    for name, place, read in (
        ("last-layer", "of the last layer", last),
        ("final", "after the last norm, which the head reads", lambda run: run.final),
    ):
        if len(narrow[0].steps) < 2:
            continue
        rise = by_seed(narrow, lambda run, read=read: change(read(run)))
        yield make(
            f"anisotropy-{name}",
            f"In narrow models the anisotropy {place} rises late in training.",
            over_seeds(rise),
            f"{over} of the change over the second half of training.",
        )
        if wide:
            more = rise - by_seed(wide, lambda run, read=read: change(read(run)))
            yield make(
                f"anisotropy-{name}-more",
                f"The anisotropy {place} rises more in narrow models than in wide ones.",
                over_seeds(more),
                f"That change, narrow models less wide ones ({_names(wide)}).",
            )


def _spectra(rows) -> Iterator[Claim]:
    make = functools.partial(_claim, unit="share", figure="singular-entropy")
    narrow, wide = _sides(rows)
    if not narrow or len(narrow[0].steps) < curves.LEAST_POINTS:
        return
    read = lambda run: run.entropy[run.steps > 0]
    over = "Singular entropy of the head as a share of log D, mean over narrow models"
    collapse = aligned(narrow, read, since_elsewhere)
    yield make(
        "spectrum-flattens",
        "At first the head's spectrum flattens in narrow models.",
        over_seeds(aligned(narrow, read, flattening)),
        f"{over}: from its peak in the first quarter down to its lowest, both placed by the"
        " other seeds.",
    )
    yield make(
        "spectrum-collapses",
        "Later it collapses onto few directions.",
        over_seeds(collapse),
        f"{over}: at the end, less where it is lowest in the other seeds.",
    )
    elsewhere = aligned(wide, read, since_elsewhere) if wide else None
    if collapse is not None and elsewhere is not None:
        yield make(
            "spectrum-collapses-more",
            "It collapses in narrow models more than in wide ones.",
            over_seeds(collapse - elsewhere),
            "That collapse, narrow models less wide ones.",
        )


def _ranks(rows) -> Iterator[Claim]:
    make = functools.partial(_claim, unit="directions", figure="ranks")
    for start, id, from_, source in (
        ("trained from there", "rank", "the truncated head", SOURCE),
        ("trained from random", "rank-scratch", "random parameters", OURS),
    ):
        own = where(rows, "critical_rank", start=start)
        if not own:
            continue
        width, climb = own[0]["width"], own[0]["climb"]
        made = make(
            id,
            "Loss climbs when the rank of the head falls below some r*, less than the"
            f" width of {width} (heads trained from {from_}).",
            interval([r["value"] for r in own]),
            f"r*: the rank below which loss is more than {climb:.0%} above that of rank"
            f" {width}, on the frozen body of the widest model; between two ranks of the"
            " ladder on their logarithms. Supported where it is below the width.",
            source=source,
        )
        slack = interval([r["width"] - r["value"] for r in own])
        yield dataclasses.replace(made, verdict=judge(slack))
        narrow, _ = _sides(rows)
        if narrow and start == "trained from there":
            most = max(run.width for run in narrow)
            yield make(
                "narrower-than-rank",
                "Narrow models have fewer directions than r*.",
                interval([r["value"] - most for r in own]),
                f"r*, less the width of {most} of the widest narrow model.",
            )


def _targets(rows) -> Iterator[Claim]:
    make = functools.partial(_claim, unit="directions")
    for context in sorted({r["context"] for r in where(rows, "target_rank")}):
        own = where(rows, "target_rank", context=context)
        of = f"next-token distributions after {context} token{'s' * (context > 1)}"
        whole = max(r["share"] for r in own)
        needed = {r["seed"]: r["value"] for r in own if r["share"] == whole}
        error, narrow = own[0]["error"], _sides(rows)[0]
        if narrow and needed:
            most = max(run.width for run in narrow)
            yield make(
                f"target-{context}",
                f"The {of} need more directions than narrow models have.",
                interval([value - most for value in needed.values()]),
                f"Directions of the best approximation with a relative error of {error:g}, each"
                f" position of the text counted once, less {most}; all of the text, so the same"
                " for every seed.",
                figure="target",
            )
        at_half = [r for r in own if math.isclose(r["share"], whole / 2, rel_tol=0.01)]
        half = {r["seed"]: r["value"] for r in at_half}
        both = sorted(needed.keys() & half.keys())
        if both:
            more = ""
            if effective := where(rows, "target_effective_rank", context=context, share=whole):
                rank = effective[-1]["value"]
                more = f" The effective rank of the whole text is {rank:.0f}."
            yield make(
                f"target-grows-{context}",
                f"The directions that the {of} need still grow with the text.",
                interval([needed[seed] - half[seed] for seed in both]),
                f"Directions for a relative error of {error:g}: the whole text less half of it,"
                f" documents drawn by seed.{more}",
                figure="target-growth",
                source=OURS,
            )


def _alternatives(rows) -> Iterator[Claim]:
    gained = alternatives(rows)
    for way, said in (
        ("joint", "trained with a narrow model from its first step"),
        ("frozen", "trained on the frozen body of a narrow model"),
    ):
        for head in dict.fromkeys(g["head"] for g in gained if g["way"] == way):
            own = [g for g in gained if g["way"] == way and g["head"] == head]
            times, size, more = own[0]["size"], "", ""
            if times:
                size = f", with {times:.2f} times the numbers of a full head"
            if shares := [g["share"] for g in own if g["share"] is not None]:
                more = f" That is {np.mean(shares):.0%} of the gap to the next wider model."
            yield _claim(
                f"{head.replace(':', '')}-{way}",
                f"A head of kind {head}, {said}{size}, recovers some of the loss.",
                interval([g["gain"] for g in own]),
                f"Held-out loss with a full head less that with {head}.{more}",
                "nats",
                "alternatives",
                source=OURS,
            )
