"""The runs of the saturation study as curves, and what late rises and other heads come to.

Shape letters: S seeds, n measurements of a run, L layers.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lmdyn.studies.claims import where
from lmdyn.types import ArrayLike, Row, Rows

LATE = 0.1
"""The end of a run is the mean over this share of its measurements."""


class RunCurves(NamedTuple):
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


def models(rows: Rows) -> list[RunCurves]:
    """The runs of the ladder, or the given series, by seed and width; then other heads."""
    groups: dict[tuple, list[Row]] = {}
    for r in rows:
        if r.get("kind") in ("ladder", "joint", "given") and "run" in r:
            groups.setdefault((r["seed"], r["run"]), []).append(r)
    found = []
    for own in groups.values():
        one = own[0]
        steps = sorted({r["step"] for r in own if r["metric"] == "nll"})

        def by(metric, read=lambda r: r["value"], own=own, steps=steps, **wanted):
            known = {r["step"]: read(r) for r in where(own, metric, **wanted)}
            return np.array([known.get(step, math.nan) for step in steps], np.float64)

        layers = sorted({r["layer"] for r in where(own, "anisotropy", site="residual")})
        depths = [by("anisotropy", site="residual", layer=layer) for layer in layers]
        about = ("seed", "name", "width", "narrow", "head", "kind", "parameters")
        found.append(
            RunCurves(
                **{field: one[field] for field in about},
                steps=np.array(steps),
                trained=by("nll", lambda r: r["trained"]),
                nll=by("nll"),
                anisotropy=np.stack(depths, 1) if depths else np.zeros([len(steps), 0]),
                final=by("anisotropy", site="final"),
                entropy=by(
                    "head_spectrum", lambda r: r["value"] / math.log(max(2, r["directions"]))
                ),
            )
        )
    order = {"ladder": 0, "given": 0, "joint": 1}
    return sorted(found, key=lambda run: (order[run.kind], run.seed, run.width, run.name, run.head))


def plain(rows: Rows) -> list[RunCurves]:
    """Those with a full head, which the ladder and the law are about."""
    return [run for run in models(rows) if run.kind != "joint"]


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Moving average over every full window, along the last axis."""
    sums = np.cumsum(np.concatenate([np.zeros_like(values[..., :1]), values], -1), -1)
    return (sums[..., window:] - sums[..., :-window]) / window


def since_elsewhere(values: ArrayLike, pick: Callable = np.argmin) -> np.ndarray | None:
    """`[S]`: how far each seed's curve ends above where the *other* seeds' mean is lowest.

    None for one seed.

    Curves are smoothed over a tenth, and the place is looked for before the last tenth. A minimum
    that is looked for in the curve itself would lie below its end whatever the curve is.

    Args:
      values: `[S, n]`.
      pick: `np.argmin` or `np.argmax`.

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
    """How much a curve `[n]` rises over its second half.

    Its last tenth less the tenth at its middle.
    """
    window = max(1, round(LATE * len(values)))
    middle = (len(values) - window) // 2
    return float(values[-window:].mean() - values[middle : middle + window].mean())


def by_seed(runs: list[RunCurves], measure: Callable[[RunCurves], float]) -> np.ndarray:
    """`[S]`: the mean over runs of one seed."""
    seeds = sorted({run.seed for run in runs})
    return np.array([np.mean([measure(run) for run in runs if run.seed == seed]) for seed in seeds])


def aligned(
    runs: list[RunCurves], read: Callable[[RunCurves], np.ndarray], measure: Callable
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
    """`[S]`: how far singular entropy falls from its first peak to its lowest.

    Curves are `[S, n]`; peak and lowest are placed by the other seeds.
    """
    if len(values) < 2:
        return None
    others = (values.sum(0) - values) / (len(values) - 1)
    found = []
    for own, other in zip(values, others, strict=True):
        peak = int(other[: max(1, len(other) // 4)].argmax())
        found.append(own[peak] - own[peak + int(other[peak:].argmin())])
    return np.array(found)


def alternatives(rows: Rows) -> list[dict]:
    """What each other head gains on a full one, a dict for each kind, seed and way.

    `head`, `seed`, `way` (`joint`, `frozen`), `gain` (nats), `size` (its numbers as a multiple
    of the full head's), and, jointly, `share` of the gap to the next wider model.
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
        about = {"head": run.head, "seed": run.seed, "way": "joint", "gain": gain}
        found.append({**about, "size": size, "share": gain / gap if gap else None})
    for r in where(rows, "head_kind"):
        if r["head"] != "full":
            full = where(rows, "head_kind", seed=r["seed"], head="full")[0]["value"]
            about = {"head": r["head"], "seed": r["seed"], "way": "frozen"}
            found.append({**about, "gain": full - r["value"], "size": r["size"], "share": None})
    return found


def _vocab(rows, run: RunCurves) -> int | None:
    """V, from the numbers of a full head on a body of this width."""
    full = where(rows, "head_kind", head="full")
    return full[0]["numbers"] // full[0]["width"] if full else None
