"""The numbers of the study of gradient localization that are made of rows.

Runs are compared at equal forgetting, and online adaptation at equal operations.

Shape letters: S seeds, F factors of the learning rate, L layers.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from lmdyn import records
from lmdyn.analysis.statistics import best_elsewhere
from lmdyn.studies.claims import seeds_of, where
from lmdyn.types import Rows


def methods(rows: Rows) -> list[str]:
    """Methods of continual pretraining, in their order."""
    return list(dict.fromkeys(r["method"] for r in rows if r["metric"] == "learned"))


def frontier(rows: Rows, seed: int, method: str, mode: str) -> list[tuple[float, float]]:
    """`[F + 1]` pairs (forgotten, learned) from a learning rate of 0 to the highest."""
    of = lambda metric: {
        r["factor"]: r["value"] for r in where(rows, metric, seed=seed, method=method, mode=mode)
    }
    forgotten, learned = of("forgotten"), of("learned")
    if not learned:
        raise ValueError(f"no runs of seed {seed}, method {method}, mode {mode}")
    return [(0.0, 0.0), *((forgotten[f], learned[f]) for f in sorted(learned))]


def most_learned(points: Sequence[tuple[float, float]], forgotten: float) -> float:
    """The most that is learned with no more forgetting than this.

    Between runs of neighbouring learning rates, on straight lines.

    Where every run forgets more, the one that forgets least counts.

    >>> [most_learned([(0, 0), (1, 2), (3, 3)], f) for f in (0.5, 1, 2, 9, -1)]
    [1.0, 2.0, 2.5, 3.0, 0.0]
    """
    found = [learned for f, learned in points if f <= forgotten]
    for (f0, l0), (f1, l1) in itertools.pairwise(points):
        if min(f0, f1) <= forgotten <= max(f0, f1) and f0 != f1:
            found.append(l0 + (forgotten - f0) / (f1 - f0) * (l1 - l0))
    return float(max(found)) if found else float(min(points)[1])


def advantage(rows: Rows, seed: int, method: str, mode: str, against: str) -> float:
    """How much more one mode learns than another at no more forgetting, nats.

    The mean over levels of forgetting: those of the unrestricted runs up to the one that learns
    most, but no more than both modes reach.
    """
    plain = frontier(rows, seed, method, "plain")
    best = max(range(len(plain)), key=lambda i: plain[i][1])
    one, other = (frontier(rows, seed, method, m) for m in (mode, against))
    reached = min(max(f for f, _ in points) for points in (one, other))
    limits = [min(f, reached) for f, _ in plain[1 : max(best, 1) + 1]]
    return float(np.mean([most_learned(one, f) - most_learned(other, f) for f in limits]))


def relative_norms(rows: Rows, kind: str) -> tuple[list[tuple[str, int]], np.ndarray]:
    """Places (site, layer), and `[S, places]` relative norms there."""
    found = where(rows, "relative_gradient_norm", kind=kind)
    places = sorted({(r["site"], r["layer"]) for r in found})
    value = {(r["seed"], r["site"], r["layer"]): r["value"] for r in found}
    return places, np.array([[value[seed, *place] for place in places] for seed in seeds_of(found)])


def online_nll(rows: Rows, mode: str, steps: int) -> np.ndarray:
    """`[S, rates]` nll of a stream, with this many steps per chunk."""
    found = where(rows, "online_nll", mode=mode, steps=steps)
    rates = sorted({r["rate"] for r in found})
    value = {(r["seed"], r["rate"]): r["value"] for r in found}
    return np.array([[value[seed, rate] for rate in rates] for seed in seeds_of(found)])


def online_best(rows: Rows, mode: str, steps: int) -> np.ndarray | None:
    """`[S]`: nll of each seed at the rate that is best in the other seeds; None for one seed."""
    best = best_elsewhere(-online_nll(rows, mode, steps))
    return None if best is None else -best


def online_flops(rows: Rows, mode: str, steps: int) -> np.ndarray:
    """`[S]` operations."""
    found = where(rows, "online_nll", mode=mode, steps=steps)
    return np.array(
        [next(r["flops"] for r in found if r["seed"] == seed) for seed in seeds_of(found)]
    )


def at_equal_flops(rows: Rows, mode: str) -> np.ndarray | None:
    """`[S]`: nll of a restricted adaptation at the operations that adapting everything takes.

    These are with one step per chunk; it is on the line between its own points with one step
    and with two.
    """
    points = [(online_flops(rows, mode, steps), online_best(rows, mode, steps)) for steps in (1, 2)]
    (f1, n1), (f2, n2) = points
    if n1 is None or n2 is None:
        return None
    share = np.clip(
        (online_flops(rows, "plain", 1) - f1) / (f2 - f1), 0, 1
    )  # two steps may cost less than adapting everything once
    return n1 + share * (n2 - n1)


def summary(rows: Rows) -> list[dict]:
    """Rows of what is computed from others.

    `advantage` over plain training by seed, method and mode; `online_at_best`, nll by mode and
    steps at the learning rate that is best in the other seeds.
    """
    found = []
    for seed in seeds_of(where(rows, "learned")):
        for method in methods(rows):
            modes = dict.fromkeys(r["mode"] for r in where(rows, "learned", method=method))
            for mode in modes:
                value = advantage(rows, seed, method, mode, "plain")
                about = {"seed": seed, "method": method, "mode": mode}
                found.append(records.row("advantage", value, "nats", model="runs", **about))
    online = where(rows, "online_nll")
    for mode in dict.fromkeys(r["mode"] for r in online):
        for steps in sorted({r["steps"] for r in online}):
            best, flops = online_best(rows, mode, steps), online_flops(rows, mode, steps)
            if best is not None:
                for seed, nll, cost in zip(seeds_of(online), best, flops, strict=True):
                    about = {"seed": seed, "mode": mode, "steps": steps, "flops": float(cost)}
                    found.append(
                        records.row("online_at_best", nll, "nats", model="stream", **about)
                    )
    return found
