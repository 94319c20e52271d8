"""Every notebook runs from top to bottom, on a small model in place of the large one."""

import json
from pathlib import Path

import pytest

from lmdyn import checkpoints, models
from lmdyn.data import tokenizers

NOTEBOOKS = sorted(Path(__file__).parents[2].glob("notebooks/*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    tokenizer = tokenizers.byte_tokenizer()
    config = models.ModelConfig(vocab=tokenizer.vocab, width=12, depth=2, heads=3, head_width=4, mlp_width=20, positions=512)
    model = models.LanguageModel(config)
    checkpoints.export(model, models.init(model), tokenizer, tmp_path / "model")
    monkeypatch.setenv("LMDYN_MODEL", f"dir:{tmp_path / 'model'}")
    monkeypatch.setenv("LMDYN_TOKENS", "700")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "commit notebooks without outputs"
            exec(compile("".join(cell["source"]), path.name, "exec"), names)
    assert names["adapted"].nll.shape == (700,)


def test_there_are_notebooks():
    assert NOTEBOOKS
