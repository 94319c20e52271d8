"""From the rows of the study of gradient localization to its claims. Every number here is made of
rows, so it can be made again from them.

Shape letters: S seeds, F factors of the rate, L layers.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from lmdyn import records
from lmdyn.analysis.statistics import Interval, interval
from lmdyn.studies.claims import Claim, claim
from lmdyn.studies.knowledge_entropy.claims import best_elsewhere, seeds
from lmdyn.types import Row

STUDY, SOURCE, OURS = "gradient localization", "Fernandez et al. 2024", "lmdyn"
ALPHA = 0.05
KINDS = ("updated", "new")
HOW = (
    "Nats of log-probability, mean of updated and new spans, at no more forgetting; mean over the"
    " levels that runs of rising rates reach"
)


def table(rows: Sequence[Row], metric: str, **wanted: Any) -> list[Row]:
    """The rows of a metric with these fields."""
    return [
        r for r in rows if r["metric"] == metric and all(r.get(k) == v for k, v in wanted.items())
    ]


def methods(rows: Sequence[Row]) -> list[str]:
    """Methods of continual pretraining, in their order."""
    return list(dict.fromkeys(r["method"] for r in rows if r["metric"] == "learned"))


def frontier(rows: Sequence[Row], seed: int, method: str, mode: str) -> list[tuple[float, float]]:
    """`[F + 1]` pairs (forgotten, learned) from a rate of 0, where both are 0, to the highest."""
    of = lambda metric: {
        r["factor"]: r["value"] for r in table(rows, metric, seed=seed, method=method, mode=mode)
    }
    forgotten, learned = of("forgotten"), of("learned")
    if not learned:
        raise ValueError(f"no runs of seed {seed}, method {method}, mode {mode}")
    return [(0.0, 0.0), *((forgotten[f], learned[f]) for f in sorted(learned))]


def most_learned(points: Sequence[tuple[float, float]], forgotten: float) -> float:
    """The most that is learned with no more forgetting than this, on the straight lines between
    runs of neighbouring rates.

    Where every run forgets more, the one that forgets least counts.

    >>> [most_learned([(0, 0), (1, 2), (3, 3)], f) for f in (0.5, 1, 2, 9, -1)]
    [1.0, 2.0, 2.5, 3.0, 0.0]
    """
    found = [learned for f, learned in points if f <= forgotten]
    for (f0, l0), (f1, l1) in itertools.pairwise(points):
        if min(f0, f1) <= forgotten <= max(f0, f1) and f0 != f1:
            found.append(l0 + (forgotten - f0) / (f1 - f0) * (l1 - l0))
    return float(max(found)) if found else float(min(points)[1])


def advantage(rows: Sequence[Row], seed: int, method: str, mode: str, against: str) -> float:
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


def relative_norms(rows: Sequence[Row], kind: str) -> tuple[list[tuple[str, int]], np.ndarray]:
    """Places (site, layer), and `[S, places]` relative norms there."""
    found = table(rows, "relative_gradient_norm", kind=kind)
    places = sorted({(r["site"], r["layer"]) for r in found})
    value = {(r["seed"], r["site"], r["layer"]): r["value"] for r in found}
    return places, np.array([[value[seed, *place] for place in places] for seed in seeds(found)])


def claims(rows: Sequence[Row]) -> list[Claim]:
    """What the study ends in: the paper's sentences, and what is beyond it."""
    make = lambda *args, source=SOURCE, **more: claim(STUDY, source, *args, **more)
    return [
        *_profile(rows, make),
        *_training(rows, make),
        *_running(rows, make),
        *_online(rows, make),
    ]


def _profile(rows, make) -> list[Claim]:
    found = []
    for kind in KINDS:
        places, r = relative_norms(rows, kind)
        above = [
            f"{site} {layer}"
            for (site, layer), values in zip(places, r.T, strict=True)
            if (values > 1).all()
        ]
        told = f"Above 1 in all {len(r)} seeds: {', '.join(above) or 'nowhere'}."
        most, least = best_elsewhere(r), best_elsewhere(-r)
        found += [
            make(
                f"{kind}-exceeds",
                f"The gradients of {kind} facts' spans exceed those of random spans in some"
                " layers.",
                None if most is None else interval(most),
                "ratio",
                "profile",
                f"Relative norm where it is largest in the other seeds. {told}",
                above=1.0,
            ),
            make(
                f"{kind}-subset",
                f"And only in some: elsewhere the gradients of {kind} facts' spans are smaller than"
                " those of random spans.",
                None if least is None else interval(1 + least),
                "below 1",
                "profile",
                f"1 less the relative norm where it is smallest in the other seeds. {told}",
            ),
        ]
    tests = table(rows, "profile_difference", site=None)
    _, p = map(float, stats.combine_pvalues([r["p"] for r in tests]))
    told = ", ".join(f"{r['p']:.2g}" for r in tests)
    asked = (
        "on attributes that both kinds have"
        if all(r["matched"] for r in tests)
        else "of kinds that are asked for different attributes"
    )
    one = make(
        "kinds-differ",
        "Updated and new facts light up different layers.",
        interval([r["value"] for r in tests]),
        "log share",
        "profile",
        "Root mean square, over groups and layers, of the difference of mean log shares of the"
        f" gradient. Permutation tests over entities, {asked}: p = {told}; together {p:.2g}"
        " (Fisher), which gives the verdict.",
    )
    return [*found, dataclasses.replace(one, verdict="supported" if p < ALPHA else "undecided")]


def _over(rows, method: str, mode: str, against: str) -> Interval:
    return interval(
        [advantage(rows, seed, method, mode, against) for seed in seeds(table(rows, "learned"))]
    )


def _training(rows, make) -> list[Claim]:
    found = []
    words = {
        "freeze": "updating only the layers with large relative gradients",
        "scale": "scaling layers' rates by relative gradients",
    }
    controls = {
        "random": "as many layers chosen at random",
        "complement": "the other layers",
        "blocks": "all layers (what lies outside of them frozen)",
    }
    for number, method in enumerate(methods(rows)):
        slug = method.replace(" ", "-")
        base = f"With {method}, " if number else ""
        for mode, what in words.items():
            text = (
                f"{base}{what} learns more of new and updated facts than updating everything, at no"
                " more forgetting."
            )
            found.append(
                make(
                    f"{slug}-{mode}",
                    text[0].upper() + text[1:],
                    _over(rows, method, mode, "plain"),
                    "nats",
                    "frontier",
                    f"{HOW}: {mode} less plain.",
                )
            )
        there = {r["mode"] for r in table(rows, "learned", method=method)}
        for mode in words if not number else ("freeze",):
            for control, told in controls.items():
                if control in there:
                    text = f"{base}{words[mode]} learns more than updating {told}."
                    found.append(
                        make(
                            f"{slug}-{mode}-{control}",
                            text[0].upper() + text[1:],
                            _over(rows, method, mode, control),
                            "nats",
                            "frontier",
                            f"{HOW}: {mode} less {control}.",
                            source=OURS if control == "blocks" else SOURCE,
                        )
                    )
    return found


def _running(rows, make) -> list[Claim]:
    method, found = methods(rows)[0], []
    for mode, told in (("freeze", "what is frozen"), ("scale", "layers' rates")):
        if table(rows, "learned", mode=f"running {mode}"):
            found.append(
                make(
                    f"running-{mode}",
                    f"A profile that is estimated during training is a better guide to {told} than"
                    " one measured before.",
                    _over(rows, method, f"running {mode}", mode),
                    "nats",
                    "frontier",
                    f"{HOW}: running {mode} less {mode}.",
                    source=OURS,
                )
            )
    return found


def online_nll(rows: Sequence[Row], mode: str, steps: int) -> np.ndarray:
    """`[S, rates]` nll of a stream, with so many steps a chunk."""
    found = table(rows, "online_nll", mode=mode, steps=steps)
    rates = sorted({r["rate"] for r in found})
    value = {(r["seed"], r["rate"]): r["value"] for r in found}
    return np.array([[value[seed, rate] for rate in rates] for seed in seeds(found)])


def online_best(rows: Sequence[Row], mode: str, steps: int) -> np.ndarray | None:
    """`[S]`: nll of each seed at the rate that is best in the other seeds; None for one seed."""
    best = best_elsewhere(-online_nll(rows, mode, steps))
    return None if best is None else -best


def online_flops(rows: Sequence[Row], mode: str, steps: int) -> np.ndarray:
    """`[S]` operations."""
    found = table(rows, "online_nll", mode=mode, steps=steps)
    return np.array([next(r["flops"] for r in found if r["seed"] == seed) for seed in seeds(found)])


def at_equal_flops(rows: Sequence[Row], mode: str) -> np.ndarray | None:
    """`[S]`: nll of a restricted adaptation at the operations that adapting everything takes with
    one step a chunk: on the line between its own points with one step and with two.
    """
    points = [(online_flops(rows, mode, steps), online_best(rows, mode, steps)) for steps in (1, 2)]
    (f1, n1), (f2, n2) = points
    if n1 is None or n2 is None:
        return None
    share = np.clip(
        (online_flops(rows, "plain", 1) - f1) / (f2 - f1), 0, 1
    )  # two steps may cost less than adapting everything once
    return n1 + share * (n2 - n1)


def _online(rows, make) -> list[Claim]:
    if not table(rows, "online_nll"):
        return []
    found = []
    how = (
        "Nats a token at the operations of adapting everything with one step a chunk, each at the"
        " rate that is best in the other seeds; the restricted one between its points with one step"
        " and with two"
    )
    whole = online_best(rows, "plain", 1)
    static = np.array([r["value"] for r in table(rows, "static_nll")])
    better = lambda other, one: None if other is None or one is None else interval(other - one)
    frozen = at_equal_flops(rows, "freeze")
    found.append(
        make(
            "online-helps",
            "Online adaptation of everything predicts the new text better than the static model.",
            better(static, whole),
            "nats",
            "online",
            "Static less online nll, one step a chunk.",
            source=OURS,
        )
    )
    found.append(
        make(
            "online-freeze",
            "Online adaptation of only the layers with large relative gradients predicts better"
            " than adaptation of everything, at equal operations.",
            better(whole, frozen),
            "nats",
            "online",
            f"{how}: everything less restricted.",
            source=OURS,
        )
    )
    controls = {
        "random": "as many layers at random",
        "complement": "the other layers",
        "blocks": "all layers alone",
    }
    found += [
        make(
            f"online-freeze-{control}",
            "Online adaptation of the layers with large relative gradients predicts better than"
            f" that of {told}.",
            better(at_equal_flops(rows, control), frozen),
            "nats",
            "online",
            f"{how}: {control} less restricted.",
            source=OURS,
        )
        for control, told in controls.items()
    ]
    found.append(
        make(
            "online-scale",
            "Online adaptation with layers' rates scaled by relative gradients predicts better than"
            " with equal rates.",
            better(whole, online_best(rows, "scale", 1)),
            "nats",
            "online",
            "Nats a token, one step a chunk, each at the rate that is best in the other seeds:"
            " equal less scaled.",
            source=OURS,
        )
    )
    return found


def summary(rows: Sequence[Row]) -> list[dict]:
    """Rows of what is computed from others: `advantage` over plain training by seed, method and
    mode; `online_at_best`, nll by mode and steps at the rate that is best in the other seeds.
    """
    found = []
    for seed in seeds(table(rows, "learned")):
        for method in methods(rows):
            modes = dict.fromkeys(r["mode"] for r in table(rows, "learned", method=method))
            found += [
                records.row(
                    "runs",
                    "advantage",
                    advantage(rows, seed, method, mode, "plain"),
                    "nats",
                    seed=seed,
                    method=method,
                    mode=mode,
                )
                for mode in modes
            ]
    online = table(rows, "online_nll")
    for mode in dict.fromkeys(r["mode"] for r in online):
        for steps in sorted({r["steps"] for r in online}):
            best, flops = online_best(rows, mode, steps), online_flops(rows, mode, steps)
            if best is not None:
                found += [
                    records.row(
                        "stream",
                        "online_at_best",
                        float(nll),
                        "nats",
                        seed=seed,
                        mode=mode,
                        steps=steps,
                        flops=float(cost),
                    )
                    for seed, nll, cost in zip(seeds(online), best, flops, strict=True)
                ]
    return found
