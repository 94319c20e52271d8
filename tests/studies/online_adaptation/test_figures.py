"""The figures of the study of online adaptation, from rows written by hand."""

import xml.etree.ElementTree as ElementTree

import pytest

from lmdyn import records
from lmdyn.report import page
from lmdyn.studies.online_adaptation import PAGE
from lmdyn.studies.online_adaptation import figures as online_adaptation
from tests.report.test_figures import drawn

HOME, FAR = "builtin:docs:test", "builtin:code:test"


def online(seed, analysis, setting, value, static=3.0, metric="online_nll", **more):
    about = {
        "rule": "AdamW",
        "adapt": "all",
        "rank": None,
        "chunk": 64,
        "context": "none",
        "window": 0,
        "stream": FAR,
        "flops": 2e6,
        "seconds": 1e-4,
        "rate": 0.01,
        "size": 1000,
        "start": "last",
    } | more
    return records.row(
        metric,
        value,
        "nats",
        model="run:r",
        step=9,
        tokens=10,
        analysis=analysis,
        seed=seed,
        setting=setting,
        static=static,
        **about,
    )


def whole():
    rows = []
    for seed in (0, 1):
        for text in (HOME, FAR):
            for trained in ("base", "tuned"):
                rows.append(
                    online(
                        seed,
                        "rules",
                        "static",
                        3.0,
                        metric="static_nll",
                        rule=None,
                        stream=text,
                        trained=trained,
                        flops=1e6,
                    )
                )
                names = ("AdamW", "low-rank") if trained == "base" else ("AdamW",)
                rows += [
                    online(seed, "rules", name, 2.5 + seed, stream=text, trained=trained)
                    for name in names
                ]
                rows += [
                    online(
                        seed,
                        "rules",
                        "AdamW",
                        2.0 + seed,
                        metric="nll_along",
                        stream=text,
                        trained=trained,
                        begin=b,
                        end=b + 5,
                    )
                    for b in (0, 5)
                ]
        rows += [online(seed, "places", name, 2.0 + seed) for name in ("MLPs", "block 0")]
        rows += [online(seed, "places", f"rank {rank}", 2.5, rank=rank) for rank in (1, 4)]
        for window, context, flops in ((0, "none", 1e6), (64, "cache", 2e6)):
            name = f"{context} {window}"
            rows.append(
                online(
                    seed,
                    "context",
                    name,
                    3.0,
                    metric="static_nll",
                    rule=None,
                    context=context,
                    window=window,
                    flops=flops,
                )
            )
            rows.append(
                online(
                    seed,
                    "context",
                    name,
                    2.5 - window / 100 + seed,
                    context=context,
                    window=window,
                    flops=3 * flops,
                )
            )
        for size in (1000, 4000):
            rows.append(
                online(seed, "sizes", "static", 3.0, metric="static_nll", rule=None, size=size)
            )
            rows.append(online(seed, "sizes", "all", 2.0, size=size))
        rows += [
            online(
                seed,
                "position",
                "MLPs",
                3.0 - end / 100,
                metric="nll_at_position",
                reset=reset,
                begin=end // 2,
                end=end,
            )
            for reset in ("document", "never")
            for end in (16, 32)
        ]
        rows += [
            online(seed, "resets", name, 2.5, alarms=1, turns=3, found=1, delay=128.0)
            for name in ("never", "detector")
        ]
        rows += [
            online(seed, "localized", name, value)
            for name, value in (("localized", 2.0), ("random 0", 2.5), ("random 1", 2.75))
        ]
        rows += [
            records.row(
                "relative_gradient_norm",
                1.0 + layer,
                "ratio",
                model="run:r",
                site=kind,
                layer=layer,
                analysis="localized",
                seed=seed,
            )
            for kind in ("attention", "mlp")
            for layer in range(2)
        ]
        for step in (4, 8):
            rows.append({**online(seed, "checkpoints", f"step {step}", 2.0 + step), "step": step})
            rows.append(
                records.row(
                    "knowledge_entropy",
                    5.0,
                    "nats",
                    model="run:r",
                    step=step,
                    site="mlp",
                    analysis="checkpoints",
                    seed=seed,
                )
            )
        rows += [
            online(seed, "meta", name, value)
            for name, value in (("as it was", 3.0), ("plain", 2.75), ("full", 2.5))
        ]
    return rows


def test_every_analysis_has_its_figure():
    found = online_adaptation.figures(whole())
    assert [f.name for f in found] == [
        "along",
        "rules",
        "position",
        "places",
        "context",
        "pareto",
        "resets",
        "localized",
        "checkpoints",
        "meta",
    ]
    for figure in found:
        ElementTree.fromstring(page.to_svg(figure.chart))
    assert PAGE.figures is online_adaptation.figures


def test_gains_are_static_less_online():
    figure = online_adaptation.rules(whole())
    shown = {(d["name"], d["kind"]): d["value"] for d in drawn(figure.chart) if "each" in d}
    assert shown == pytest.approx(
        {
            ("AdamW", "docs:test"): 0.0,
            ("AdamW", "code:test"): 0.0,
            ("low-rank", "docs:test"): 0.0,
            ("low-rank", "code:test"): 0.0,
            ("AdamW", "code:test, fine-tuned"): 0.0,
        }
    )  # 0.5 and -0.5 of the two seeds
    assert [(line["setting"], line["of static"]) for line in figure.table[:2]] == [
        ("static", "1.00"),
        ("AdamW", "2.00"),
    ]
    random = {
        d["name"]: d["value"]
        for d in drawn(online_adaptation.localized(whole()).chart[1])
        if "each" in d
    }
    assert random == pytest.approx({"localized": 1.0, "random, as many": 0.375})


def test_the_front_is_what_nothing_cheaper_beats():
    chart = online_adaptation.context(whole()).chart
    front = [(d["mflop"], d["value"]) for d in drawn(chart) if set(d) == {"mflop", "value"}]
    assert front == [
        (1.0, 3.0),
        (6.0, pytest.approx(2.36)),
    ]  # 2 MFLOP at 3.0 and 3 MFLOP at 3.0 are not better than 1


@pytest.mark.parametrize(
    "rows", [[], [r for r in whole() if r["analysis"] == "rules"]], ids=["nothing", "a given model"]
)
def test_parts_without_rows_are_left_out(rows):
    assert [f.name for f in online_adaptation.figures(rows)] == (["along", "rules"] if rows else [])
