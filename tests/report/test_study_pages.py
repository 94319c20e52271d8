"""The page of a study: claims first, figures of its rows, whatever parts it has."""

import itertools
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from lmdyn import records, report
from lmdyn.errors import InputError
from lmdyn.report import claims_table, figure_blocks, page
from lmdyn.report.figure_blocks import Group
from lmdyn.report.figures import Figure
from lmdyn.studies.entropy_decay import figures as entropy_decay
from lmdyn.studies.fact_learning import figures as fact_learning
from lmdyn.studies.knowledge_entropy import figures as knowledge_entropy
from lmdyn.studies.knowledge_entropy.figure_data import REACTIVATIONS
from tests.report.test_figures import drawn
from tests.report.test_page import Links

STEPS = (2, 8, 32)
ROUNDS = ((0, 0), (20, 2), (60, 4))
"""Updates of a continual training, and rounds of injection begun by then."""


def told():
    """Rows of the fact-learning study: two facts, of which the second gains a nat more, at two
    depths.
    """
    row = lambda metric, value, unit, **more: records.row(
        metric, value, unit, model="gguf:m", seed=0, start="m", kind="series", **more
    )
    found = []
    for depth, gained in ((None, 1.5), ("memorisation", 2.0), ("composition", 1.0)):
        for update, rounds in ROUNDS:
            about = {"depth": depth, "update": update, "rounds": rounds, "tokens": 8}
            found += [
                row("span_log_probability", gained * rounds / 4 - 4, "nats", **about),
                row("exact_match", rounds / 20, "share", **about),
            ]
        found.append(
            row(
                "acquisition",
                gained,
                "nats",
                depth=depth,
                relative=gained / 4,
                low=gained - 0.5,
                high=gained + 0.5,
                tokens=8,
            )
        )
        found += [
            row("fact_gain", gained + more, "nats", depth=depth, fact=fact)
            for fact, more in enumerate((-0.5, 0.5))
        ]
    return found


def start(seed, name, kind, step, nll, acquisition, forgetting=0.25, share=0.5, **extra):
    """Rows of one starting point."""
    row = lambda metric, value, unit="nats", **more: records.row(
        metric,
        value,
        unit,
        model=f"run:r@{step}",
        step=step,
        seed=seed,
        start=name,
        kind=kind,
        **extra,
        **more,
    )
    found = [
        row("nll", nll),
        row("knowledge_entropy", 6 * share, site="mlp", normalized=share),
        row("prediction_entropy", 2.0, site="head"),
        row("forgetting", forgetting, "share", of="all"),
        row("forgetting", 9.0, "share", of="text"),
    ]
    found += [
        row("knowledge_entropy", 3 * share, site="mlp", layer=i, normalized=share) for i in range(2)
    ]
    for depth in (None, "memorisation", "composition"):
        found.append(
            row("acquisition", acquisition + (depth is not None), depth=depth, relative=0.1)
        )
        found += [
            row(
                "span_log_probability",
                acquisition * rounds - 3,
                depth=depth,
                update=update,
                rounds=rounds,
            )
            for update, rounds in ((0, 0), (4, 1), (15, 3))
        ]
    return found


def plain(seeds=2):
    """A series whose acquisition is `10 nll + seed` nats."""
    return [
        r
        for s in range(seeds)
        for n, step in enumerate(STEPS)
        for r in start(s, f"step {step}", "series", step, 3.0 - n, 10 * (3.0 - n) + s)
    ]


def whole(seeds=2):
    rows = plain(seeds)
    for s in range(seeds):
        for kind, gained in (("reactivated", 2.0), ("random", -1.0), ("by entropy", 0.5)):
            rows += start(
                s,
                f"{kind} ratio 0.5 gain 2",
                kind,
                32,
                1.5,
                10.0 + s + gained,
                0.25 - s,
                ratio=0.5,
                gain=2.0,
            )
        rows += start(s, "bonus", "variant", 32, 2.5, 29.0 + s)
        rows += [
            records.row(
                "nll",
                6.0 - step,
                "nats",
                model="run:r",
                step=step,
                seed=s,
                start="plain",
                kind="pretraining",
            )
            for step in (0, 1, 2)
        ]
        rows += [
            records.row(
                "combined_score", 0.25, "score", model="series", step=step, seed=s, kind="summary"
            )
            for step in STEPS
        ]
    return [
        *rows,
        records.row(
            "recommended",
            8.0,
            "step",
            model="series",
            step=8,
            agree=0.5,
            next=32,
            lead=0.1,
            low=-0.25,
            high=0.5,
            kind="summary",
        ),
    ]


def decay():
    """Runs in which the rate adds 2 points to the change and the MLP takes 1 away."""
    factors, rows = {"rate": ("0.1", "1"), "MLP": ("plain", "gated")}, []
    for run, signs in enumerate(itertools.product((-1, 1), repeat=2)):
        tags = {
            "run": run,
            "signs": list(signs),
            "levels": {k: v[s > 0] for (k, v), s in zip(factors.items(), signs, strict=True)},
        }
        change = 0.01 * signs[0] - 0.005 * signs[1]
        rows += [
            records.row(
                "knowledge_entropy",
                3.0,
                "nats",
                model="run:r",
                site="mlp",
                step=step,
                normalized=0.9 + change * (step > 4),
                **tags,
            )
            for step in (0, 4, 8)
        ]
        rows.append(
            records.row(
                "entropy_change",
                change,
                "share",
                model=f"run {run}",
                dip=0.1,
                end=0.9,
                nll_change=-0.5,
                **tags,
            )
        )
    for of, (name, low, high, value) in itertools.product(
        ("change", "dip", "end"), (("MLP", "plain", "gated", -0.01), ("rate", "0.1", "1", 0.02))
    ):
        rows.append(
            records.row(
                "effect",
                value,
                "share",
                model="all runs",
                of=of,
                factor=name,
                low_level=low,
                high_level=high,
                low=value - 0.005,
                high=value + 0.005,
            )
        )
    return rows


def claim(id, verdict, figure="series", **changes):
    return {
        "id": id,
        "study": "s",
        "source": "Kim et al. 2024",
        "sentence": f"It {id} <so>.",
        "measured": 0.5,
        "low": -0.25,
        "high": 1.25,
        "unit": "nats",
        "verdict": verdict,
        "figure": figure,
        "how": "Peak less end.",
    } | changes


def folder(path, study, rows, said=()):
    config = {
        "out": "x",
        "seeds": 2,
        "at": [2, 8],
        "series": None,
        "tell": {"facts": "a <b>", "deep": {"times": 7}},
        "variants": [{"name": "bonus", "weight": 2.5}],
    }
    (path / "study.json").write_text(json.dumps({"study": study, "config": config}))
    records.write_rows(
        path / "rows.jsonl", rows, {"study": study, "command": "lmdyn study", "config": config}
    )
    (path / "claims.json").write_text(json.dumps(list(said)))
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    said = [
        claim("rises", "supported"),
        claim("falls", "not supported", "variants"),
        claim("rests", "undecided", "nowhere"),
    ]
    return report.build(
        folder(tmp_path_factory.mktemp("study"), "knowledge entropy", whole(), said)
    )


def test_the_answer_and_claims_come_first_and_link_to_their_figures(built):
    text = built.read_text(encoding="utf-8")
    links = Links(text)
    assert {"claim-rises", "claim-falls", "claim-rests", "series", "variants"} <= links.ids
    local = [a["href"][1:] for a in links.links if a["href"].startswith("#")]
    assert set(local) <= links.ids
    assert local.count("series") == 3, (
        "from its claim, from its heading, and from the section of its study"
    )
    assert "nowhere" not in local
    order = ['id="answer"', 'id="series"', 'id="variants"', "claim-rests", 'id="learning"']
    places = [text.index(part) for part in (*order, 'id="provenance"')]
    assert places == sorted(places), "two figures carry the answer, then claims, then the others"
    for part in (
        "3 claims: 1 supported, 1 not supported, 1 undecided",
        "</span> not supported</td>",
        "It falls &lt;so&gt;.",
        "0.500 nats (95%: \u22120.250 to 1.25)",
    ):
        assert part in text


def test_figures_are_files_too(built):
    files = {f.stem: f.read_text() for f in (built.parent / "figures").iterdir()}
    assert files.keys() == {
        "series",
        "entropy-by-layer",
        "against-entropy",
        "learning",
        "balance",
        "reactivation",
        "variants",
        "controls",
    }
    for svg in files.values():
        assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "Forgetting" in files["series"], "every panel is in it"


def test_nested_settings_are_folded(built):
    text = built.read_text(encoding="utf-8")
    for part in (
        "seeds=2, at=2 8, series=none",
        "<summary>tell",
        "facts=a &lt;b&gt;",
        "<summary>deep</summary>times=7",
        "<summary>1 bonus",
    ):
        assert part in text


def test_a_study_is_built_again_to_the_same_page(built):
    before = built.read_bytes()
    assert report.build(built.parent).read_bytes() == before


@pytest.mark.parametrize(
    "rows, names",
    [
        (plain(1), ["series", "entropy-by-layer", "against-entropy", "learning", "controls"]),
        (decay(), ["curves", "effects", "other-effects", "loss"]),
        (told(), ["learning", "gains"]),
    ],
    ids=["one seed, a series alone", "entropy decay", "fact learning"],
)
def test_parts_without_rows_are_left_out(rows, names):
    found = {"series": knowledge_entropy, "curves": entropy_decay, "learning": fact_learning}[
        names[0]
    ].figures(rows)
    assert [f.name for f in found] == names
    for figure in found:
        ElementTree.fromstring(page.to_svg(figure.chart))


def test_facts_gain_with_their_intervals():
    learning, gains = fact_learning.figures(told())
    asked, exact = learning.chart
    assert {
        (d["depth"], d["update"]): d["value"] for d in drawn(asked) if "each" in d
    } == pytest.approx(
        {
            (depth, m): g * r / 4 - 4
            for depth, g in (("memorisation", 2.0), ("composition", 1.0))
            for m, r in ROUNDS
        }
    )
    assert max(d["value"] for d in drawn(exact) if "each" in d) == pytest.approx(0.2)
    assert [d["update"] for d in drawn(asked) if d.keys() == {"update"}] == [
        0.0,
        10.0,
        20.0,
        30.0,
    ], "four rounds, ten updates each"
    assert [(d["low"], d["value"], d["high"]) for d in drawn(gains.chart) if "low" in d] == [
        (1.5, 2.0, 2.5),
        (0.5, 1.0, 1.5),
    ]
    assert sorted(d["value"] for d in drawn(gains.chart) if "fact" in d) == [0.5, 1.5, 1.5, 2.5]


@pytest.mark.parametrize(
    "make", [knowledge_entropy.figures, entropy_decay.figures, fact_learning.figures]
)
def test_no_rows_no_figures(make):
    assert make([]) == []


def test_reactivation_is_less_the_same_seed_unchanged():
    left, right = knowledge_entropy.reactivation(whole()).chart
    for chart, wanted in (
        (left, {"reactivated": 2.0, "random": -1.0, "by entropy": 0.5}),
        (right, dict.fromkeys(REACTIVATIONS, -0.5)),
    ):
        found = {d["kind"]: d["value"] for d in drawn(chart) if "each" in d}
        assert found == pytest.approx(wanted)


def test_variants_are_compared_at_equal_loss():
    data = knowledge_entropy.variants(whole()).data
    above = {(d["name"], d["seed"]): d["above"] for d in data if "above" in d}
    # The plain series has 10 nll + seed.
    expected = {("bonus", s): 4.0 for s in range(2)} | {
        ("reactivated: ratio 0.5, gain 2", s): -3.0 for s in range(2)
    }
    assert {k: above[k] for k in expected} == pytest.approx(expected)


def test_series_draws_means_over_seeds():
    _, nll, acquisition, forgetting = knowledge_entropy.series(whole()).chart
    assert {d["step"]: d["value"] for d in drawn(acquisition) if "each" in d} == pytest.approx(
        {2: 30.5, 8: 20.5, 32: 10.5}
    )
    assert {d["step"] for d in drawn(nll)} == {0, 1, *STEPS}, (
        "pretraining is drawn from its first step"
    )
    assert all(d["value"] == 0.25 for d in drawn(forgetting) if "step" in d), (
        "of everything, not of the text alone"
    )


def test_the_second_half_begins_where_each_length_has_it():
    rows = [
        r for r in decay() if not (r.get("run") == 2 and r["step"] == 8)
    ]  # a run of half the length
    halves = [
        {d["step"] for d in drawn(chart) if d.keys() == {"step"}}
        for chart in entropy_decay.curves(rows).chart
    ]
    assert halves == [{2.0, 4.0}, {4.0}]


def test_effects_are_ordered_by_size_with_their_intervals():
    data = entropy_decay.effects(decay()).data
    assert [d["factor"] for d in data] == ["rate", "MLP"]
    assert [d[k] for d in data for k in ("value", "low", "high")] == pytest.approx(
        [0.02, 0.015, 0.025, -0.01, -0.015, -0.005]
    )
    shown = [
        {d["run"] for d in drawn(chart) if "run" in d}
        for chart in entropy_decay.curves(decay()).chart
    ]
    assert shown == [{0, 2}, {1, 3}], "panels are the second factor, plain and gated"


@pytest.mark.parametrize(
    "kinds, expected",
    [("nnn", "nnw"), ("nn", "nn"), ("n", "w"), ("wnw", "www"), ("wnnnw", "wnnww"), ("w", "w")],
)
def test_no_figure_stands_beside_nothing(kinds, expected):
    groups = [
        Group("", [("", Figure(str(i), "", "", () if kind == "w" else None, []))])
        for i, kind in enumerate(kinds)
    ]
    assert "".join("nw"[wide] for wide in figure_blocks.wide(groups)) == expected


BAD = {
    "not json": ("[{", "cannot be read"),
    "no list": ("{}", "is not a list of claims"),
    "no claim": ('[{"id": "a"}]', "claim 1 lacks study, source"),
    "no verdict": (
        json.dumps([claim("a", "perhaps")]),
        "verdict 'perhaps'; it is one of: supported, not supported, undecided",
    ),
}


@pytest.mark.parametrize("text, said", BAD.values(), ids=BAD)
def test_bad_claims_are_named(tmp_path, text, said):
    (tmp_path / "claims.json").write_text(text)
    with pytest.raises(InputError, match=said):
        claims_table.read(tmp_path)


def test_a_study_that_has_not_ended(tmp_path):
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(InputError, match="is unfinished; resume it with its own command"):
        report.build(tmp_path)


def test_numbers_keep_their_sign_and_three_digits():
    for value in np.random.default_rng(0).normal(size=50) * 10.0 ** np.linspace(-2, 3, 50):
        text = claims_table.number(value)
        assert float(text.replace("\u2212", "-").replace(",", "")) == pytest.approx(
            value, rel=0.01, abs=5e-5
        )
