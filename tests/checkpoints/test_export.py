"""Export: `transformers` loads it and computes the same; all or nothing on disk."""

import json

import jax
import numpy as np
import pytest

from lmdyn import checkpoints, files, models
from lmdyn.checkpoints import exporting
from lmdyn.checkpoints.formats.folder import read_folder
from lmdyn.data import tokenizers
from lmdyn.errors import InputError
from tests.checkpoints.cases import CASES, write_tiny


@pytest.mark.parametrize("name", CASES)
def test_transformers_loads_what_was_exported_with_equal_logits(name, reference, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    expected = reference(name)
    config, params = read_folder(expected.folder)
    checkpoints.export(models.LanguageModel(config), params, None, tmp_path / "out")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values()), report
    with torch.no_grad():
        logits = theirs.eval()(torch.from_numpy(expected.tokens)).logits.numpy()
    assert np.abs(logits - expected.logits).max() <= 1e-6 * np.abs(expected.logits).max()
    again = read_folder(tmp_path / "out")
    assert again.config == config
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again.params, params))


@pytest.fixture
def loaded(tmp_path):
    write_tiny(tmp_path / "in")
    return checkpoints.load(f"dir:{tmp_path}/in")


def left(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != "in")


def test_the_tokenizer_goes_with_it(loaded, tmp_path):
    transformers = pytest.importorskip("transformers")
    checkpoints.export(loaded.model, loaded.params, loaded.tokenizer, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (
        theirs.encode("abcab", add_special_tokens=False)
        == loaded.tokenizer.encode("abcab").tolist()
        == [3, 4, 3]
    )
    assert theirs.eos_token_id == 0
    again = checkpoints.load(f"dir:{tmp_path}/out")
    assert again.tokenizer.to_json() == loaded.tokenizer.to_json()
    assert again.tokenizer.end_of_text == 0


def test_shards(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "SHARD_BYTES", 2000)
    checkpoints.export(loaded.model, loaded.params, loaded.tokenizer, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    shards = sorted(p.name for p in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    assert sorted(set(index["weight_map"].values())) == shards
    again = checkpoints.load(f"dir:{tmp_path}/out")
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bool((a == b).all()), again.params, loaded.params)
    )
    transformers = pytest.importorskip("transformers")
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_an_empty_folder_is_filled_and_a_full_one_refused(loaded, tmp_path):
    (tmp_path / "out").mkdir()
    checkpoints.export(loaded.model, loaded.params, loaded.tokenizer, tmp_path / "out")
    with pytest.raises(InputError, match="is not an empty folder"):
        checkpoints.export(loaded.model, loaded.params, loaded.tokenizer, tmp_path / "out")
    assert left(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "module, failing",
    [
        (exporting, "_write_shard"),
        (exporting, "_write_json"),
        (exporting, "_write_tokenizer"),
        (files, "_sync"),
    ],
)
@pytest.mark.parametrize(
    "failure, raised",
    [
        (OSError(28, "No space left on device"), InputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_failure_leaves_nothing_behind(
    loaded, tmp_path, monkeypatch, module, failing, failure, raised
):
    def fail(*args, **options):
        raise failure

    monkeypatch.setattr(module, failing, fail)
    with pytest.raises(raised) as caught:
        checkpoints.export(loaded.model, loaded.params, loaded.tokenizer, tmp_path / "new" / "out")
    if raised is InputError:
        assert "No space left on device" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "new").iterdir())


def test_parameters_of_another_model_are_refused(loaded, tmp_path):
    params = {**loaded.params, "final_norm": {"scale": np.ones(9)}}
    with pytest.raises(
        InputError, match=r"final_norm/scale has shape \[9\]; the model's config wants \[8\]"
    ):
        checkpoints.export(loaded.model, params, tokenizers.byte_tokenizer(), tmp_path / "out")
    assert left(tmp_path) == []
