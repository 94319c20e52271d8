"""The study of one model, small."""

import json

import numpy as np
import pytest

from lmdyn import records
from lmdyn.checkpoints import exporting
from lmdyn.data import tokenizers
from lmdyn.models import LanguageModel, ModelConfig, init
from lmdyn.studies import ContinualTraining, FactInjection, FactLearning, fact_learning
from lmdyn.training import Optimizer
from tests.studies.cases import WORLD


def test_a_model_learns_facts(tmp_path):
    model = LanguageModel(
        ModelConfig(
            vocab=257, width=12, depth=2, heads=2, head_width=6, mlp_width=20, positions=640
        )
    )
    exporting.export(model, init(model), tokenizers.byte_tokenizer(), tmp_path / "model")
    config = FactLearning(
        out=str(tmp_path / "out"),
        model=f"dir:{tmp_path / 'model'}",
        injection=FactInjection(WORLD, count=3, rounds=2, every=3),
        continual=ContinualTraining(
            "builtin:code:test",
            "builtin:code:test",
            length=640,
            batch=2,
            steps_after=1,
            optimizer=Optimizer(learning_rate=1e-2, schedule="constant"),
        ),
        text="builtin:docs:test",
        tokens=640,
    )
    said = []
    fact_learning.run(config, say=said.append)
    rows = records.read_rows(tmp_path / "out" / "rows.jsonl")
    table = next(line for line in said if line.startswith("depth"))
    depths = {r["depth"] for r in rows if r["metric"] == "acquisition"}
    assert {"memorisation", "paraphrase", "composition"} <= depths
    assert all(depth in table for depth in depths if depth)
    claims = {c["id"]: c for c in json.loads((tmp_path / "out" / "claims.json").read_text())}
    gained = {
        depth: [r["value"] for r in rows if r["metric"] == "fact_gain" and r["depth"] == depth]
        for depth in depths
    }
    assert len(gained["composition"]) == 3
    difference = np.mean(gained["memorisation"]) - np.mean(gained["composition"])
    assert claims["words-before-meaning"]["measured"] == pytest.approx(difference)
