"""From the rows of the study of online adaptation to its claims. Every number here is made of rows,
so it can be made again from them.

The replicate is a seed; of a given model, a stream. Shape letters: S replicates, K settings.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmdyn import records
from lmdyn.analysis.statistics import interval
from lmdyn.report.figures import short
from lmdyn.studies.claims import Claim, claim
from lmdyn.studies.knowledge_entropy.claims import best_elsewhere
from lmdyn.types import ArrayLike, Row, present

STUDY, SOURCE, OURS = "online adaptation", "Rannen-Triki et al. 2024", "lmdyn"


def table(
    rows: Sequence[Row],
    analysis: str,
    field: str = "value",
    metric: str = "online_nll",
    by: Sequence[str] = ("setting",),
    **wanted: Any,
) -> tuple[list, np.ndarray]:
    """One field of all settings of an analysis.

    Args:
      by: what tells columns apart. wanted: fields that rows must have.

    Returns:
      The columns' keys in their order (tuples, or values where `by` is one field), and `[S, K]`;
      only columns that all replicates have.
    """
    own = [
        r
        for r in rows
        if r["metric"] == metric
        and r.get("analysis") == analysis
        and all(r.get(k) == v for k, v in wanted.items())
    ]
    single = len({r.get("seed") for r in own}) == 1 and all(
        r.get("trained") == "given" for r in own
    )
    replicate = (lambda r: r["stream"]) if single else (lambda r: r["seed"])
    key = (lambda r: r.get(by[0])) if len(by) == 1 else (lambda r: tuple(r.get(k) for k in by))
    found: dict = {}
    for r in own:
        found.setdefault(key(r), {}).setdefault(replicate(r), []).append(r[field])
    everyone = list(dict.fromkeys(replicate(r) for r in own))
    keys = [k for k, values in found.items() if set(values) == set(everyone)]
    return keys, np.array([[np.mean(found[k][one]) for k in keys] for one in everyone]).reshape(
        len(everyone), len(keys)
    )


def column(
    rows: Sequence[Row], analysis: str, setting: str | None, **more: Any
) -> np.ndarray | None:
    """`[S]` of one setting; None where it was not measured."""
    keys, values = table(rows, analysis, **more)
    return values[:, keys.index(setting)] if setting in keys else None


def _gain(rows, analysis, setting, **wanted) -> np.ndarray | None:
    """`[S]`: static nll less online nll of the same predictions."""
    online = column(rows, analysis, setting, **wanted)
    return (
        None
        if online is None
        else column(rows, analysis, setting, field="static", **wanted) - online
    )


def _less(first, second):
    return None if first is None or second is None else first - second


def streams(rows: Sequence[Row]) -> list[str]:
    """The streams of the table of rules, the one like home first."""
    return list(
        dict.fromkeys(
            r["stream"]
            for r in rows
            if r["metric"] == "online_nll" and r.get("analysis") == "rules"
        )
    )


def main_rule(rows: Sequence[Row]) -> str | None:
    """The rule of everything else: that of the low-rank setting."""
    return next(
        (
            r["rule"]
            for r in rows
            if r["metric"] == "online_nll"
            and r.get("analysis") == "rules"
            and r["setting"] == "low-rank"
        ),
        None,
    )


def at_most(flops: ArrayLike, values: ArrayLike, budget: float) -> np.ndarray | None:
    """`[S]`: of the columns that cost no more than a budget, the one that is best in the other
    replicates; None if there is none.

    Args:
      flops: `[K]`. values: `[S, K]` nats.

    >>> at_most([1.0, 2.0, 9.0], [[3.0, 2.0, 0.0], [3.0, 2.5, 0.0]], budget=5.0).tolist()
    [2.0, 2.5]
    """
    within = np.flatnonzero(np.asarray(flops) <= budget)
    if not len(within):
        return None
    chosen = best_elsewhere(-np.asarray(values)[:, within])
    return None if chosen is None else -chosen


def claims(rows: Sequence[Row]) -> list[Claim]:
    """What the study ends in: sentences of the papers, and what is beyond them."""
    found = []

    def make(id, sentence, values, unit, figure, how, source=SOURCE):
        if values is not None and np.size(values):
            found.append(claim(STUDY, source, id, sentence, interval(values), unit, figure, how))

    _shift(rows, make)
    _context(rows, make)
    _places(rows, make)
    _sizes(rows, make)
    _resets(rows, make)
    _beyond(rows, make)
    return found


def _shift(rows, make):
    main, texts = main_rule(rows), streams(rows)
    kind = "given" if any(r.get("trained") == "given" for r in rows) else "base"
    gains = {text: _gain(rows, "rules", main, stream=text, trained=kind) for text in texts}
    less = f"Static nll less online nll ({main}, all parameters) of the same predictions"
    if kind == "given":
        make(
            "online-beats-static",
            "Online adaptation beats the static model on every text.",
            _gain(rows, "rules", main, trained=kind),
            "nats",
            "rules",
            f"{less}; the replicate is a text.",
        )
        return _ladder(rows, make, kind)
    for text, gain in gains.items():
        found, which = (
            _best_rule(rows, stream=text, trained=kind),
            "by the rule that is best in the other seeds",
        )
        make(
            f"online-beats-static-{text.split(':')[1]}",
            f"Online adaptation beats the static model on {short(text)}.",
            gain if found is None else found,
            "nats",
            "rules",
            "Static nll less online nll of the same predictions,"
            f" {which if found is not None else main}.",
        )
    home, far = texts[0], texts[-1]
    make(
        "more-under-shift",
        "It gains more where the text is further from what the model was trained on: on"
        f" {short(far)} than on {short(home)}.",
        _less(gains[far], gains[home]),
        "nats",
        "along",
        f"{less}: on {far} less on {home}.",
    )
    tuned = _gain(rows, "rules", main, stream=far, trained="tuned")
    make(
        "less-after-tuning",
        "It gains less after fine-tuning on text of that kind.",
        _less(gains[far], tuned),
        "nats",
        "along",
        f"{less}, on {far}: of the model as it was, less of the fine-tuned one.",
    )
    nll = lambda rule: column(rows, "rules", rule, trained=kind)
    make(
        "rms-beats-sgd",
        "The RMS rule with decay to the prior beats plain gradient descent.",
        _less(nll("SGD"), nll("RMS rule")),
        "nats",
        "rules",
        "Nll of SGD less that of the RMS rule, mean over streams.",
        "Krause et al. 2018",
    )
    make(
        "momentum-hurts",
        "Adam adapts better without momentum.",
        _less(nll("AdamW"), nll("Adam, no momentum")),
        "nats",
        "rules",
        "Nll of AdamW less that of Adam with b1 = 0, mean over streams.",
        OURS,
    )
    return _ladder(rows, make, kind, stream=far)


def _best_rule(rows, **wanted) -> np.ndarray | None:
    """`[S]`: what the rule saves that is best in the other seeds; None for one seed."""
    whole = {
        r["setting"]
        for r in rows
        if r.get("analysis") == "rules" and r.get("rule") == r.get("setting")
    }
    keys, online = table(rows, "rules", **wanted)
    chosen = [k for k, key in enumerate(keys) if key in whole]
    return best_elsewhere(
        table(rows, "rules", "static", **wanted)[1][:, chosen] - online[:, chosen]
    )


def _ladder(rows, make, kind, **wanted):
    low, full = (
        column(rows, "rules", name, trained=kind, **wanted) for name in ("low-rank", "MLPs")
    )
    make(
        "low-rank-beats-static",
        "Low-rank adapters at the MLPs beat the static model.",
        _gain(rows, "rules", "low-rank", trained=kind, **wanted),
        "nats",
        "rules",
        "Static nll less online nll of the same predictions.",
    )
    make(
        "full-beats-low-rank",
        "Adapting the whole MLPs beats low-rank adapters at them.",
        _less(low, full),
        "nats",
        "rules",
        "Nll of the low-rank setting less that of the MLPs.",
    )
    localized, all_of_it = (
        column(rows, "rules", name, trained=kind, **wanted)
        for name in ("localized", main_rule(rows))
    )
    if localized is not None:
        make(
            "localized-beats-all",
            "Adapting where the gradient profile is above its mean beats adapting everything.",
            _less(all_of_it, localized),
            "nats",
            "rules",
            "Nll of all less that of localized, which costs less.",
            OURS,
        )


def _context(rows, make):
    keys, online = table(rows, "context")
    if not keys:
        return
    _, flops = table(rows, "context", "flops")
    kinds = np.array([key.split()[0].rstrip(",") for key in keys])
    costs = flops.mean(0)
    pairs = [
        (j, at_most(costs[kinds == "cache"], online[:, kinds == "cache"], costs[j] * 1.001))
        for j in np.flatnonzero(kinds == "overlap")
    ]
    differences = [online[:, j] - cache for j, cache in pairs if cache is not None]
    make(
        "cache-beats-overlap",
        "With adaptation, a cache beats an overlapping window at equal cost.",
        np.mean(differences, 0) if differences else None,
        "nats",
        "context",
        "Nll of each overlap, less that of the cache setting of at most its FLOPs that is best in"
        " the other seeds; mean over overlaps.",
    )
    names, static = table(rows, "context", metric="static_nll")
    _, static_flops = table(rows, "context", "flops", metric="static_nll")
    kinds, static_costs = (
        np.array([key.split()[0].rstrip(",") for key in names]),
        static_flops.mean(0),
    )
    pairs = [
        (
            j,
            at_most(
                static_costs[kinds == "cache"], static[:, kinds == "cache"], static_costs[j] * 1.001
            ),
        )
        for j in np.flatnonzero(kinds == "overlap")
    ]
    differences = [static[:, j] - cache for j, cache in pairs if cache is not None]
    make(
        "cache-beats-overlap-static",
        "Without adaptation, too.",
        np.mean(differences, 0) if differences else None,
        "nats",
        "context",
        "The same, of static evaluation.",
        OURS,
    )
    short_one = [k for k, key in enumerate(keys) if key.startswith("none")]
    longest = static.mean(0).argmin()
    if short_one:
        budget = static_costs[longest]
        same = at_most(costs[short_one], online[:, short_one], budget * 1.001)
        cheapest = short_one[int(costs[short_one].argmin())]
        best = -present(best_elsewhere(-static)) if len(static) > 1 else static[:, longest]
        value = online[:, cheapest] if same is None else same
        cost = costs[cheapest] / budget if same is None else 1.0
        make(
            "weights-beat-context",
            "Memory in weights beats memory in context: no context with adaptation against the best"
            " context without.",
            best - value,
            "nats",
            "context",
            "Static nll of the context that is best in the other seeds, less online nll without a"
            f" context, at {cost:.2f} times its FLOPs{'' if same is None else ' or fewer'}.",
        )


def _places(rows, make):
    one = lambda name: column(rows, "places", name)
    make(
        "mlps-best-place",
        "MLPs are a better place to adapt than attention.",
        _less(one("attention"), one("MLPs")),
        "nats",
        "places",
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
                "nats",
                "places",
                f"Mean nll with one of the {len(ends)} outer {what}s adapted, less that with one of"
                f" the {len(middle)} others.",
            )


def _sizes(rows, make):
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
            "nats",
            "pareto",
            "Nll of the larger one, static, less that of the smaller one, adapted, each in its"
            f" setting that is best in the other seeds; at {cost:.2f} times the FLOPs.",
        )


def _resets(rows, make):
    one = lambda name: column(rows, "resets", name)
    make(
        "resets-help",
        "On a stream that turns from one text to another, resets where it turns help.",
        _less(one("never"), one("at changes")),
        "nats",
        "resets",
        "Nll without resets less nll with resets at the turns.",
    )
    make(
        "detector-as-good",
        "The detector's resets do better than resets where the text turns.",
        _less(one("at changes"), one("detector")),
        "nats",
        "resets",
        "Nll with resets at the turns less nll with the detector's.",
        OURS,
    )
    make(
        "detector-helps",
        "The detector's resets do better than none.",
        _less(one("never"), one("detector")),
        "nats",
        "resets",
        "Nll without resets less nll with the detector's.",
        OURS,
    )


def _beyond(rows, make):
    keys, values = table(rows, "localized")
    if keys:
        random = [k for k, key in enumerate(keys) if key.startswith("random")]
        make(
            "localized-beats-random",
            "Adapting where the gradient profile is above its mean beats as many places at random,"
            " at equal cost.",
            values[:, random].mean(1) - values[:, keys.index("localized")],
            "nats",
            "localized",
            "Mean nll of the random controls, with the same number of attention and MLP layers and"
            " the same lowest one, less that of localized.",
            OURS,
        )
    recommended = [
        r for r in rows if r["metric"] == "recommended" and r.get("analysis") == "checkpoints"
    ]
    if recommended:
        make(
            "recommended-start",
            "Adaptation that starts at the checkpoint with the most knowledge entropy beats"
            " starting at the last one.",
            np.array([r["lead"] for r in recommended]),
            "nats",
            "checkpoints",
            "Online nll from the last checkpoint less that from the recommended one, on "
            "the stream that is furthest from home; 0 where it is the last one.",
            OURS,
        )
    wanted = {"stream": streams(rows)[-1]} if streams(rows) else {}
    for name, order in (("first order", "first-order"), ("full", "full")):
        make(
            f"meta-{order}",
            f"A start that was meta-learned ({name}) adapts better than one that was trained on"
            " plainly for the same cost.",
            _less(column(rows, "meta", "plain", **wanted), column(rows, "meta", name, **wanted)),
            "nats",
            "meta",
            "Online nll (SGD) from the plain start less that from the meta-learned one, on the"
            " stream that is furthest from home.",
            OURS,
        )


def summary(rows: Sequence[Row]) -> list[dict]:
    """Rows `recommended`: for each seed, the checkpoint with the most knowledge entropy (of those
    that adaptation was tried from), and its `lead`: how much lower its online nll on the last
    stream is than that of the last checkpoint.
    """
    made, own = [], [r for r in rows if r.get("analysis") == "checkpoints"]
    for seed in sorted({r["seed"] for r in own}):
        entropy = {
            r["step"]: r["value"]
            for r in own
            if r["seed"] == seed and r["metric"] == "knowledge_entropy"
        }
        far = [r for r in own if r["seed"] == seed and r["metric"] == "online_nll"]
        reached = {r["step"]: r["value"] for r in far if r["stream"] == far[-1]["stream"]}
        best, last = max(entropy, key=lambda step: entropy[step]), max(entropy)
        made.append(
            records.row(
                "series",
                "recommended",
                float(best),
                "step",
                step=best,
                seed=seed,
                analysis="checkpoints",
                lead=reached[last] - reached[best],
                entropy=entropy[best],
                last_entropy=entropy[last],
            )
        )
    return made
