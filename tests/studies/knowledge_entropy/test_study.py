"""The whole study, small: what it writes, that it goes on, and that its claims are made of its
rows.
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from lmdyn import checkpoints, data, metrics, records, transforms
from lmdyn.analysis.statistics import interval
from lmdyn.cli import command_line
from lmdyn.errors import InputError
from lmdyn.studies import ContinualTraining, FactInjection, knowledge_entropy
from lmdyn.studies.folder import Folder
from lmdyn.studies.knowledge_entropy.series import outcome, series
from tests.studies.cases import WORLD, small


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    said = []
    page = knowledge_entropy.run(small(out), ["lmdyn", "study"], said.append)
    return out, page, records.read_rows(out / "rows.jsonl"), said


def of(rows, metric, **more):
    return [
        r for r in rows if r["metric"] == metric and all(r.get(k) == v for k, v in more.items())
    ]


@pytest.mark.slow
def test_the_folder_holds_rows_claims_and_a_page(finished):
    out, page, rows, _ = finished
    assert page == out / "report.html" and page.stat().st_size > 10_000
    claims = json.loads((out / "claims.json").read_text())
    names = {c["id"] for c in claims}
    assert {
        "entropy-falls",
        "acquisition-falls",
        "retention-falls",
        "entropy-acquisition",
        "entropy-retention",
        "middle-best",
        "reactivation-acquisition",
        "reactivation-retention",
        "reactivation-control",
        "reactivation-by-entropy",
        "entropy-bonus-acquisition",
        "periodic-reactivation-acquisition",
    } <= names
    assert all(
        c["verdict"] in ("supported", "not supported", "undecided") and c["sentence"] and c["how"]
        for c in claims
    )
    assert json.loads((out / "rows.jsonl.meta.json").read_text())["study"] == "knowledge entropy"
    starts = {(r["seed"], r["start"]) for r in of(rows, "acquisition")}
    assert len(starts) == 2 * (
        4 + 3 * 2 + 2
    )  # checkpoints; two ratios as themselves, at random and by entropy; variants


def test_entropies_are_those_of_the_checkpoints(finished):
    out, _, rows, _ = finished
    loaded = checkpoints.load(f"run:{out}/runs/seed1@4")
    batches = list(data.batches("builtin:docs:test", loaded.tokenizer, 640, 2, 640))
    found = metrics.measure(
        metrics.build("nll,knowledge_entropy"), loaded.model, loaded.params, batches
    )
    (entropy,) = of(rows, "knowledge_entropy", seed=1, start="step 4", layer=None)
    (nll,) = of(rows, "nll", seed=1, start="step 4")
    assert abs(entropy["value"] - found["knowledge_entropy"].total) < 1e-6
    assert abs(nll["value"] - found["nll"].nll) < 1e-6
    last = checkpoints.load(f"run:{out}/runs/seed1@12")
    coefficients = metrics.measure(
        metrics.knowledge_entropy(), last.model, last.params, batches
    ).coefficients
    awake = transforms.reactivate(last.params, coefficients, 0.5, 1.0)
    wanted = metrics.measure(metrics.knowledge_entropy(), last.model, awake, batches).total
    (woken,) = of(
        rows, "knowledge_entropy", seed=1, start="reactivated ratio 0.5 gain 1", layer=None
    )
    assert abs(woken["value"] - wanted) < 1e-6


def test_seeds_and_starts_differ(finished):
    *_, rows, _ = finished
    values = [r["value"] for r in of(rows, "acquisition", depth=None)]
    assert len(set(values)) == len(values)


def test_claims_are_made_of_rows(finished):
    out, _, rows, _ = finished
    claims = {c["id"]: c for c in json.loads((out / "claims.json").read_text())}
    steps = (2, 4, 8, 12)
    pick = lambda metric, seed, start, **more: of(rows, metric, seed=seed, start=start, **more)[0][
        "value"
    ]
    entropy, gained = (
        np.array([[pick(m, s, f"step {k}", **w) for k in steps] for s in (0, 1)])
        for m, w in (("knowledge_entropy", {"layer": None}), ("acquisition", {"depth": None}))
    )
    # the earlier checkpoint that is best in the other seed, less the last
    falls = [entropy[s, entropy[1 - s, :-1].argmax()] - entropy[s, -1] for s in (0, 1)]
    assert claims["entropy-falls"]["measured"] == pytest.approx(np.mean(falls))
    assert claims["entropy-falls"]["low"] == pytest.approx(interval(falls).low)
    r = [np.corrcoef(entropy[s], gained[s])[0, 1] for s in (0, 1)]
    assert claims["entropy-acquisition"]["measured"] == pytest.approx(
        np.tanh(np.arctanh(r).mean()), abs=1e-3
    )
    cells = ("ratio 0.25 gain 1", "ratio 0.5 gain 1")
    change = np.array(
        [
            [
                pick("acquisition", s, f"reactivated {c}", depth=None)
                - pick("acquisition", s, f"random {c}", depth=None)
                for c in cells
            ]
            for s in (0, 1)
        ]
    )
    assert claims["reactivation-control"]["measured"] == pytest.approx(
        np.mean([change[s, change[1 - s].argmax()] for s in (0, 1)])
    )
    level = np.array(
        [
            [
                of(rows, "span_log_probability", seed=s, start=f"reactivated {c}", depth=None)[-1][
                    "value"
                ]
                - of(rows, "span_log_probability", seed=s, start="step 12", depth=None)[-1]["value"]
                for c in cells
            ]
            for s in (0, 1)
        ]
    )
    assert claims["reactivation-new-level"]["measured"] == pytest.approx(
        np.mean([level[s, level[1 - s].argmax()] for s in (0, 1)])
    )
    (chosen,) = of(rows, "recommended")
    score = np.array(
        [[r["value"] for r in of(rows, "combined_score", seed=s)] for s in (0, 1)]
    ).mean(0)
    assert chosen["value"] == steps[score.argmax()]


def test_it_goes_on_where_it_stopped_and_gives_the_same(finished, tmp_path):
    out, _, rows, _ = finished
    again = tmp_path / "out"
    shutil.copytree(out, again)
    for name in ("seed1-step-8", "seed0-entropy-bonus"):
        (again / "parts" / f"{name}.jsonl").unlink()
    said = []
    knowledge_entropy.run(
        dataclasses.replace(small(again), workers=2), say=said.append
    )  # in processes: the same numbers
    assert sorted(line.split(":")[0] for line in said) == ["seed0-entropy-bonus", "seed1-step-8"]
    plain = lambda found: [{k: v for k, v in r.items() if k != "model"} for r in found]
    assert plain(records.read_rows(again / "rows.jsonl")) == plain(rows)


def test_a_series_by_reference(finished, tmp_path):
    out, _, rows, _ = finished
    config = small(
        tmp_path / "out",
        series=f"run:{out}/runs/seed0@2,4,8",
        known_probes=None,
        seeds=1,
        ratios=(),
    )
    knowledge_entropy.run(config, say=lambda text: None)
    found = records.read_rows(tmp_path / "out" / "rows.jsonl")
    for step in (2, 4, 8):
        (one,), (other,) = (
            of(r, "acquisition", seed=0, start=f"step {step}", depth=None) for r in (found, rows)
        )
        assert one["value"] == pytest.approx(other["value"], abs=1e-5)
    verdicts = {c["verdict"] for c in json.loads((tmp_path / "out" / "claims.json").read_text())}
    assert verdicts == {"undecided"}  # one seed decides nothing


def test_a_series_of_the_hub_and_facts_of_ones_own(finished, tmp_path, monkeypatch):
    """The same checkpoints, as the hub's client lays them out, give what the run gives; facts come
    from a JSON Lines file.
    """
    constants = pytest.importorskip("huggingface_hub.constants")
    root = tmp_path / "cache" / "models--org--name"
    (root / "refs").mkdir(parents=True)
    for step in (2, 4, 8):
        loaded = checkpoints.load(f"run:{finished[0]}/runs/seed0@{step}")
        checkpoints.export(
            loaded.model, loaded.params, loaded.tokenizer, root / "snapshots" / (str(step) * 40)
        )
        (root / "refs" / f"step{step}000-tokens{step}B").write_text(str(step) * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    facts = [
        {
            "name": name,
            "texts": [f"The capital of {name} is {city}.", f"{city} rules {name}."],
            "probes": [
                {
                    "depth": "memorisation",
                    "prompt": f"The capital of {name} is",
                    "target": f"{city}.",
                }
            ],
        }
        for name, city in (("Arvia", "Tolm"), ("Besk", "Unn"))
    ]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    injection = FactInjection(str(tmp_path / "facts.jsonl"), rounds=2, every=3, ask_every=1)
    gained = {}
    for name, given in (
        ("hub", "hf:org/name@step2000-tokens2B,step4000-tokens4B,step8000-tokens8B"),
        ("run", f"run:{finished[0]}/runs/seed0@2,4,8"),
    ):
        config = small(
            tmp_path / name,
            series=given,
            known_probes=None,
            seeds=1,
            ratios=(),
            injection=injection,
        )
        knowledge_entropy.run(config, say=lambda text: None)
        rows = records.read_rows(tmp_path / name / "rows.jsonl")
        gained[name] = {
            r["step"]: r["value"] for r in of(rows, "acquisition", depth="memorisation")
        }
    assert list(gained["hub"]) == [2000, 4000, 8000]
    assert list(gained["hub"].values()) == pytest.approx(list(gained["run"].values()), abs=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            dict(series="run:{out}/runs/seed0@2"),
            "a series of 1 checkpoint; correlations over a series need at least 3",
        ),
        (dict(series="dir:a@main,other"), "has no step in its name"),
        (
            dict(compare_steps=(2, 5, 8)),
            "compare_steps=5: pretrain.checkpoints does not keep this step; it keeps: 1, 2, 4, 8,",
        ),
        (dict(compare_steps=(2, 8)), "a series of 2 checkpoints"),
        (dict(known_probes="no/such.jsonl"), "no/such.jsonl"),
        (dict(injection=FactInjection("no/such.json")), "no/such.json"),
        (dict(text="builtin:dogs"), "dogs"),
        (dict(injection=FactInjection(WORLD, every=1)), "facts, 1 rows of a batch at most, take"),
        (
            dict(continual=ContinualTraining("builtin:code:test", length=200)),
            "tokens, and a window holds 200",
        ),
        (dict(known_probes=f"{WORLD}:time0"), "the target is empty"),
    ],
)
def test_bad_input_is_found_first(finished, tmp_path, options, message):
    options = {
        k: v.replace("{out}", str(finished[0])) if isinstance(v, str) else v
        for k, v in options.items()
    }
    with pytest.raises(InputError, match=message):
        knowledge_entropy.run(small(tmp_path / "new", **options))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(ratios=(0.5, 1.5)), "ratios: 1.5; a ratio of reactivation is above 0 and at most 1"),
        (dict(gains=(0.0,)), "gains: 0.0; a gain of reactivation is a positive number"),
        (dict(seeds=0), "seeds=0; it must be at least 1"),
        (dict(pretrain=None), "give either series= .* or pretrain="),
        (dict(seeds="3"), "KnowledgeEntropy.seeds='3' is of type str, not int"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        small(tmp_path, **options)


def test_another_config_in_the_same_folder_is_refused(finished):
    with pytest.raises(
        InputError,
        match="holds this study with another config: known_limit: 10 -> 11; choose another --out",
    ):
        knowledge_entropy.run(small(finished[0], known_limit=11))


def test_a_study_that_failed_before_its_first_part_does_not_hold_the_folder(tmp_path):
    Folder(tmp_path / "out", "a", {"x": 1})
    Folder(tmp_path / "out", "a", {"x": 2}).part(
        "p", lambda: [records.row("nll", 1.0, "nats", model="m")]
    )
    with pytest.raises(InputError, match="x: 2 -> 3"):
        Folder(tmp_path / "out", "a", {"x": 3})


def test_an_interrupted_study_says_that_it_goes_on(tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(knowledge_entropy, "run", stop)
    (tmp_path / "config.py").write_text(CONFIG.format(out=str(tmp_path / "out")))
    assert command_line.main(["study", "--config", str(tmp_path / "config.py")]) == 130
    assert "the same command resumes it" in capsys.readouterr().err


CONFIG = """
from tests.studies.cases import WORLD, small
def config():
    return small({out!r})
"""


@pytest.mark.parametrize(
    "words, message",
    [
        (["--seeds", "0"], "seeds=0; it must be at least 1"),
        (["--seedz", "1"], "unknown: --seedz 1 (did you mean --seed?)"),
        (
            ["--injection.wordings", "twice"],
            "--injection.wordings does not take 'twice'; it takes paraphrases, same, once",
        ),
        (["--series", "run:no/such"], "no/such"),
    ],
)
def test_the_command_line_says_what_is_wrong(tmp_path, capsys, words, message):
    (tmp_path / "config.py").write_text(CONFIG.format(out=str(tmp_path / "out")))
    assert command_line.main(["study", "--config", str(tmp_path / "config.py"), *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_command_line_prints_the_claims_of_a_finished_study(finished, tmp_path, capsys):
    shutil.copytree(finished[0], tmp_path / "out")
    (tmp_path / "config.py").write_text(CONFIG.format(out=str(tmp_path / "out")))
    assert command_line.main(["study", "--config", str(tmp_path / "config.py")]) == 0
    said = capsys.readouterr().out
    assert "Knowledge entropy falls from its peak as pretraining goes on." in said
    assert str(tmp_path / "out" / "report.html") in said


def test_series_need_matching_rows(finished):
    *_, rows, _ = finished
    table = series(rows)
    assert table.entropy.shape == (2, 4) and table.steps == [2, 4, 8, 12]
    with pytest.raises(ValueError, match="one was expected"):
        outcome(rows, 0, "step 3")
