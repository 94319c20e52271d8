"""`tfds:` reads what a user has prepared, without TensorFlow."""

import sys

import numpy as np
import pytest

from lmdyn.data import documents
from lmdyn.errors import InputError

tfds = pytest.importorskip("tensorflow_datasets")

TEXTS = {"train": ["first text \u00e9", "second", "third"], "test": ["held out"]}


class TinyText(tfds.core.GeneratorBasedBuilder):
    """Three documents and one."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = None

    @classmethod
    def _get_pkg_dir_path(cls):
        import pathlib

        return pathlib.Path(__file__).parent

    def _info(self):
        features = tfds.features.FeaturesDict(
            {"text": tfds.features.Text(), "number": tfds.features.Scalar(np.int64)}
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {split: self._generate_examples(split) for split in TEXTS}

    def _generate_examples(self, split):
        for i, text in enumerate(TEXTS[split]):
            yield i, {"text": text, "number": i}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    TinyText(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture
def data_dir(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    return prepared


def test_splits_are_sequences_of_text(data_dir):
    docs = documents("tfds:tiny_text:train#text")
    assert len(docs) == 3
    assert sorted(docs) == sorted(TEXTS["train"])
    assert docs[1] == list(docs)[1]
    assert "tensorflow" not in sys.modules


def test_a_folder_names_the_dataset_too(data_dir):
    assert list(documents(f"tfds:{data_dir}/tiny_text/1.0.0:test#text")) == TEXTS["test"]


def test_a_part_of_a_split(data_dir):
    assert len(documents("tfds:tiny_text:train[:2]#text")) == 2


BAD = {
    "split": ("tfds:tiny_text:trian#text", "did you mean 'train'"),
    "field": ("tfds:tiny_text:train#txt", "has no field 'txt'; it has: number, text"),
    "kind of field": ("tfds:tiny_text:train#number", "is not text but int"),
}


@pytest.mark.parametrize("ref, said", BAD.values(), ids=BAD)
def test_mistakes_are_named(data_dir, ref, said):
    with pytest.raises(InputError, match=said):
        documents(ref)[0]
