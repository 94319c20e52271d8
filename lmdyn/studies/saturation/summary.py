"""The rows of the saturation study that are computed from others.

Saturation points, scaling laws, critical ranks, gains of other heads.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lmdyn import records
from lmdyn.analysis import curves
from lmdyn.analysis.scaling_laws import ScalingLaw, fit_scaling_law
from lmdyn.errors import InputError
from lmdyn.studies.claims import seeds_of, where
from lmdyn.studies.saturation.runs import RunCurves, alternatives, models, plain
from lmdyn.types import ArrayLike, Rows

FIT_STEPS = 8
"""This many steps of each wide run go into the scaling law."""
NEAR = 0.05
"""A loss of the law is the mean over the measurements within this share of its step: a wider mean
of a convex curve lies above it."""


def summary(rows: Rows, fit_from: float | None) -> list[dict]:
    """Rows of what is computed from others.

    `saturated` of each run, `scaling_law` of each seed with its `scaling_point`s,
    `scaling_residual` of each run, `critical_rank` of each seed, `head_gain` of each other kind
    of head.

    Args:
      rows: of the study.
      fit_from: the law takes wide runs from this share of their steps on; None fits none.

    Raises:
      InputError: the wide runs are too few for a law.
    """
    return [
        *_points(rows),
        *([] if fit_from is None else _laws(rows, fit_from)),
        *_critical(rows),
        *_gains(rows),
    ]


def _about(run: RunCurves) -> dict:
    fields = ("name", "seed", "width", "narrow", "parameters")
    return {"kind": "summary", **{field: getattr(run, field) for field in fields}}


def _points(rows) -> Iterator[dict]:
    for run in plain(rows):
        after = run.steps > 0
        if after.sum() < curves.LEAST_POINTS:
            continue
        point = curves.saturation_point(run.steps[after], run.nll[after])
        known: dict[str, Any] = {}
        if point is not None:
            known = {"at": point.step, "low": point.low, "high": point.high}
            known |= {"rise": point.rise, "p_value": point.p_value}
        yield records.row(
            "saturated", float(point is not None), "share", model=run.name, **_about(run), **known
        )


def _fit_places(run: RunCurves, fit_from: float) -> list[int]:
    """Places of the measurements that the law takes.

    Geometrically spaced from `fit_from` of the steps to the last.
    """
    last = float(run.steps[-1])
    wanted = np.geomspace(max(fit_from * last, 1), last, FIT_STEPS)
    places = sorted({int(np.abs(run.steps - step).argmin()) for step in wanted})
    return [place for place in places if run.trained[place] > 0]


def _laws(rows, fit_from) -> Iterator[dict]:
    for seed in sorted({run.seed for run in plain(rows)}):
        own = [run for run in plain(rows) if run.seed == seed and run.trained[-1] > 0]
        points = []
        for run in own:
            for place in _fit_places(run, fit_from):
                near = np.abs(run.steps - run.steps[place]) <= NEAR * run.steps[place]
                points.append((run, float(run.trained[near].mean()), float(run.nll[near].mean())))
        wide = [(run.parameters, trained, loss) for run, trained, loss in points if not run.narrow]
        if wide:
            law = fit_scaling_law(*np.array(wide).T, seed=seed)
            yield from _law_rows(law, seed, own, points)
        elif own:
            raise InputError(
                "no model is wider than the narrow ones; a law is fitted to the wide ones, so"
                " lower narrow="
            )


def _law_rows(
    law: ScalingLaw, seed: int, own: list[RunCurves], points: list[tuple]
) -> Iterator[dict]:
    """The rows of a seed's law, of its points (run, tokens, loss) and of each run's residual."""
    about = {name: getattr(law, name) for name in "ABab"}
    about["runs"] = len({run.width for run, *_ in points if not run.narrow})
    yield records.row(
        "scaling_law", law.E, "nats", model="wide models", kind="summary", seed=seed, **about
    )
    predicted = lambda run, trained: float(law.predict(run.parameters, trained))
    for run, trained, loss in points:
        more = {"predicted": predicted(run, trained), "fitted": not run.narrow, **_about(run)}
        yield records.row("scaling_point", loss, "nats", model=run.name, trained=trained, **more)
    for run in own:
        trained = float(run.trained[-run.last :].mean())
        beyond = law.residual(run.parameters, trained, run.end)
        ends = {} if not math.isfinite(beyond.low) else {"low": beyond.low, "high": beyond.high}
        more = {"loss": run.end, "fitted": not run.narrow, "predicted": predicted(run, trained)}
        more |= {**ends, **_about(run)}
        yield records.row("scaling_residual", beyond.value, "share", model=run.name, **more)


def critical_rank(ranks: ArrayLike, losses: ArrayLike, climb: float) -> float:
    """r*: where the loss, read from rank D downwards, has climbed by a share.

    Between two ranks, on their logarithms. The lowest rank if it never does.

    >>> round(
    ...     critical_rank([1, 2, 4, 8], [3.0, 2.0, 1.0, 1.0], 0.5), 3
    ... )  # 1.5 lies halfway between ranks 2 and 4
    2.828
    """
    order = np.argsort(ranks)
    ranks, losses = np.asarray(ranks, np.float64)[order], np.asarray(losses, np.float64)[order]
    limit = losses[-1] * (1 + climb)
    above = np.flatnonzero(losses > limit)
    if not len(above):
        return float(ranks[0])
    low = above[-1]
    share = (losses[low] - limit) / (losses[low] - losses[low + 1])
    return float(np.exp(np.log(ranks[low]) + share * (np.log(ranks[low + 1]) - np.log(ranks[low]))))


def _critical(rows) -> Iterator[dict]:
    for start in ("trained from there", "trained from random"):
        found = where(rows, "head_rank", start=start)
        for seed in seeds_of(found):
            own = where(found, "head_rank", seed=seed)
            one = own[0]
            value = critical_rank([r["rank"] for r in own], [r["value"] for r in own], one["climb"])
            about = {"kind": "summary", "seed": seed, "width": one["width"], "start": start}
            about["climb"] = one["climb"]
            yield records.row("critical_rank", value, "directions", model=one["model"], **about)


def _gains(rows) -> list[dict]:
    width = next((run.width for run in models(rows) if run.kind == "joint"), None)
    width = next((r["width"] for r in where(rows, "head_kind")), width)
    about = {"kind": "summary", "width": width}
    known = lambda gain: {k: v for k, v in gain.items() if k != "gain" and v is not None}
    return [
        records.row("head_gain", g["gain"], "nats", model=g["head"], **about, **known(g))
        for g in alternatives(rows)
    ]
