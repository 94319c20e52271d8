"""A run's batches and held-out text begin and end as its config says, and its folder says so."""

import dataclasses
import json

import pytest

from lmdyn.checkpoints import runs
from lmdyn.studies.config import StudyConfig, with_special_tokens
from lmdyn.training.config import differences, to_json
from lmdyn.training.prepare import prepare
from tests.data.test_bos import BOS, EOS, folder
from tests.training import cases


@pytest.mark.parametrize("bos", ["auto", "document", "window", "none"])
def test_batches(tmp_path, bos):
    cases.write_texts(tmp_path)
    path = folder(tmp_path / "tokenizer", True, bos_token="<s>")
    config = cases.config(tmp_path, data__tokenizer=str(path), model__vocab=258)
    prepared = prepare(with_special_tokens(config, StudyConfig(out="x", bos=bos)))
    first = next(iter(prepared.stream)), prepared.held_out[0]
    for batch in first:
        assert (batch.inputs[:, 0] == BOS).all() == (bos == "window")
    whole = prepared.held_out.stream.tolist()
    assert (whole[0] == BOS) == (bos != "none")
    runs.create(
        tmp_path / "run", model=config.model, tokenizer=prepared.tokenizer, config={}, data={}
    )
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert f'"bos_rule": "{bos}"' in json.dumps(about)
    assert runs.describe(tmp_path / "run").tokenizer.bos_rule == bos


def test_end_of_text(tmp_path):
    cases.write_texts(tmp_path)
    config = cases.config(tmp_path, end_of_text="258")
    assert prepare(dataclasses.replace(config, end_of_text="65")).tokenizer.end_of_text == 65
    assert prepare(dataclasses.replace(config, end_of_text=None)).tokenizer.end_of_text == EOS
    with pytest.raises(ValueError, match="end_of_text=258: the tokenizer bytes has no such token"):
        prepare(config)


def test_runs_from_before_bos_was_a_field_resume(tmp_path):
    now = to_json(cases.config(tmp_path))
    old = {key: value for key, value in now.items() if key not in ("bos", "end_of_text")}
    assert differences(old, now) == []
    assert differences(old, now | {"bos": "none"}) == ["bos: None -> none"]
