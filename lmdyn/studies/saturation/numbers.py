"""The numbers of the saturation study that are made of rows: runs as curves, laws, ranks, what late
rises and other heads come to.

Shape letters: S seeds, n measurements of a run, L layers.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lmdyn import records
from lmdyn.analysis import curves
from lmdyn.analysis import scaling_laws as scaling
from lmdyn.analysis.statistics import Interval, interval
from lmdyn.errors import InputError
from lmdyn.types import ArrayLike, Row

MOMENTS = 8
"""Of each wide run, so many moments go into the scaling law."""
NEAR = 0.05
"""A loss of the law is the mean over the measurements within this share of its step: a wider mean of a convex curve lies above it."""
LATE = 0.1
"""The end of a run is the mean over this share of its measurements."""


class Run(NamedTuple):
    """One model's measurements; arrays `[n]` by step, but for `anisotropy` `[n, L + 1]`."""

    seed: int
    name: str
    width: int
    narrow: bool
    head: str
    kind: str
    parameters: int
    steps: np.ndarray
    trained: np.ndarray
    nll: np.ndarray
    anisotropy: np.ndarray
    final: np.ndarray
    entropy: np.ndarray
    """Of the head's singular values, as a share of log D: widths compare."""

    @property
    def last(self) -> int:
        """How many measurements its end is the mean of."""
        return max(1, round(LATE * len(self.steps)))

    @property
    def end(self) -> float:
        """Nll at the end: the mean over the last tenth."""
        return float(self.nll[-self.last :].mean())


def models(rows: Sequence[Row]) -> list[Run]:
    """The runs of the ladder, or the given series, by seed and width; then those with other heads."""
    groups: dict[tuple, list[Row]] = {}
    for r in rows:
        if r.get("kind") in ("ladder", "joint", "given") and "run" in r:
            groups.setdefault((r["seed"], r["run"]), []).append(r)
    found = []
    for own in groups.values():
        one = own[0]
        steps = sorted({r["step"] for r in own if r["metric"] == "nll"})

        def by(metric, *places, own=own, steps=steps, **wanted):
            known = {
                r["step"]: r
                for r in own
                if r["metric"] == metric and all(r.get(k) == v for k, v in wanted.items())
            }
            read = places[0] if places else lambda r: r["value"]
            return np.array(
                [read(known[step]) if step in known else math.nan for step in steps], np.float64
            )

        layers = sorted(
            {r["layer"] for r in own if r["metric"] == "anisotropy" and r["layer"] is not None}
        )
        depths = [by("anisotropy", site="residual", layer=layer) for layer in layers]
        found.append(
            Run(
                one["seed"],
                one["name"],
                one["width"],
                one["narrow"],
                one["head"],
                one["kind"],
                one["parameters"],
                np.array(steps),
                by("nll", lambda r: r["trained"]),
                by("nll"),
                np.stack(depths, 1) if depths else np.zeros([len(steps), 0]),
                by("anisotropy", site="final"),
                by("head_spectrum", lambda r: r["value"] / math.log(max(2, r["directions"]))),
            )
        )
    order = {"ladder": 0, "given": 0, "joint": 1}
    return sorted(found, key=lambda run: (order[run.kind], run.seed, run.width, run.name, run.head))


def plain(rows: Sequence[Row]) -> list[Run]:
    """Those with a full head, which the ladder and the law are about."""
    return [run for run in models(rows) if run.kind != "joint"]


def summary(rows: Sequence[Row], fit_from: float | None) -> list[dict]:
    """Rows of what is computed from others: `saturation_point` of the runs that have one,
    `scaling_law` of each seed with its `scaling_point`s, `scaling_residual` of each run,
    `critical_rank` of each seed, `head_gain` of each other kind of head.

    Args:
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


def _about(run: Run) -> dict:
    return {
        "kind": "summary",
        "name": run.name,
        "seed": run.seed,
        "width": run.width,
        "narrow": run.narrow,
        "parameters": run.parameters,
    }


def _points(rows) -> list[dict]:
    found = []
    for run in plain(rows):
        after = run.steps > 0
        if after.sum() < curves.LEAST_POINTS:
            continue
        point = curves.saturation_point(run.steps[after], run.nll[after])
        known: dict[str, Any] = (
            {}
            if point is None
            else {
                "at": point.step,
                "low": point.low,
                "high": point.high,
                "rise": point.rise,
                "p_value": point.p_value,
            }
        )
        found.append(
            records.row(
                run.name, "saturated", float(point is not None), "share", **_about(run), **known
            )
        )
    return found


def _moments(run: Run, fit_from: float) -> list[int]:
    """Places of the measurements that the law takes: geometrically spaced from `fit_from` of the
    steps to the last.
    """
    last = float(run.steps[-1])
    wanted = np.geomspace(max(fit_from * last, 1), last, MOMENTS)
    places = sorted({int(np.abs(run.steps - step).argmin()) for step in wanted})
    return [place for place in places if run.trained[place] > 0]


def _laws(rows, fit_from) -> list[dict]:
    found = []
    for seed in sorted({run.seed for run in plain(rows)}):
        own = [run for run in plain(rows) if run.seed == seed and run.trained[-1] > 0]
        points = []
        for run in own:
            for place in _moments(run, fit_from):
                near = np.abs(run.steps - run.steps[place]) <= NEAR * run.steps[place]
                points.append((run, float(run.trained[near].mean()), float(run.nll[near].mean())))
        wide = [(run.parameters, trained, loss) for run, trained, loss in points if not run.narrow]
        if not wide:
            if own:
                raise InputError(
                    "no model is wider than the narrow ones; a law is fitted to the wide ones, so"
                    " lower narrow="
                )
            continue
        law = scaling.fit_scaling_law(*np.array(wide).T, seed=seed)
        about = {
            "A": law.A,
            "B": law.B,
            "a": law.a,
            "b": law.b,
            "runs": len({run.width for run, *_ in points if not run.narrow}),
        }
        found.append(
            records.row(
                "wide models", "scaling_law", law.E, "nats", kind="summary", seed=seed, **about
            )
        )
        for run, trained, loss in points:
            predicted = float(law.predict(run.parameters, trained))
            found.append(
                records.row(
                    run.name,
                    "scaling_point",
                    loss,
                    "nats",
                    trained=trained,
                    predicted=predicted,
                    fitted=not run.narrow,
                    **_about(run),
                )
            )
        for run in own:
            trained = float(run.trained[-run.last :].mean())
            beyond = law.residual(run.parameters, trained, run.end)
            ends = {} if not math.isfinite(beyond.low) else {"low": beyond.low, "high": beyond.high}
            found.append(
                records.row(
                    run.name,
                    "scaling_residual",
                    beyond.value,
                    "share",
                    loss=run.end,
                    fitted=not run.narrow,
                    predicted=float(law.predict(run.parameters, trained)),
                    **ends,
                    **_about(run),
                )
            )
    return found


def critical_rank(ranks: ArrayLike, losses: ArrayLike, climb: float) -> float:
    """r*: where the loss, read from rank D downwards, has climbed by a share; between two ranks, on
    their logarithms. The lowest rank if it never does.

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


def _ladders(rows, start: str) -> dict[int, list[dict]]:
    """Rows of head ranks by seed."""
    found: dict[int, list[dict]] = {}
    for r in rows:
        if r["metric"] == "head_rank" and r["start"] == start:
            found.setdefault(r["seed"], []).append(r)
    return found


def _critical(rows) -> list[dict]:
    found = []
    for start in ("trained from there", "trained from random"):
        for seed, own in sorted(_ladders(rows, start).items()):
            one = own[0]
            value = critical_rank([r["rank"] for r in own], [r["value"] for r in own], one["climb"])
            found.append(
                records.row(
                    one["model"],
                    "critical_rank",
                    value,
                    "directions",
                    kind="summary",
                    seed=seed,
                    width=one["width"],
                    start=start,
                    climb=one["climb"],
                )
            )
    return found


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Moving average over every full window, along the last axis."""
    sums = np.cumsum(np.concatenate([np.zeros_like(values[..., :1]), values], -1), -1)
    return (sums[..., window:] - sums[..., :-window]) / window


def since_elsewhere(values: ArrayLike, pick: Callable = np.argmin) -> np.ndarray | None:
    """`[S]`: how far each seed's curve lies, at its end, above where the *other* seeds' mean curve
    is lowest; None for one seed.

    Curves are smoothed over a tenth, and the place is looked for before the last tenth. A minimum
    that is looked for in the curve itself would lie below its end whatever the curve is.

    Args:
      values: `[S, n]`. pick: `np.argmin` or `np.argmax`.

    >>> falling = np.linspace(2.0, 1.0, 40)
    >>> since_elsewhere(np.stack([falling, falling])).round(
    ...     2
    ... ).tolist()  # it falls to the end: below 0
    [-0.1, -0.1]
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return None
    window = max(1, round(LATE * values.shape[1]))
    averages = smooth(values, window)
    before = averages[:, : max(1, averages.shape[1] - window)]
    others = (before.sum(0) - before) / (len(values) - 1)
    return averages[:, -1] - before[np.arange(len(values)), pick(others, axis=1)]


def change(values: np.ndarray) -> float:
    """How much a curve `[n]` rises over its second half: its last tenth less the tenth at its
    middle.
    """
    window = max(1, round(LATE * len(values)))
    middle = (len(values) - window) // 2
    return float(values[-window:].mean() - values[middle : middle + window].mean())


def by_seed(runs: list[Run], measure: Callable[[Run], float]) -> np.ndarray:
    """`[S]`: the mean over runs of one seed."""
    seeds = sorted({run.seed for run in runs})
    return np.array([np.mean([measure(run) for run in runs if run.seed == seed]) for seed in seeds])


def spread(values: np.ndarray | None) -> Interval | None:
    """The interval over seeds; None where there is nothing, or a number that is not finite."""
    return (
        None
        if values is None or not len(values) or not np.isfinite(values).all()
        else interval(values)
    )


def aligned(
    runs: list[Run], read: Callable[[Run], np.ndarray], measure: Callable
) -> np.ndarray | None:
    """`[S]`: `measure` of the curves `[S, n]` of each width, averaged over widths."""
    found = []
    for width in sorted({run.width for run in runs}):
        own = [read(run) for run in runs if run.width == width]
        if len({len(curve) for curve in own}) > 1 or (value := measure(np.stack(own))) is None:
            return None
        found.append(value)
    return np.mean(found, axis=0) if found else None


def flattening(values: np.ndarray) -> np.ndarray | None:
    """`[S]`: how far curves `[S, n]` of singular entropy fall from their first peak to their
    lowest, both placed by the other seeds.
    """
    if len(values) < 2:
        return None
    others = (values.sum(0) - values) / (len(values) - 1)
    found = []
    for own, other in zip(values, others, strict=True):
        peak = int(other[: max(1, len(other) // 4)].argmax())
        found.append(own[peak] - own[peak + int(other[peak:].argmin())])
    return np.array(found)


def alternatives(rows: Sequence[Row]) -> list[dict]:
    """What each other head gains on a full one, a dict for each kind, seed and way (`joint`,
    `frozen`): `head`, `seed`, `way`, `gain` (nats), `size` (its numbers as a multiple of the full
    head's), and, jointly, `share` of the gap to the next wider model.
    """
    found, runs = [], models(rows)
    for run in runs:
        if run.kind != "joint":
            continue
        same = [r for r in runs if r.kind == "ladder" and r.seed == run.seed]
        full = next(r for r in same if r.width == run.width)
        wider = min((r for r in same if r.width > run.width), key=lambda r: r.width, default=None)
        # Everything but the head is the same, so the difference of N is that of heads.
        vocab = _vocab(rows, run)
        size = 1 + (run.parameters - full.parameters) / (run.width * vocab) if vocab else None
        gap = None if wider is None else full.end - wider.end
        gain = full.end - run.end
        found.append(
            {
                "head": run.head,
                "seed": run.seed,
                "way": "joint",
                "gain": gain,
                "size": size,
                "share": gain / gap if gap else None,
            }
        )
    own = [r for r in rows if r["metric"] == "head_kind"]
    for r in own:
        if r["head"] != "full":
            full = next(f["value"] for f in own if f["seed"] == r["seed"] and f["head"] == "full")
            found.append(
                {
                    "head": r["head"],
                    "seed": r["seed"],
                    "way": "frozen",
                    "gain": full - r["value"],
                    "size": r["size"],
                    "share": None,
                }
            )
    return found


def _gains(rows) -> list[dict]:
    width = next((run.width for run in models(rows) if run.kind == "joint"), None)
    width = next((r["width"] for r in rows if r["metric"] == "head_kind"), width)
    return [
        records.row(
            g["head"],
            "head_gain",
            g["gain"],
            "nats",
            kind="summary",
            width=width,
            **{k: v for k, v in g.items() if k != "gain" and v is not None},
        )
        for g in alternatives(rows)
    ]


def _vocab(rows, run: Run) -> int | None:
    """V, from the numbers of a full head on a body of this width."""
    return next(
        (
            r["numbers"] // r["width"]
            for r in rows
            if r["metric"] == "head_kind" and r["head"] == "full"
        ),
        None,
    )
