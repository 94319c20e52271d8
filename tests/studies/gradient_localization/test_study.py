"""The study of gradient localization, small: what it writes, that claims are made of its rows, that
bad input is found first.
"""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from lmdyn import checkpoints, data, metrics, records
from lmdyn.analysis.statistics import interval
from lmdyn.errors import InputError
from lmdyn.params import flatten, partition
from lmdyn.studies import GradientLocalization, Method, OnlineStream, gradient_localization
from lmdyn.studies.gradient_localization.comparisons import advantage
from lmdyn.studies.gradient_localization.profile_parts import (
    by_entity,
    shared_attributes,
    training_profile,
)
from lmdyn.studies.gradient_localization.questions import load_subject, questions
from lmdyn.studies.gradient_localization.restrictions import MODES, RUNNING, restriction, selector
from lmdyn.studies.gradient_localization.study import check
from lmdyn.studies.gradient_localization.training_parts import anonymous, batches, program
from lmdyn.training import Data, LoRA, Optimizer, Recall, Review, Source
from tests.studies.cases import LOCAL_WORLD, localization


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    page = gradient_localization.run(localization(out), ["lmdyn", "study"], lambda text: None)
    return out, page, records.read_rows(out / "rows.jsonl")


def of(rows, metric, **more):
    return [
        r for r in rows if r["metric"] == metric and all(r.get(k) == v for k, v in more.items())
    ]


@pytest.mark.slow
def test_the_folder_holds_rows_claims_and_a_page(finished):
    out, page, rows = finished
    assert page == out / "report.html" and page.stat().st_size > 10_000
    names = {c["id"] for c in json.loads((out / "claims.json").read_text())}
    assert {
        "updated-exceeds",
        "new-exceeds",
        "new-subset",
        "kinds-differ",
        "plain-freeze",
        "plain-scale",
        "plain-freeze-random",
        "adapters-freeze",
        "plain-freeze-complement",
        "plain-scale-random",
        "running-freeze",
        "online-freeze",
        "online-scale",
    } <= names
    done = {(r["seed"], r["method"], r["mode"], r["factor"]) for r in of(rows, "learned")}
    modes = {"plain": set(MODES) | set(RUNNING), "adapters": set(MODES) - {"blocks"}}
    assert done == {
        (s, m, mode, f)
        for s in (0, 1)
        for m, used in modes.items()
        for mode in used
        for f in (1.0, 4.0)
    }
    figures = {file.stem for file in (out / "figures").iterdir()}
    assert figures == {
        "profile",
        "difference",
        "frontier",
        "by-kind",
        "moved",
        "running",
        "running-frontier",
        "online",
    }


def test_the_profile_is_that_of_half_the_entities(finished):
    out, _, rows = finished
    config = localization(out)
    loaded = checkpoints.load(f"run:{out}/runs/seed1")
    asked = questions(config, 1)
    for kind in ("updated", "new", "unchanged"):
        assert not {p.entity for p in asked.traced[kind]} & {p.entity for p in asked.asked[kind]}
    batch = data.encode_probes(asked.traced["new"], loaded.tokenizer)
    norms = metrics.layer_gradients(loaded.model, loaded.params, batch, groups=("attention", "mlp"))
    for group in ("attention", "mlp"):
        found = [r["value"] for r in of(rows, "gradient_norm", set="new", site=group, seed=1)]
        np.testing.assert_allclose(found, norms.norms[group].mean(-1), rtol=1e-4)
    ratio = {
        kind: np.array([r["value"] for r in of(rows, "relative_gradient_norm", kind=kind, seed=1)])
        for kind in ("new", "updated", "traced")
    }
    np.testing.assert_allclose(ratio["traced"], (ratio["new"] + ratio["updated"]) / 2, rtol=1e-6)


@pytest.mark.parametrize("number", [0, 1])
def test_what_is_frozen_may_be_left_out(finished, number):
    """The study multiplies updates by rates; left out, frozen layers are in a partition. Same
    numbers, and what is frozen keeps its bits.
    """
    out, _, rows = finished
    config = localization(out)
    here, method = load_subject(config, 0), anonymous(config.methods[number])
    rates = restriction("freeze", training_profile(rows, 0), 0)
    given, found = batches(config, here.tokenizer, 0, method), []
    for without, used in ((None, rates), (rates, rates.of_rest())):
        made = program(config, here.model, method, without)
        state = made.begin(here.params)
        state = state._replace(optimizer=used.put(state.optimizer, 2.0))
        for batch in given:
            state, _ = made.step(state, batch)
        found.append(
            (
                flatten(made.whole(state)),
                sum(leaf.size for leaf in jax.tree.leaves(state.optimizer)),
            )
        )
    (masked, whole), (free, fewer) = found
    assert fewer < 0.8 * whole
    before, kept = (flatten(here.params), partition(here.params, selector(rates)).chosen)
    bits = lambda leaf: np.asarray(leaf).view(np.uint32)
    for path, leaf in masked.items():
        layers = kept.get(path, ())
        still = (
            [i for i in range(len(leaf)) if i not in layers] if path[0] == "blocks" else slice(None)
        )
        assert (bits(leaf)[still] == bits(before[path])[still]).all() and (
            bits(free[path])[still] == bits(before[path])[still]
        ).all()
        # Adam divides by small numbers: 4 steps of 2e-2 differ by a fraction of one at most
        assert np.abs(np.asarray(leaf) - np.asarray(free[path])).max() < 0.01


def test_claims_are_made_of_rows(finished):
    out, _, rows = finished
    claims = {c["id"]: c for c in json.loads((out / "claims.json").read_text())}
    r = np.array(
        [
            [x["value"] for x in of(rows, "relative_gradient_norm", kind="new", seed=s)]
            for s in (0, 1)
        ]
    )
    most = [r[s, r[1 - s].argmax()] for s in (0, 1)]
    assert claims["new-exceeds"]["measured"] == pytest.approx(np.mean(most))
    assert claims["new-exceeds"]["low"] == pytest.approx(interval(most).low)
    value = lambda metric, seed, mode, factor: of(
        rows, metric, seed=seed, method="plain", mode=mode, factor=factor
    )[0]["value"]
    for seed in (0, 1):  # what a run learned and forgot is made of what it was asked
        spans = {
            (r["kind"], r["update"]): r["value"]
            for r in of(
                rows, "span_log_probability", seed=seed, method="plain", mode="scale", factor=4.0
            )
        }
        nll = {
            r["update"]: r["value"]
            for r in of(rows, "old_nll", seed=seed, method="plain", mode="scale", factor=4.0)
        }
        learned = np.mean([spans[kind, 4] - spans[kind, 0] for kind in ("updated", "new")])
        forgotten = np.mean(
            [
                nll[4] / nll[0] - 1,
                (spans["unchanged", 0] - spans["unchanged", 4]) / abs(spans["unchanged", 0]),
            ]
        )
        assert value("learned", seed, "scale", 4.0) == pytest.approx(learned)
        assert value("forgotten", seed, "scale", 4.0) == pytest.approx(forgotten)
    gained = [advantage(rows, seed, "plain", "freeze", "random") for seed in (0, 1)]
    assert claims["plain-freeze-random"]["measured"] == pytest.approx(np.mean(gained))
    nll = {
        (mode, steps): np.array(
            [
                [r["value"] for r in of(rows, "online_nll", mode=mode, steps=steps, seed=s)]
                for s in (0, 1)
            ]
        )
        for mode in ("plain", "freeze")
        for steps in (1, 2)
    }
    best = {key: np.array([v[s, v[1 - s].argmin()] for s in (0, 1)]) for key, v in nll.items()}
    flops = {
        key: np.array(
            [of(rows, "online_nll", mode=key[0], steps=key[1], seed=s)[0]["flops"] for s in (0, 1)]
        )
        for key in nll
    }
    share = (flops["plain", 1] - flops["freeze", 1]) / (flops["freeze", 2] - flops["freeze", 1])
    equal = best["freeze", 1] + share * (best["freeze", 2] - best["freeze", 1])
    assert claims["online-freeze"]["measured"] == pytest.approx(np.mean(best["plain", 1] - equal))


def runs(points):
    """Rows of runs of one seed: `{mode: [(forgotten, learned), ...]}` at rising rates."""
    tags = lambda mode, factor: {"seed": 0, "method": "m", "mode": mode, "factor": factor}
    return [
        records.row(metric, pair[i], "x", model="r", **tags(mode, float(factor)))
        for mode, pairs in points.items()
        for factor, pair in enumerate(pairs, 1)
        for i, metric in enumerate(("forgotten", "learned"))
    ]


def test_modes_are_compared_at_equal_forgetting():
    plain = [(0.1, 1.0), (0.2, 1.5), (0.4, 1.2)]
    assert advantage(runs({"plain": plain, "freeze": plain}), 0, "m", "freeze", "plain") == 0
    # half as much forgetting for the same: at 0.1 it has learned 1.5; at 0.2, the most of plain's
    # runs that still learn more, 1.5 too
    half = [(f / 2, v) for f, v in plain]
    assert advantage(
        runs({"plain": plain, "freeze": half}), 0, "m", "freeze", "plain"
    ) == pytest.approx((0.5 + 0.0) / 2)
    # a mode that reaches 0.05 only is compared there: plain has learned half of 1.0
    short = [(0.02, 0.1), (0.05, 0.2)]
    assert advantage(
        runs({"plain": plain, "freeze": short}), 0, "m", "freeze", "plain"
    ) == pytest.approx(0.2 - 0.5)


def test_it_goes_on_where_it_stopped(finished, tmp_path):
    out, _, rows = finished
    again = tmp_path / "out"
    shutil.copytree(out, again)
    (again / "parts" / "seed1-adapters.jsonl").unlink()
    said = []
    gradient_localization.run(localization(again), say=said.append)
    assert [line.split(":")[0] for line in said] == ["seed1-adapters"]
    plain = lambda found: [{k: v for k, v in r.items() if k != "model"} for r in found]
    assert plain(records.read_rows(again / "rows.jsonl")) == plain(rows)


def test_a_given_model_and_published_probes(finished, tmp_path):
    """Any model reference, and probes from files of two makes: TempLAMA's for updated facts, ECBD's
    for new entities.
    """
    out, _, _ = finished
    relations = [
        {
            "query": f"Person {i} of town {i * 7 % 5} plays for _X_.",
            "answer": [{"name": f"club {'b' if i % 3 and year == 2020 else 'a'}{i}"}],
            "date": str(year),
            "id": f"P{i}_rel_{year}",
            "relation": "rel",
        }
        for i in range(24)
        for year in (2010, 2020)
    ]
    entities = [
        {
            "masked_sentence": f"Place {i} is known for <extra_id_0>, of course.",
            "answer_d": {"<extra_id_0>": f"thing {i}"},
            "year": "2019",
            "entity_span_str": f"Place {i}",
        }
        for i in range(8)
    ]
    for name, lines in (("templama", relations), ("ecbd", entities)):
        (tmp_path / f"{name}.json").write_text("\n".join(map(json.dumps, lines)))
    refs = (f"templama:{tmp_path}/templama.json@2010,2020", f"ecbd:{tmp_path}/ecbd.json@2018")
    config = localization(
        tmp_path / "out",
        model=f"run:{out}/runs/seed0",
        pretrain=None,
        seeds=1,
        methods=(Method("plain"),),
        online=None,
        probes=refs,
        leave_out_frozen=True,
        learning_rate_factors=(1.0,),
    )
    gradient_localization.run(config, say=lambda text: None)
    rows = records.read_rows(tmp_path / "out" / "rows.jsonl")
    (test,) = of(rows, "profile_difference", site=None)
    assert test["matched"] is False and test["entities"] == [8, 4]
    found = (
        of(rows, "flops", mode="freeze")[0]["value"],
        of(rows, "flops", mode="plain")[0]["value"],
    )
    assert found[0] < found[1]
    assert {
        c["verdict"]
        for c in json.loads((tmp_path / "out" / "claims.json").read_text())
        if c["id"] != "kinds-differ"
    } == {"undecided"}
    with pytest.raises(
        InputError, match="has probes of kind new about 0 entities, and 4 are needed"
    ):
        check(dataclasses.replace(config, probes=refs[:1]))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(probes=("no/such.jsonl",)), "no/such.jsonl"),
        (dict(probes=(f"{LOCAL_WORLD}:time0",)), "the target is empty"),
        (
            dict(probes=(f"{LOCAL_WORLD}:probes".replace("new=0.4", "new=0.0"),)),
            "probes of kind new about 0 entities",
        ),
        (dict(text="builtin:dogs"), "dogs"),
        (dict(reference="builtin:dogs"), "dogs"),
        (dict(data=Data(sources=(Source("builtin:dogs"),), length=48, batch=3)), "dogs"),
        (dict(methods=(Method("plain"), Method("m", review=Review("builtin:dogs")))), "dogs"),
        (
            dict(methods=(Method("plain"), Method("m", adapters=LoRA("blocks", rank=99)))),
            "rank=99 exceeds",
        ),
        (dict(online=OnlineStream("builtin:dogs")), "dogs"),
        (dict(model="dir:no/such", pretrain=None), "no/such"),
    ],
)
def test_bad_input_is_found_first(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        gradient_localization.run(localization(tmp_path / "new", **options))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(model="dir:x"), "give either model= .* or pretrain="),
        (dict(probes=()), r"probes=\(\)"),
        (
            dict(learning_rate_factors=()),
            r"learning_rate_factors=\(\); give ascending positive numbers",
        ),
        (dict(learning_rate_factors=(2.0, 1.0)), "give ascending positive numbers"),
        (dict(methods=(Method("a"), Method("a"))), "methods are named a, a"),
        (
            dict(methods=(Method("a", learning_rate_factor=0.0),)),
            "method a: learning_rate_factor=0.0",
        ),
        (
            dict(
                methods=(Method("a", recall=Recall(1.0, 1.0, 1.0)),),
                optimizer=Optimizer(name="sgd"),
            ),
            "recall needs optimizer.name=adamw",
        ),
        (dict(online=OnlineStream("builtin:docs", learning_rates=(0.0,))), "online.learning_rates"),
        (dict(ask_limit=1), "ask_limit=1; it must be at least 2"),
        (dict(evaluations=9), "evaluations=9 is more than the 4 steps"),
        (dict(steps="4"), "GradientLocalization.steps='4' is of type str, not int"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        localization(tmp_path, **options)


def test_kinds_are_compared_by_the_attributes_that_both_have():
    probe = lambda entity, attribute: data.Probe("a b", 2, 3, "new", None, entity, attribute)
    probes = {
        "new": [probe("x", "job"), probe("x", "job"), probe("y", "job"), probe("y", "city")],
        "updated": [probe("z", "job"), probe("w", "job")],
    }
    assert shared_attributes(probes) == {"job"}
    norms = metrics.LayerGradients(
        {"mlp": np.array([[2.0, 8.0, 3.0, 100.0]])}, {"mlp": (0,)}, 1, np.ones(4), np.ones(4, int)
    )
    np.testing.assert_allclose(
        by_entity(norms, probes["new"], {"job"}).norms["mlp"], [[4.0, 3.0]]
    )  # the geometric mean of 2 and 8
    assert shared_attributes({**probes, "updated": [probe("z", "job"), probe("w", "club")]}) is None


def test_the_config_is_a_dataclass_of_options():
    assert {f.name for f in dataclasses.fields(GradientLocalization)} >= {
        "model",
        "probes",
        "methods",
        "learning_rate_factors",
        "seeds",
    }
