"""From the rows of the study of gradient localization to its claims.

Every number here is made of rows, so it can be made again from them.

Shape letters: S seeds.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
from scipy import stats

from lmdyn.analysis.statistics import Interval, best_elsewhere, interval
from lmdyn.studies.claims import OURS, Claim, claim, over_seeds, seeds_of, where
from lmdyn.studies.gradient_localization.comparisons import (
    advantage,
    at_equal_flops,
    methods,
    online_best,
    relative_norms,
)
from lmdyn.studies.gradient_localization.questions import LEARNED
from lmdyn.types import Rows

SOURCE = "Fernandez et al. 2024"
ALPHA = 0.05
HOW = (
    "Nats of log-probability, mean of updated and new spans, at no more forgetting; mean over the"
    " levels that runs of rising learning rates reach"
)
OTHER_LAYERS = {
    "random": "as many layers chosen at random",
    "complement": "the other layers",
    "blocks": "all layers (what lies outside of them frozen)",
}
_claim = functools.partial(claim, source=SOURCE)


def claims(rows: Rows) -> list[Claim]:
    """What the study ends in: the paper's sentences, and what is beyond it."""
    return [*_profile(rows), *_training(rows), *_running(rows), *_online(rows)]


def _profile(rows) -> Iterator[Claim]:
    make = functools.partial(_claim, figure="profile")
    for kind in LEARNED:
        places, r = relative_norms(rows, kind)
        above = [
            f"{site} {layer}"
            for (site, layer), values in zip(places, r.T, strict=True)
            if (values > 1).all()
        ]
        above_in = f"Above 1 in all {len(r)} seeds: {', '.join(above) or 'nowhere'}."
        most, least = best_elsewhere(r), best_elsewhere(-r)
        yield make(
            f"{kind}-exceeds",
            f"The gradients of {kind} facts' spans exceed those of random spans in some layers.",
            over_seeds(most),
            f"Relative norm where it is largest in the other seeds. {above_in}",
            "ratio",
            above=1.0,
        )
        yield make(
            f"{kind}-subset",
            f"And only in some: elsewhere the gradients of {kind} facts' spans are smaller than"
            " those of random spans.",
            over_seeds(None if least is None else 1 + least),
            f"1 less the relative norm where it is smallest in the other seeds. {above_in}",
            "below 1",
        )
    yield _difference(rows)


def _difference(rows) -> Claim:
    tests = where(rows, "profile_difference", site=None)
    _, p = map(float, stats.combine_pvalues([r["p"] for r in tests]))
    single = ", ".join(f"{r['p']:.2g}" for r in tests)
    asked = (
        "on attributes that both kinds have"
        if all(r["matched"] for r in tests)
        else "of kinds that are asked for different attributes"
    )
    one = _claim(
        "kinds-differ",
        "Updated and new facts light up different layers.",
        interval([r["value"] for r in tests]),
        "Root mean square, over groups and layers, of the difference of mean log shares of the"
        f" gradient. Permutation tests over entities, {asked}: p = {single}; together {p:.2g}"
        " (Fisher), which gives the verdict.",
        "log share",
        "profile",
    )
    return dataclasses.replace(one, verdict="supported" if p < ALPHA else "undecided")


def _over(rows, method: str, mode: str, against: str) -> Interval:
    return interval(
        [advantage(rows, seed, method, mode, against) for seed in seeds_of(where(rows, "learned"))]
    )


def _training(rows) -> Iterator[Claim]:
    make = functools.partial(claim, unit="nats", figure="frontier")
    words = {
        "freeze": "updating only the layers with large relative gradients",
        "scale": "scaling layers' learning rates by relative gradients",
    }
    for number, method in enumerate(methods(rows)):
        slug = method.replace(" ", "-")
        base = f"With {method}, " if number else ""
        for mode, what in words.items():
            text = (
                f"{base}{what} learns more of new and updated facts than updating everything, at no"
                " more forgetting."
            )
            yield make(
                f"{slug}-{mode}",
                text[0].upper() + text[1:],
                _over(rows, method, mode, "plain"),
                f"{HOW}: {mode} less plain.",
                source=SOURCE,
            )
        there = {r["mode"] for r in where(rows, "learned", method=method)}
        for mode in words if not number else ("freeze",):
            for control, other in OTHER_LAYERS.items():
                if control in there:
                    text = f"{base}{words[mode]} learns more than updating {other}."
                    yield make(
                        f"{slug}-{mode}-{control}",
                        text[0].upper() + text[1:],
                        _over(rows, method, mode, control),
                        f"{HOW}: {mode} less {control}.",
                        source=OURS if control == "blocks" else SOURCE,
                    )


def _running(rows) -> Iterator[Claim]:
    method = methods(rows)[0]
    for mode, what in (("freeze", "what is frozen"), ("scale", "layers' learning rates")):
        if where(rows, "learned", mode=f"running {mode}"):
            yield claim(
                f"running-{mode}",
                f"A profile that is estimated during training is a better guide to {what} than"
                " one measured before.",
                _over(rows, method, f"running {mode}", mode),
                f"{HOW}: running {mode} less {mode}.",
                "nats",
                "frontier",
            )


def _less(first, second) -> Interval | None:
    """The interval of a difference over seeds; None where one of the two is missing."""
    return None if first is None or second is None else interval(first - second)


def _online(rows) -> list[Claim]:
    if not where(rows, "online_nll"):
        return []
    how = (
        "Nats per token at the operations of adapting everything with one step per chunk, each at"
        " the learning rate that is best in the other seeds; the restricted one between its points"
        " with one step and with two"
    )
    make = functools.partial(claim, unit="nats", figure="online")
    everything, frozen = online_best(rows, "plain", 1), at_equal_flops(rows, "freeze")
    static = np.array([r["value"] for r in where(rows, "static_nll")])
    found = [
        make(
            "online-helps",
            "Online adaptation of everything predicts the new text better than the static model.",
            _less(static, everything),
            "Static less online nll, one step per chunk.",
        ),
        make(
            "online-freeze",
            "Online adaptation of only the layers with large relative gradients predicts better"
            " than adaptation of everything, at equal operations.",
            _less(everything, frozen),
            f"{how}: everything less restricted.",
        ),
    ]
    controls = {
        "random": "as many layers at random",
        "complement": "the other layers",
        "blocks": "all layers alone",
    }
    found += [
        make(
            f"online-freeze-{control}",
            "Online adaptation of the layers with large relative gradients predicts better than"
            f" that of {what}.",
            _less(at_equal_flops(rows, control), frozen),
            f"{how}: {control} less restricted.",
        )
        for control, what in controls.items()
    ]
    return [
        *found,
        make(
            "online-scale",
            "Online adaptation with layers' learning rates scaled by relative gradients predicts"
            " better than with equal ones.",
            _less(everything, online_best(rows, "scale", 1)),
            "Nats per token, one step per chunk, each at the learning rate that is best in the"
            " other seeds: equal less scaled.",
        ),
    ]
