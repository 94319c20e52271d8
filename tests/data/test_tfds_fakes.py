"""`tfds:` names read the fakes of `tfds.testing`, all without TensorFlow; and splits of built-in
text.
"""

import sys

import pytest

from lmdyn.data import documents, read_probes, worlds
from lmdyn.errors import InputError

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture(autouse=True)
def no_tensorflow():
    yield
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("name", ["imdb_reviews/plain_text", "ag_news_subset"])
def test_any_text_dataset_by_its_code(name, monkeypatch, tmp_path):
    """The builder's own code gives the features; the text is random, the same at every reading."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    field = {"ag_news_subset": "description"}.get(name, "text")
    with tfds.testing.mock_data(num_examples=5, policy=tfds.testing.MockPolicy.USE_CODE):
        docs = documents(f"tfds:{name}:train#{field}")
        assert len(docs) == 5
        assert list(docs) == list(docs)
        assert all(isinstance(text, str) for text in docs) and any(docs)
        with pytest.raises(InputError, match="has no field 'body'"):
            documents(f"tfds:{name}:train#body")[0]


def test_fakes_with_the_metadata_of_a_prepared_dataset(tmp_path, monkeypatch):
    worlds.prepare(worlds.World(people=9, places=4), tmp_path)
    with tfds.testing.mock_data(
        num_examples=7, policy=tfds.testing.MockPolicy.USE_FILES, data_dir=str(tmp_path)
    ):
        docs = documents("tfds:synthetic_world/people=9,places=4:time0#text")
        assert len(docs) == 7 and all(isinstance(text, str) for text in docs)
        with pytest.raises(InputError, match="unknown split 'time9'"):
            documents("tfds:synthetic_world/people=9,places=4:time9#text")


def test_fakes_of_ones_own():
    texts = [
        {"text": "né à Fès".encode(), "target": "Fès".encode()},
        {"text": b"in Lima", "target": b"Lima"},
    ]
    with tfds.testing.mock_data(as_data_source_fn=lambda self, split, **_: texts):
        assert list(documents("tfds:imdb_reviews:train#text")) == ["né à Fès", "in Lima"]
        assert [p.target for p in read_probes("tfds:imdb_reviews:test")] == ["Fès", "Lima"]


def test_a_fake_split_with_nothing_in_it():
    with (
        tfds.testing.mock_data(as_data_source_fn=lambda self, split, **_: []),
        pytest.raises(InputError, match="the split 'train' is empty"),
    ):
        documents("tfds:imdb_reviews:train#text")


def test_the_dummy_dataset_is_read_from_its_folder_and_is_no_text(tmp_path):
    made = tfds.testing.DummyDataset(data_dir=tmp_path, file_format="array_record")
    made.download_and_prepare()
    docs = documents(f"tfds:{made.data_path}:train#id")
    assert len(docs) == 3
    with pytest.raises(InputError, match="field 'id' is not text but int"):
        docs[0]


def test_a_dataset_that_is_not_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(
        InputError, match=r"'imdb_reviews' is not prepared in .*; prepare it with tfds"
    ):
        documents("tfds:imdb_reviews:train#text")


@pytest.mark.parametrize("name", ["docs", "code"])
def test_builtin_splits_part_the_text(name):
    whole, train, test = (documents(f"builtin:{name}{split}") for split in ("", ":train", ":test"))
    assert sorted([*train.items, *test.items]) == sorted(whole.items)
    assert not set(train.items) & set(test.items)
    assert len(whole) // 10 - 1 <= len(test) <= len(whole) // 10
    assert test[0] == whole[9]


def test_a_module_is_held_out_of_both_texts():
    modules = [
        {item for item in documents(f"builtin:{name}:test").items if item[0] == "module"}
        for name in ("docs", "code")
    ]
    assert modules[0] == modules[1]


@pytest.mark.parametrize("split", ["valid", "", "tset"])
def test_unknown_builtin_splits_list_the_known(split):
    with pytest.raises(
        InputError, match=f"unknown split of builtin:docs '{split}'.* known: test, train"
    ):
        documents(f"builtin:docs:{split}")
