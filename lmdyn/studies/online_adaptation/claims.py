"""From the rows of the study of online adaptation to its claims.

Every number here is made of rows, so it can be made again from them.

The replicate is a seed; of a given model, a stream. Shape letters: S replicates, K settings.
"""

import functools
import itertools
from collections.abc import Callable

import numpy as np

from lmdyn.analysis.statistics import best_elsewhere, interval
from lmdyn.report.figures import short
from lmdyn.studies.claims import OURS, Claim, claim, where
from lmdyn.studies.online_adaptation.tables import (
    at_most,
    column,
    gain,
    less,
    main_rule,
    streams,
    table,
)
from lmdyn.types import Rows, present

SOURCE = "Rannen-Triki et al. 2024"


def claims(rows: Rows) -> list[Claim]:
    """What the study ends in: sentences of the papers, and what is beyond them.

    A sentence about something that was not measured is left out.
    """
    found = []

    def make(id, sentence, values, how, figure, source=SOURCE):
        if values is not None and np.size(values):
            found.append(claim(id, sentence, interval(values), how, "nats", figure, source))

    drawn = {_shift: "rules", _context: "context", _places: "places", _sizes: "pareto"}
    for part, figure in (drawn | {_resets: "resets"}).items():
        part(rows, functools.partial(make, figure=figure))
    _beyond(rows, make)
    return found


def _shift(rows: Rows, make: Callable) -> None:
    main, texts = main_rule(rows), streams(rows)
    kind = "given" if any(r.get("trained") == "given" for r in rows) else "base"
    gains = {text: gain(rows, "rules", main, stream=text, trained=kind) for text in texts}
    saved_by = f"Static nll less online nll ({main}, all parameters) of the same predictions"
    if kind == "given":
        make(
            "online-beats-static",
            "Online adaptation beats the static model on every text.",
            gain(rows, "rules", main, trained=kind),
            f"{saved_by}; the replicate is a text.",
        )
        return _ladder(rows, make, kind)
    for text, saved in gains.items():
        best = _best_rule(rows, stream=text, trained=kind)
        which = main if best is None else "by the rule that is best in the other seeds"
        make(
            f"online-beats-static-{text.split(':')[1]}",
            f"Online adaptation beats the static model on {short(text)}.",
            saved if best is None else best,
            f"Static nll less online nll of the same predictions, {which}.",
        )
    home, far = texts[0], texts[-1]
    make(
        "more-under-shift",
        "It gains more where the text is further from what the model was trained on: on"
        f" {short(far)} than on {short(home)}.",
        less(gains[far], gains[home]),
        f"{saved_by}: on {far} less on {home}.",
        figure="along",
    )
    tuned = gain(rows, "rules", main, stream=far, trained="tuned")
    make(
        "less-after-tuning",
        "It gains less after fine-tuning on text of that kind.",
        less(gains[far], tuned),
        f"{saved_by}, on {far}: of the model as it was, less of the fine-tuned one.",
        figure="along",
    )
    nll = lambda rule: column(rows, "rules", rule, trained=kind)
    make(
        "rms-beats-sgd",
        "The RMS rule with decay to the prior beats plain gradient descent.",
        less(nll("SGD"), nll("RMS rule")),
        "Nll of SGD less that of the RMS rule, mean over streams.",
        source="Krause et al. 2018",
    )
    make(
        "momentum-hurts",
        "Adam adapts better without momentum.",
        less(nll("AdamW"), nll("Adam, no momentum")),
        "Nll of AdamW less that of Adam with b1 = 0, mean over streams.",
        source=OURS,
    )
    return _ladder(rows, make, kind, stream=far)


def _best_rule(rows, **wanted) -> np.ndarray | None:
    """`[S]`: what the rule saves that is best in the other seeds; None for one seed."""
    own = [r for r in rows if r.get("analysis") == "rules"]
    whole = {r["setting"] for r in own if r.get("rule") == r.get("setting")}
    keys, online = table(rows, "rules", **wanted)
    static = table(rows, "rules", "static", **wanted)[1]
    chosen = [k for k, key in enumerate(keys) if key in whole]
    return best_elsewhere((static - online)[:, chosen])


def _ladder(rows, make, kind, **wanted):
    one = lambda name: column(rows, "rules", name, trained=kind, **wanted)
    make(
        "low-rank-beats-static",
        "Low-rank adapters at the MLPs beat the static model.",
        gain(rows, "rules", "low-rank", trained=kind, **wanted),
        "Static nll less online nll of the same predictions.",
    )
    make(
        "full-beats-low-rank",
        "Adapting the whole MLPs beats low-rank adapters at them.",
        less(one("low-rank"), one("MLPs")),
        "Nll of the low-rank setting less that of the MLPs.",
    )
    make(
        "localized-beats-all",
        "Adapting where the gradient profile is above its mean beats adapting everything.",
        less(one(main_rule(rows)), one("localized")),
        "Nll of all less that of localized, which costs less.",
        source=OURS,
    )


def _cache_less_overlap(keys: list, nll: np.ndarray, costs: np.ndarray) -> np.ndarray | None:
    """`[S]`: nll of each overlap, less that of the best cache setting of at most its cost."""
    kinds = np.array([key.split()[0].rstrip(",") for key in keys])
    cache = kinds == "cache"
    pairs = [
        (nll[:, j], at_most(costs[cache], nll[:, cache], costs[j] * 1.001))
        for j in np.flatnonzero(kinds == "overlap")
    ]
    differences = [overlap - best for overlap, best in pairs if best is not None]
    return np.mean(differences, 0) if differences else None


def _context(rows: Rows, make: Callable) -> None:
    keys, online = table(rows, "context")
    if not keys:
        return
    costs = table(rows, "context", "flops")[1].mean(0)
    names, static = table(rows, "context", metric="static_nll")
    static_costs = table(rows, "context", "flops", metric="static_nll")[1].mean(0)
    make(
        "cache-beats-overlap",
        "With adaptation, a cache beats an overlapping window at equal cost.",
        _cache_less_overlap(keys, online, costs),
        "Nll of each overlap, less that of the cache setting of at most its FLOPs that is best in"
        " the other seeds; mean over overlaps.",
    )
    make(
        "cache-beats-overlap-static",
        "Without adaptation, too.",
        _cache_less_overlap(names, static, static_costs),
        "The same, of static evaluation.",
        source=OURS,
    )
    without = [k for k, key in enumerate(keys) if key.startswith("none")]
    if without:
        longest = static.mean(0).argmin()
        budget = static_costs[longest]
        same = at_most(costs[without], online[:, without], budget * 1.001)
        cheapest = without[int(costs[without].argmin())]
        best = -present(best_elsewhere(-static)) if len(static) > 1 else static[:, longest]
        value = online[:, cheapest] if same is None else same
        cost = costs[cheapest] / budget if same is None else 1.0
        make(
            "weights-beat-context",
            "Memory in weights beats memory in context: no context with adaptation against the best"
            " context without.",
            best - value,
            "Static nll of the context that is best in the other seeds, less online nll without a"
            f" context, at {cost:.2f} times its FLOPs{'' if same is None else ' or fewer'}.",
        )


def _places(rows: Rows, make: Callable) -> None:
    one = lambda name: column(rows, "places", name)
    make(
        "mlps-best-place",
        "MLPs are a better place to adapt than attention.",
        less(one("attention"), one("MLPs")),
        "Nll with attention adapted less nll with the MLPs adapted.",
    )
    keys, values = table(rows, "places")
    for what, id in (("block", "middle-blocks-best"), ("MLP", "middle-mlps-best")):
        blocks = [k for k, key in enumerate(keys) if key.split()[0] == what]
        if len(blocks) >= 4:
            quarter = max(1, len(blocks) // 4)
            ends, middle = [*blocks[:quarter], *blocks[-quarter:]], blocks[quarter:-quarter]
            make(
                id,
                f"Middle {what}s are better single places to adapt than the first and last.",
                values[:, ends].mean(1) - values[:, middle].mean(1),
                f"Mean nll with one of the {len(ends)} outer {what}s adapted, less that with one of"
                f" the {len(middle)} others.",
            )


def _sizes(rows: Rows, make: Callable) -> None:
    by = ("size", "setting", "chunk", "context")
    online_keys, online = table(rows, "sizes", by=by)
    static_keys, static = table(rows, "sizes", metric="static_nll", by=by)
    found = sorted({key[0] for key in static_keys})
    if len(found) < 2:
        return
    _, online_flops = table(rows, "sizes", "flops", by=by)
    _, static_flops = table(rows, "sizes", "flops", metric="static_nll", by=by)
    for small, large in itertools.pairwise(found):
        big = [k for k, key in enumerate(static_keys) if key[0] == large]
        best = min(big, key=lambda k: static[:, k].mean())
        little = [k for k, key in enumerate(online_keys) if key[0] == small]
        cheap = min(little, key=lambda k: online[:, k].mean())
        cost = online_flops[:, cheap].mean() / static_flops[:, best].mean()
        value = (
            -present(best_elsewhere(-static[:, big])) + present(best_elsewhere(-online[:, little]))
            if len(static) > 1
            else static[:, best] - online[:, cheap]
        )
        make(
            f"smaller-beats-larger-{small}",
            f"A smaller adapted model ({small / 1e6:.2f} million parameters) beats a larger static"
            f" one ({large / 1e6:.2f}).",
            value,
            "Nll of the larger one, static, less that of the smaller one, adapted, each in its"
            f" setting that is best in the other seeds; at {cost:.2f} times the FLOPs.",
        )


def _resets(rows: Rows, make: Callable) -> None:
    one = lambda name: column(rows, "resets", name)
    make(
        "resets-help",
        "On a stream that turns from one text to another, resets where it turns help.",
        less(one("never"), one("at changes")),
        "Nll without resets less nll with resets at the turns.",
    )
    make(
        "detector-as-good",
        "The detector's resets do better than resets where the text turns.",
        less(one("at changes"), one("detector")),
        "Nll with resets at the turns less nll with the detector's.",
        source=OURS,
    )
    make(
        "detector-helps",
        "The detector's resets do better than none.",
        less(one("never"), one("detector")),
        "Nll without resets less nll with the detector's.",
        source=OURS,
    )


def _beyond(rows: Rows, make: Callable) -> None:
    keys, values = table(rows, "localized")
    if keys:
        random = [k for k, key in enumerate(keys) if key.startswith("random")]
        make(
            "localized-beats-random",
            "Adapting where the gradient profile is above its mean beats as many places at random,"
            " at equal cost.",
            values[:, random].mean(1) - values[:, keys.index("localized")],
            "Mean nll of the random controls, with the same number of attention and MLP layers and"
            " the same lowest one, less that of localized.",
            figure="localized",
            source=OURS,
        )
    recommended = where(rows, "recommended", analysis="checkpoints")
    make(
        "recommended-start",
        "Adaptation that starts at the checkpoint with the most knowledge entropy beats"
        " starting at the last one.",
        np.array([r["lead"] for r in recommended]),
        "Online nll from the last checkpoint less that from the recommended one, on "
        "the stream that is furthest from home; 0 where it is the last one.",
        figure="checkpoints",
        source=OURS,
    )
    wanted = {"stream": streams(rows)[-1]} if streams(rows) else {}
    for name, order in (("first order", "first-order"), ("full", "full")):
        make(
            f"meta-{order}",
            f"A start that was meta-learned ({name}) adapts better than one that was trained on"
            " plainly for the same cost.",
            less(column(rows, "meta", "plain", **wanted), column(rows, "meta", name, **wanted)),
            "Online nll (SGD) from the plain start less that from the meta-learned one, on the"
            " stream that is furthest from home.",
            figure="meta",
            source=OURS,
        )
