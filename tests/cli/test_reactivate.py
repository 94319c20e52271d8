"""`lmdyn reactivate`: the folder is what PyTorch gets by hand; wrong words end in one line and
leave nothing.
"""

import json
import os
import shutil

import numpy as np
import pytest

from lmdyn import checkpoints, metrics, models
from lmdyn.checkpoints import exporting
from tests.cli.test_bad_input import change, model, one_line
from tests.cli.test_command_line import TEXT, caches, folder, run  # noqa: F401 (fixtures)

LENGTH = 33
WORDS = [
    "reactivate",
    "dir:{d}/tiny",
    "--data",
    "text:{d}/a.txt",
    "--length",
    str(LENGTH),
    "--tokens",
    "200",
    "--out",
    "{o}/awake",
]


def go(capsys, folder, out, *more):  # noqa: F811
    return run(capsys, *(w.format(d=folder, o=out) for w in (*WORDS, *map(str, more))))


def by_hand(source, ratio, gain):
    """PyTorch's model of a folder, reactivated from the definition; mean nll in nats and
    coefficients before and after.
    """
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
    ids = torch.tensor(list(TEXT.encode()))[:201]

    def look():
        seen, nll = [[] for _ in theirs.model.layers], []
        hooks = [
            layer.mlp.down_proj.register_forward_pre_hook(
                lambda _, inputs, at=at: seen[at].append(inputs[0][0].double())
            )
            for at, layer in enumerate(theirs.model.layers)
        ]
        with torch.no_grad():
            for start in range(0, 200, LENGTH):
                part = ids[start : start + LENGTH + 1]
                logits = theirs(part[None, :-1]).logits[0].double()
                nll.append(torch.nn.functional.cross_entropy(logits, part[1:], reduction="none"))
        for hook in hooks:
            hook.remove()
        return float(torch.cat(nll).mean()), np.array(
            [torch.cat(layer).abs().mean(0).numpy() for layer in seen]
        )

    before = look()
    for layer, values in zip(theirs.model.layers, before[1], strict=True):
        low = values <= np.quantile(values, ratio)
        factor = np.where(low, gain * values.mean() / values, 1.0)
        with torch.no_grad():
            layer.mlp.up_proj.weight *= torch.tensor(factor[:, None], dtype=torch.float32)
    return theirs, before, look()


def test_the_folder_is_what_pytorch_gets_by_hand(capsys, folder, tmp_path):  # noqa: F811
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    code, said, err = go(capsys, folder, tmp_path, "--ratio", 0.3, "--gain", 2)
    assert code == 0, err
    wanted, before, after = by_hand(folder / "tiny", 0.3, 2.0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "awake").eval()
    for (name, found), parameter in zip(
        theirs.named_parameters(), wanted.parameters(), strict=True
    ):
        np.testing.assert_allclose(found.detach(), parameter.detach(), rtol=1e-4, err_msg=name)

    ours = checkpoints.load(f"dir:{tmp_path}/awake")
    ids = np.frombuffer(TEXT.encode()[:50], np.uint8).astype(np.int32)[None]
    with torch.no_grad():
        logits = theirs(torch.from_numpy(ids).long()).logits.numpy()
    np.testing.assert_allclose(
        models.logits(ours.model, ours.params, ids), logits, atol=1e-5 * np.abs(logits).max()
    )

    notes = json.loads((tmp_path / "awake" / "reactivation.json").read_text())
    values = {(r["when"], r["metric"], r["layer"]): r["value"] for r in notes["rows"]}
    for when, (nll, coefficients) in (("before", before), ("after", after)):
        share = coefficients / coefficients.sum(1, keepdims=True)
        per_layer = -(share * np.log(share)).sum(1)
        assert values[when, "nll", None] == pytest.approx(nll, rel=1e-5)
        assert [values[when, "knowledge_entropy", layer] for layer in range(3)] == pytest.approx(
            per_layer, rel=1e-5
        )
        assert values[when, "knowledge_entropy", None] == pytest.approx(per_layer.sum(), rel=1e-5)
        assert f"{per_layer.sum():.5g}" in said
        assert f"{nll:.5g}" in said
    assert {(r["model"], r["tokens"]) for r in notes["rows"]} == {(f"dir:{folder}/tiny", 200)}
    assert (notes["config"]["ratio"], notes["config"]["gain"], notes["seed"]) == (0.3, 2.0, None)
    assert (notes["chosen"], notes["zero"]) == (
        [11] * 3,
        [0] * 3,
    )  # 0.3 * 34 = 10.2: up to the eleventh of 35
    assert notes["command"].startswith("lmdyn reactivate dir:")


def test_ratio_zero_is_the_same_model(capsys, folder, tmp_path):  # noqa: F811
    assert go(capsys, folder, tmp_path, "--ratio", 0)[0] == 0
    weights = [
        (root / "model.safetensors").read_bytes() for root in (folder / "tiny", tmp_path / "awake")
    ]
    assert weights[0] == weights[1]


def test_the_control_is_seeded_and_takes_as_many(capsys, folder, tmp_path):  # noqa: F811
    weights = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        code, _, err = go(
            capsys,
            folder,
            tmp_path / name,
            "--control",
            "random",
            "--strength",
            "entropy",
            "--seed",
            seed,
        )
        assert code == 0, err
        weights.append((tmp_path / name / "awake" / "model.safetensors").read_bytes())
        notes = json.loads((tmp_path / name / "awake" / "reactivation.json").read_text())
        assert notes["seed"] == seed
        assert sum(notes["chosen"]) == pytest.approx(0.5 * 3 * 35, abs=3)
        assert len(set(notes["chosen"])) > 1
    assert weights[0] == weights[1] != weights[2]


def test_an_empty_folder_is_filled(capsys, folder, tmp_path):  # noqa: F811
    (tmp_path / "awake").mkdir()
    assert go(capsys, folder, tmp_path)[0] == 0
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("cache",)] == ["awake"]


CASES = {
    "ratio": (change(WORDS, "--ratio", "1.5"), "--ratio 1.5: a ratio is between 0 and 1"),
    "ratio nan": (change(WORDS, "--ratio", "nan"), "--ratio nan: a ratio"),
    "gain": (change(WORDS, "--gain", "0"), "--gain 0.0: a gain is a number above 0"),
    "gain inf": (change(WORDS, "--gain", "inf"), "--gain inf: a gain"),
    "word for a ratio": (change(WORDS, "--ratio", "half"), "--ratio does not take 'half'"),
    "control": (change(WORDS, "--control", "randm"), "it takes none, random"),
    "seed": (change(WORDS, "--seed", "-1"), "--seed=-1; it must be at least 0"),
    "length": (change(WORDS, "--length", "0"), "--length=0"),
    "a series": (model(WORDS, "dir:{d}/series@*"), "names 2 checkpoints, and one is needed here"),
    "no model": (["reactivate", *WORDS[2:]], "missing: MODEL"),
    "missing folder": (model(WORDS, "dir:{d}/none"), "no such folder"),
    "missing text": (change(WORDS, "--data", "text:{d}/none.txt"), "is not there"),
    "full folder": (change(WORDS, "--out", "{d}/tiny"), "is not an empty folder; choose another"),
    "a file": (change(WORDS, "--out", "{d}/a.txt"), "is not an empty folder; choose another"),
    "below a file": (
        change(WORDS, "--out", "{d}/a.txt/awake"),
        "a.txt is not a folder; choose another folder",
    ),
    "overflow": (change(WORDS, "--gain", "1e38"), "lower --gain (now 1e+38)"),
}


@pytest.mark.parametrize("words, said", CASES.values(), ids=CASES)
def test_one_clear_line_and_nothing_written(capsys, folder, tmp_path, words, said):  # noqa: F811
    out = tmp_path / "out"
    out.mkdir()
    before = sorted(folder.rglob("*"))
    code, _, err = run(capsys, *(w.format(d=folder, o=out) for w in words))
    assert said in one_line(code, err)
    assert not list(out.iterdir()) and sorted(folder.rglob("*")) == before


def test_a_wrong_out_is_found_before_the_model_is_read(capsys, folder, tmp_path):  # noqa: F811
    (tmp_path / "awake").mkdir()
    (tmp_path / "awake" / "mine.txt").touch()
    code, _, err = run(
        capsys, *(w.format(d=folder, o=tmp_path) for w in model(WORDS, "dir:{d}/none"))
    )
    assert "is not an empty folder" in one_line(code, err)
    assert [p.name for p in (tmp_path / "awake").iterdir()] == ["mine.txt"]


def test_a_model_that_could_not_be_exported_is_not_measured(capsys, folder, tmp_path, monkeypatch):  # noqa: F811
    shutil.copytree(folder / "tiny", tmp_path / "odd")
    monkeypatch.setattr(metrics, "measure", None)
    loaded = checkpoints.load(f"dir:{folder}/tiny")
    odd = models.LanguageModel(
        models.ModelConfig(**{**vars(loaded.model.config), "gated": False, "norm": "layer"})
    )
    monkeypatch.setattr(checkpoints, "load", lambda *a, **k: loaded._replace(model=odd))
    code, _, err = go(capsys, folder, tmp_path)
    assert "no known family is this model" in one_line(code, err)


@pytest.mark.parametrize("failing, code", [("full disk", 2), ("interrupt", 130)])
def test_a_failed_write_leaves_nothing(capsys, folder, tmp_path, monkeypatch, failing, code):  # noqa: F811
    def fail(*args):
        raise OSError(28, os.strerror(28)) if failing == "full disk" else KeyboardInterrupt

    monkeypatch.setattr(exporting, "_write_tokenizer", fail)
    found, _, err = go(capsys, folder, tmp_path / "new")
    assert found == code
    assert err.strip().splitlines()[-1].startswith("lmdyn: error: ")
    assert not list((tmp_path / "new").iterdir())
