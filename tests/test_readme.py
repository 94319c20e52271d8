"""What README.md and docs/ show in Python runs; a metric, a transform, a family, a head and a study
are added by the pages of docs/extend alone.
"""

import importlib
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from lmdyn import checkpoints, models, records
from lmdyn.checkpoints.families import FAMILIES
from lmdyn.checkpoints.formats.folder import read_folder
from lmdyn.cli import command_line
from lmdyn.data import tokenizers
from lmdyn.errors import InputError
from lmdyn.names import resolve
from scripts.documented import EXTENSIONS, PAGES, README, ROOT, blocks, commands, write_extensions
from tests.helpers import assert_close, batch, jit_logits

TEXT = "Of arms and of a man I sing, and of the long way home. "


MODEL = "hf:EleutherAI/pythia-70m@step143000"


def test_the_readme_is_short_and_begins_with_its_two_commands():
    lines = README.splitlines()
    assert len(lines) <= 200
    shown = [line for block in blocks("\n".join(lines[:25]), "bash") for line in commands(block)]
    assert shown == ["bash scripts/quickstart.sh", "bash scripts/test.sh"]
    (example,) = blocks(README, "python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    map_of_code = blocks(README, "text")[0].splitlines()
    assert len(map_of_code) == 10
    for line in map_of_code:
        assert (ROOT / line.split()[0]).is_dir(), line


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a book, and a small model of 6 layers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
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
    write_extensions(tmp_path)
    yield tmp_path
    for name in EXTENSIONS:  # the next test writes its own
        sys.modules.pop(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."), None)


def run(code: str) -> dict:
    """The names that a page's code leaves, with a small model for the one it loads."""
    names = {}
    exec(code.replace(MODEL, "dir:model"), names)
    return names


PYTHON = {
    path: code
    for path, text in {"README.md": README, **PAGES}.items()
    if not path.startswith("docs/extend/") and (code := "\n".join(blocks(text, "python")))
}


@pytest.mark.slow
@pytest.mark.parametrize("path", PYTHON)
def test_the_python_of_a_page_runs(path, here):
    names = run(PYTHON[path])
    for result, shape in (("result", (6,)), ("found", (6,))):
        value = names.get(result)
        value = value["entropy"] if isinstance(value, dict) else value
        assert value is None or value.per_layer.shape == shape
    if "outcome" in names:
        assert np.isfinite(names["outcome"].nll).all()
    if path == "docs/start.md":
        assert np.isfinite(float(names["numbers"]["loss"]))
    if path == "docs/train.md":
        assert names["config"]().optimizer.learning_rate == 4e-3
    if path == "docs/reactivate.md":
        assert names["transforms"] and names["awake"] is not names["params"]


def test_the_python_of_pages_is_found():
    assert {"README.md", "docs/start.md", "docs/measure.md", "docs/online.md"} <= PYTHON.keys()


def test_each_extension_is_one_short_file():
    assert {"participation.py", "clipping.py", "stablelm.py"} <= EXTENSIONS.keys()
    assert all(len(code.splitlines()) < 60 for code in EXTENSIONS.values())


def test_a_metric_is_added(here, capsys):
    """Against the definition, from the coefficients as `transformers` computes them."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    words = "measure dir:model --data text:book.txt --metrics nll,participation.participation"
    more = "--length 100 --tokens 200 --out results/rows.jsonl"
    assert command_line.main([*words.split(), *more.split()]) == 0
    found = [
        r["value"]
        for r in records.read_rows("results/rows.jsonl")
        if r["metric"] == "participation"
    ]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(here / "model", dtype=torch.float32)
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


def test_an_added_metric_is_printed_and_drawn(here, capsys):
    """Without a line of code for it: on the terminal, and as a figure of the page."""
    words = "measure dir:model --data text:book.txt --metrics participation.participation"
    more = "--length 100 --tokens 200 --out results/rows.jsonl"
    assert command_line.main([*words.split(), *more.split()]) == 0
    assert "Participation ratio, mlp" in capsys.readouterr().out
    assert command_line.main(["report", "results"]) == 0
    page = Path("results/report.html").read_text(encoding="utf-8")
    assert "Participation ratio" in page
    assert "1: all F coefficients alike" in page
    assert "participation" in " ".join(re.findall(r'download="([^"]+)\.svg"', page))


RUN = """from lmdyn.models import ModelConfig
from lmdyn.training import Apply, CheckpointPolicy, Data, Evaluation, Optimizer, Source, TrainConfig

def config():
    return TrainConfig(
        model=ModelConfig(
            vocab=257, width=12, depth=2, heads=2, head_width=6, mlp_width=20, positions=64
        ),
        data=Data(
            sources=(Source("text:corpus/*.txt"),), tokenizer="bytes", length=32, batch=2
        ),
        steps=2,
        optimizer=Optimizer(
            name="sgd",
            learning_rate=1.0,
            schedule="constant",
            weight_decay=0.0,
            clip=None,
            apply=(Apply("clipping.clip_layers", {"threshold": 1e-9}, "gradients"),),
        ),
        evaluation=Evaluation(
            "text:book.txt", metrics="nll,participation.participation", every=1, tokens=64
        ),
        checkpoints=CheckpointPolicy(save=2, last=1, every=1),
        mesh=(1, 1, 1),
        out="run",
    )
"""


@pytest.mark.slow
def test_it_is_measured_inside_training_with_the_transform_in_the_chain(here):
    Path("run.py").write_text(RUN)
    assert command_line.main(["train", "--config", "run.py"]) == 0
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
    exec(EXTENSIONS["clipping.py"], names)
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
def test_a_family_is_added(options, here, tmp_path):
    """A random StableLM that `transformers` wrote: same logits when it is read, and when it was
    written again.
    """
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from tests.checkpoints.cases import random_model, write_tokenizer

    assert "stablelm" not in FAMILIES
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
        loaded = checkpoints.load(f"dir:{tmp_path / 'theirs'}", family="stablelm.STABLELM")
        assert loaded.model.config.rotary_share == 0.25
        found = jit_logits(loaded.model, loaded.params, given)
        assert_close(found, wanted, 1e-5)
        FAMILIES["stablelm"] = importlib.import_module("stablelm").STABLELM
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
            read_folder(tmp_path / "theirs")
    finally:
        FAMILIES.pop("stablelm", None)


def test_a_head_is_added(here):
    """Against the definition in float64; and a model with it trains, and is measured as it is."""
    from lmdyn.models.heads import make_head

    head = make_head("cosine_head.CosineHead:16", 6, 11)
    rng = np.random.default_rng(0)
    states, targets = rng.normal(size=[5, 6]), np.array([0, 3, 10, 7, 7])
    matrix = rng.normal(size=[6, 11])
    cosines = (states @ matrix) / np.linalg.norm(matrix, axis=0)
    scores = 16 * cosines / np.linalg.norm(states, axis=1, keepdims=True)
    wanted = np.log(np.exp(scores).sum(1)) - scores[range(5), targets]
    given = {"output": matrix.astype(np.float32)}, states.astype(np.float32), targets
    assert_close(head.token_nll(*given), wanted, 1e-5)
    total, nll = head.weighted_nll(*given, np.full(5, 0.2, np.float32))
    assert_close(nll, wanted, 1e-5)
    assert_close(total, wanted.mean(), 1e-5)
    Path("run.py").write_text(
        RUN.replace("positions=64", 'positions=64, head="cosine_head.CosineHead:4"')
    )
    assert command_line.main(["train", "--config", "run.py"]) == 0
    words = "measure run:run@2 --data text:book.txt --length 32 --tokens 64 --metrics nll"
    assert command_line.main([*words.split(), "--out", "measured.jsonl"]) == 0
    trained = [r["value"] for r in records.read_rows("run/rows.jsonl") if r["metric"] == "nll"]
    (measured,) = records.read_rows("measured.jsonl")
    assert trained[-1] != trained[0]
    assert_close(measured["value"], trained[-1], 1e-5)


@pytest.mark.slow
def test_a_study_is_added(here, capsys):
    """By its dotted name: claims on the terminal, its question and figure on the page; resumed."""
    words = "study my_studies.second_reading --model dir:model --text text:book.txt --out out"
    more = "--length 16 --passages 2 --seeds 2 --workers 1"
    for _ in range(2):  # the second time nothing is left to do
        assert command_line.main([*words.split(), *more.split()]) == 0
        assert "A passage is predicted better the second time." in capsys.readouterr().out
    claims = json.loads(Path("out/claims.json").read_text(encoding="utf-8"))
    assert claims[0]["verdict"] in ("supported", "not supported", "undecided")
    rows = records.read_rows("out/rows.jsonl")
    first, second = (np.mean([r["value"] for r in rows if r["reading"] == n]) for n in (1, 2))
    assert_close(claims[0]["measured"], first - second, 1e-6)
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "when it reads it a second time?" in page
    assert 'download="readings.svg"' in page


def test_links_of_texts_outside_of_the_site_are_there():
    """The site's own are checked by its strict build."""
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for found in re.findall(r'(?:src|srcset)="([^"]+)"|\]\((?!https?:|#)([^)#]+)', text):
            assert (ROOT / "".join(found)).exists(), f"{name}: {found}"
        for path, anchor in re.findall(r"\]\((docs/[\w/]+\.md)#([\w-]+)\)", text):
            titles = re.findall(r"^#+ (.*)$", PAGES[path], re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}
    for name in ("instruments.svg", "instruments-dark.svg"):
        assert (ROOT / "notebooks" / "figures" / name).stat().st_size < 100_000


NAMED = re.compile(
    r"`(?:lmdyn\.)?((?:analysis|checkpoints|costs|data|metrics|models|online|params|records|report"
    r"|studies|training|transforms)\.[A-Za-z_.]+[A-Za-z_])(?:\(.*?\))?`"
)
LISTS = ("CONTRIBUTING.md", "README.md", *PAGES)


@pytest.mark.parametrize("path", LISTS)
def test_names_and_files_in_texts_are_there(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    missing = []
    for name in NAMED.findall(text):
        if name.endswith((".py", ".md", ".html")):
            continue
        try:
            resolve(f"lmdyn.{name}", {}, "name")
        except InputError:
            missing.append(name)
    files = re.findall(r"`((?:lmdyn|scripts|tests|configs|notebooks|docs)/[\w/.]*\w)`", text)
    missing += [name for name in files if not (ROOT / name).exists()]
    assert not missing, missing
