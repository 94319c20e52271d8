"""Parquet and Arrow: the rows that the `datasets` library and pyarrow themselves wrote."""

import pickle

import pytest

from lmdyn.data import documents
from lmdyn.errors import InputError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
TEXTS = [f"text {i} \u00e9" for i in range(23)]


@pytest.fixture
def folder(tmp_path):
    for name, part in (("train-1", TEXTS[10:]), ("train-0", TEXTS[:10])):
        table = pyarrow.table({"id": list(range(len(part))), "text": part})
        parquet.write_table(table, tmp_path / f"{name}.parquet", row_group_size=4)
    return tmp_path


@pytest.mark.parametrize("what", ["", "/train-*.parquet"])
def test_parquet_is_read_by_row(folder, what):
    found = documents(f"parquet:{folder}{what}#text")
    assert len(found) == 23
    assert [found[i] for i in (22, 0, 9, 10, 13)] == [TEXTS[i] for i in (22, 0, 9, 10, 13)]
    assert list(pickle.loads(pickle.dumps(found))) == TEXTS


@pytest.mark.parametrize("shards", [1, 3])
def test_what_save_to_disk_wrote(tmp_path, shards):
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_dict({"text": TEXTS})
    whole.save_to_disk(tmp_path / "one", num_shards=shards)
    found = documents(f"arrow:{tmp_path}/one#text")
    assert [found[i] for i in (22, 0, 9)] == [TEXTS[i] for i in (22, 0, 9)]
    assert list(found) == TEXTS
    datasets.DatasetDict({"train": whole}).save_to_disk(tmp_path / "splits")
    with pytest.raises(InputError, match=r"holds the splits train; write arrow:.*/splits/train#"):
        documents(f"arrow:{tmp_path}/splits#text")
    assert list(documents(f"arrow:{tmp_path}/splits/train#text")) == TEXTS


def test_an_arrow_file(tmp_path):
    table = pyarrow.table({"text": TEXTS})
    with pyarrow.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as file:
        file.write_table(table)
    assert list(documents(f"arrow:{tmp_path}/a.arrow#text")) == TEXTS


def test_bad_input(folder):
    with pytest.raises(InputError, match="has no field 'body'; it has: id, text"):
        documents(f"parquet:{folder}#body")
    with pytest.raises(InputError, match="row 0: field 'id' is not text but int"):
        documents(f"parquet:{folder}#id")[0]
    (folder / "bad").write_bytes(b"PAR1 and no more")
    for kind, name in (("parquet", "Parquet"), ("arrow", "Arrow")):
        with pytest.raises(InputError, match=f"bad is .*not a whole {name} file"):
            documents(f"{kind}:{folder}/bad#text")
