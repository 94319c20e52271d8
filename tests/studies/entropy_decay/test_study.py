"""The factorial, small."""

import dataclasses
import json

import numpy as np
import pytest

from lmdyn import records
from lmdyn.analysis.factorials import fraction
from lmdyn.errors import InputError
from lmdyn.studies import EntropyDecay, Factor, FactorialRun, entropy_decay
from lmdyn.training import CheckpointPolicy, Optimizer
from tests.studies.cases import small

FACTORS = (Factor("rate", "0.01", "0.1"), Factor("MLP", "plain", "gated"))


def study(out, steps=4):
    base = small(out).pretrain
    runs = []
    for rate, gated in fraction(("rate", "MLP")).tolist():
        model = dataclasses.replace(base.model, gated=gated > 0)
        evaluation = dataclasses.replace(base.evaluation, every=1)
        rule = Optimizer(learning_rate=0.1 if rate > 0 else 0.01, schedule="constant")
        runs.append(
            FactorialRun(
                (rate, gated),
                dataclasses.replace(
                    base,
                    model=model,
                    data=dataclasses.replace(base.data, sources=base.data.sources[:1]),
                    steps=steps,
                    optimizer=rule,
                    evaluation=evaluation,
                    checkpoints=CheckpointPolicy(powers_of_two=False, save=9, last=1),
                    out="x",
                ),
            )
        )
    return EntropyDecay(out=str(out), factors=FACTORS, runs=tuple(runs), workers=1)


@pytest.mark.slow
def test_a_factorial_ends_in_effects(tmp_path):
    page = entropy_decay.run(study(tmp_path / "out"), say=lambda text: None)
    rows = records.read_rows(tmp_path / "out" / "rows.jsonl")
    change = {r["run"]: r["value"] for r in rows if r["metric"] == "entropy_change"}
    watched = lambda run, step: next(
        r["normalized"]
        for r in rows
        if r.get("run") == run
        and r["step"] == step
        and r["metric"] == "knowledge_entropy"
        and r["layer"] is None
    )
    for run in range(4):
        assert change[run] == pytest.approx(watched(run, 4) - watched(run, 2))
    effect = {r["factor"]: r for r in rows if r["metric"] == "effect" and r["of"] == "change"}
    gated = np.mean([change[1], change[3]]) - np.mean([change[0], change[2]])
    assert effect["MLP"]["value"] == pytest.approx(gated)
    assert (effect["MLP"]["low_level"], effect["MLP"]["high_level"]) == ("plain", "gated")
    claims = {c["id"]: c for c in json.loads((tmp_path / "out" / "claims.json").read_text())}
    assert claims["entropy-decays"]["measured"] == pytest.approx(-np.mean(list(change.values())))
    assert claims["decay-MLP"]["measured"] == pytest.approx(gated)
    assert claims["decay-MLP"]["low"] <= gated <= claims["decay-MLP"]["high"]
    assert claims["decay-MLP"]["verdict"] == (
        "supported" if effect["MLP"]["low"] * effect["MLP"]["high"] > 0 else "undecided"
    )
    assert page.exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: dataclasses.replace(s, runs=s.runs[:3]), "cannot tell 2 effects"),
        (
            lambda s: dataclasses.replace(
                s, runs=(dataclasses.replace(s.runs[0], levels=(1,)), *s.runs[1:])
            ),
            "give -1 or 1 for each of the 2",
        ),
        (
            lambda s: dataclasses.replace(
                s,
                runs=tuple(
                    dataclasses.replace(r, train=dataclasses.replace(r.train, evaluation=None))
                    for r in s.runs
                ),
            ),
            "must measure nll,knowledge_entropy",
        ),
    ],
)
def test_designs_without_an_answer_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        change(study(tmp_path))
