"""Texts longer than a model's positions: one rule, wherever a text goes through a model."""

import numpy as np
import optax
import pytest

from lmdyn import checkpoints, cli, data, metrics, models, online
from lmdyn.checkpoints.hf_config import read_config
from lmdyn.data import tokenizers
from lmdyn.errors import InputError
from lmdyn.models import ModelConfig, RotaryScaling, trained_length
from lmdyn.training.prepare import prepare
from tests.training import cases

GPT2 = {"model_type": "gpt2", "vocab_size": 257, "n_embd": 6, "n_layer": 1, "n_head": 3}
SIZES = dict(vocab=257, width=6, depth=1, heads=3, head_width=2, mlp_width=10, positions=16)


def folder(path, position):
    config = ModelConfig(**SIZES)
    if position == "learned":
        config = read_config({**GPT2, "n_positions": 16})
    model = models.LanguageModel(config)
    checkpoints.export(model, models.init(model), tokenizers.byte_tokenizer(), path)
    return path


@pytest.mark.parametrize(
    "scaling, reach",
    [
        (None, 16),
        (RotaryScaling("linear", 4.0), 64),
        (RotaryScaling("yarn", 4.0, 8), 32),
        (RotaryScaling("yarn", 4.0, 2), 16),  # the config names more
        (RotaryScaling("llama3", 8.0, 4), 16),
    ],
)
def test_scaling_counts(scaling, reach):
    assert trained_length(ModelConfig(**SIZES, rotary_scaling=scaling)) == reach


def readings(path, text):
    """Every verb that reads windows, at a length of 32."""
    out = str(path.parent / "rows.jsonl")
    probes = path.parent / "probes.jsonl"
    probes.write_text(
        "".join(
            f'{{"prompt": "{"word " * 5}{i}", "target": " is here", "kind": "{kind}"}}\n'
            for i in range(3)
            for kind in ("new", "updated")
        )
    )
    long = ["--data", text, "--out", out, "--tokens", "64"]
    few = ["--out", out, "--spans", "4", "--resamples", "4"]
    model = f"dir:{path}"
    return {
        "measure": ["measure", model, *long, "--length", "32", "--metrics", "nll"],
        "online": ["online", model, *long, "--chunk", "32", "--no-static"],
        "gradients": ["gradients", model, "--probe", str(probes), "--reference", text, *few],
    }


@pytest.mark.parametrize("verb", ["measure", "online", "gradients"])
def test_verbs_warn_once_or_refuse(tmp_path, verb, capsys):
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 8)
    text = f"text:{tmp_path}/text.txt"
    with pytest.warns(UserWarning, match="is beyond the 16 positions that the model was") as seen:
        assert cli.main(readings(folder(tmp_path / "rotary", "rotary"), text)[verb]) == 0
    assert len({str(one.message) for one in seen}) == 1
    assert cli.main(readings(folder(tmp_path / "learned", "learned"), text)[verb]) == 2
    assert "exceeds the model's 16 positions; use " in capsys.readouterr().err


def test_the_library_and_training(tmp_path):
    model = models.LanguageModel(ModelConfig(**SIZES))
    params, ids = models.init(model), np.arange(40)
    with pytest.warns(UserWarning, match="length=20 is beyond the 16"):
        metrics.measure(metrics.likelihood(), model, params, data.windows(ids, 20))
    how = online.OnlineConfig(chunk=8, context=online.cache(16))
    with pytest.warns(UserWarning, match=r"window\+chunk=24 is beyond the 16"):
        online.evaluate(model, params, ids, optax.sgd(0.1), how)
    cases.write_texts(tmp_path)
    with pytest.warns(UserWarning, match="data.length=33 is beyond the 32"):
        prepare(cases.config(tmp_path, data__length=33))
    with pytest.raises(InputError, match=r"data.length=33 exceeds the model's 32 positions"):
        prepare(cases.config(tmp_path, data__length=33, model__position="learned"))
