"""What README.md shows in Python: the notebook's lines run; a metric, a transform and a family are
added by its text alone, each in under 40 lines.
"""

import json
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from lmdyn import checkpoints, metrics, models, records
from lmdyn.checkpoints.families import FAMILIES
from lmdyn.checkpoints.formats import safetensors as huggingface
from lmdyn.cli import command_line as cli
from lmdyn.data import tokenizers
from scripts.documented import README, ROOT, blocks, section
from tests.helpers import assert_close, batch, jit_logits

TEXT = "Of arms and of a man I sing, and of the long way home. "


def extending(heading: str) -> str:
    """The code below a heading of the section."""
    part = section("Extending it").split(f"\n### {heading}\n")[1].split("\n### ")[0]
    (code,) = blocks(part, "python")
    assert len(code.splitlines()) < 40
    return code


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a book, and a small model of 6 layers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = models.LanguageModel(
        models.ModelConfig(
            vocab=257, width=12, depth=6, heads=2, head_width=6, mlp_width=20, positions=2048
        )
    )
    checkpoints.export(model, models.init(model), tokenizers.byte_tokenizer(), "model")
    Path("corpus").mkdir()
    Path("corpus/a.txt").write_text(TEXT * 160)
    Path("book.txt").write_text(TEXT * 20)
    return tmp_path


@pytest.mark.slow
def test_the_notebook_lines_run(here):
    (code,) = blocks(section("In a notebook"), "python")
    assert "hf:EleutherAI/pythia-70m@step143000" in code
    names = {}
    exec(code.replace("hf:EleutherAI/pythia-70m@step143000", "dir:model"), names)
    assert names["result"]["entropy"].per_layer.shape == (6,) and names["result"][
        "geometry"
    ].residual.shape == (7,)
    assert names["outcome"].nll.shape == (len(TEXT) * 20 - 1,)
    assert np.isfinite(float(names["numbers"]["loss"]))


@pytest.fixture
def participation(here):
    Path("participation.py").write_text(extending("A metric"))
    yield
    metrics.REGISTRY.pop("participation", None)


def test_a_metric_is_added(here, participation, tmp_path):
    """Against the definition, from the coefficients as `transformers` computes them."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    assert (
        cli.main(
            [
                "measure",
                "--config",
                "participation.py",
                "dir:model",
                "--length",
                "100",
                "--tokens",
                "200",
            ]
        )
        == 0
    )
    found = [
        r["value"]
        for r in records.read_rows("results/participation.jsonl")
        if r["metric"] == "participation"
    ]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32
    )
    seen = []
    for layer in theirs.model.layers:  # what `down` is given are the coefficients
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda module, given: seen.append(given[0].double().abs())
        )
    with torch.no_grad():
        theirs(torch.tensor(list((TEXT * 4)[:200].encode())).reshape(2, 100))
    wanted = [float((c.sum(-1) ** 2 / (c.shape[-1] * (c**2).sum(-1))).mean()) for c in seen]
    assert_close(found, wanted, 1e-5)
    assert np.ptp(wanted) > 1e-3, "layers differ"


@pytest.mark.slow
def test_it_is_measured_inside_training_with_the_transform_in_the_chain(
    here, participation, monkeypatch
):
    Path("clipping.py").write_text(extending("A transform"))
    monkeypatch.syspath_prepend(str(here))
    Path("run.py").write_text("""
import runpy
runpy.run_path("participation.py")
from lmdyn.models import ModelConfig
from lmdyn.training import Apply, Data, Keep, Optimizer, Source, Train, Watch

def config():
    return Train(
        model=ModelConfig(vocab=257, width=12, depth=2, heads=2, head_width=6, mlp_width=20, positions=64),
        data=Data(sources=(Source("text:corpus/*.txt"),), tokenizer="bytes", length=32, batch=2), steps=2,
        optimizer=Optimizer(name="sgd", rate=1.0, schedule="constant", weight_decay=0.0, clip=None,
                            apply=(Apply("clipping.clip_layers", {"threshold": 1e-9}, "gradients"),)),
        watch=Watch("text:book.txt", metrics="nll,participation", every=1, tokens=64), keep=Keep(save=2, last=1, every=1), mesh=(1, 1, 1), out="run")
""")
    assert cli.main(["train", "--config", "run.py"]) == 0
    found = records.read_rows("run/rows.jsonl")
    assert {(r["step"], r["layer"]) for r in found if r["metric"] == "participation"} == {
        (s, n) for s in range(3) for n in range(2)
    }
    before, after = (checkpoints.load(f"run:run@{step}").params for step in (0, 2))
    moved = lambda name: max(
        float(np.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True)
    )
    assert moved("blocks") < 1e-6 < moved("head"), "clipped to nearly nothing in the blocks alone"


def test_a_transform_is_added():
    """Each layer on its own is what optax's clipping makes of a parameter that has no other."""
    names = {}
    exec(extending("A transform"), names)
    rng = np.random.default_rng(0)
    gradients = {
        "blocks": {
            "mlp": {
                "up": {
                    "kernel": (
                        rng.normal(size=[3, 5, 7]).astype(np.float32)
                        * np.array([0.1, 1, 9])[:, None, None].astype("f")
                    )
                }
            }
        },
        "head": {"kernel": rng.normal(size=[5, 11]).astype(np.float32)},
    }
    chain = optax.chain(names["clip_layers"](0.5), optax.scale(-1.0))
    found, _ = jax.jit(chain.update)(gradients, chain.init(gradients))
    alone = optax.chain(optax.clip_by_block_rms(0.5), optax.scale(-1.0))
    kernel = gradients["blocks"]["mlp"]["up"]["kernel"]
    wanted = np.stack(
        [alone.update({"w": layer}, alone.init({"w": layer}))[0]["w"] for layer in kernel]
    )
    assert_close(found["blocks"]["mlp"]["up"]["kernel"], wanted, 1e-6)
    np.testing.assert_array_equal(found["head"]["kernel"], -gradients["head"]["kernel"])


@pytest.mark.parametrize(
    "options",
    [{}, {"use_qkv_bias": True, "num_key_value_heads": 2, "tie_word_embeddings": True}],
    ids=["plain", "biases"],
)
def test_a_family_is_added(options, tmp_path):
    """A random StableLM that `transformers` wrote: same logits when it is read, and when it was
    written again.
    """
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from tests.checkpoints.cases import random_model, write_tokenizer

    assert "stablelm" not in FAMILIES
    exec(extending("A model family"), {})
    try:
        sizes = dict(
            vocab_size=61,
            hidden_size=32,
            num_hidden_layers=3,
            intermediate_size=37,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
        )
        theirs = random_model("stablelm", {**sizes, **options})
        theirs.save_pretrained(tmp_path / "theirs")
        write_tokenizer(tmp_path / "theirs")
        given = batch(2, 19).inputs
        with torch.no_grad():
            wanted = theirs(torch.tensor(given.astype(np.int64))).logits.numpy()
        loaded = checkpoints.load(f"dir:{tmp_path / 'theirs'}")
        assert loaded.model.config.rotary_share == 0.25
        found = jit_logits(loaded.model, loaded.params, given)
        assert_close(found, wanted, 1e-5)
        checkpoints.export(loaded.model, loaded.params, loaded.tokenizer, tmp_path / "ours")
        assert (
            json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "stablelm"
        )
        again = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "ours", dtype=torch.float32
        )
        with torch.no_grad():
            assert_close(again(torch.tensor(given.astype(np.int64))).logits.numpy(), wanted, 1e-5)
        changed = json.loads((tmp_path / "theirs" / "config.json").read_text()) | {
            "use_parallel_residual": True
        }
        (tmp_path / "theirs" / "config.json").write_text(json.dumps(changed))
        with pytest.raises(
            Exception, match="use_parallel_residual=True is not supported for stablelm"
        ):
            huggingface.read_folder(tmp_path / "theirs")
    finally:
        FAMILIES.pop("stablelm", None)


def test_figures_and_links_are_there():
    for path in re.findall(r'(?:src|srcset)="([^"]+)"|\]\((?!https?:|#)([^)]+)\)', README):
        assert (ROOT / "".join(path)).exists(), path
    titles = {
        line.lstrip("# ").lower().replace(" ", "-")
        for line in README.splitlines()
        if line.startswith("#")
    }
    for anchor in re.findall(r"\]\(#([^)]+)\)", README):
        assert anchor in titles, anchor
    for name in ("instruments.svg", "instruments-dark.svg"):
        assert (ROOT / "notebooks" / "figures" / name).stat().st_size < 100_000
