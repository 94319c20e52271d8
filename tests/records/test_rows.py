"""Rows survive the disk, are all there or none, and hold finite numbers only."""

import errno
import json
import os

import numpy as np
import pytest

from lmdyn import records
from lmdyn.errors import InputError
from lmdyn.records.rows import FIELDS
from tests.report import cases


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    records.write_rows(path, cases.streamed(), cases.META, cases.traces())
    assert records.read_rows(path) == cases.streamed()
    assert records.read_meta(path) == cases.META
    for name, trace in cases.traces().items():
        np.testing.assert_array_equal(records.read_traces(path)[name], trace)
    assert {p.name for p in path.parent.iterdir()} == {
        "rows.jsonl",
        "rows.jsonl.meta.json",
        "rows.jsonl.trace.npz",
    }


def test_fields_come_first_and_in_order(tmp_path):
    jumbled = dict(
        reversed(
            records.row(
                "nll", np.float32(0.5), "nats", model="m", perplexity=np.float64(1.5)
            ).items()
        )
    )
    records.write_rows(tmp_path / "r", [jumbled], {})
    record = json.loads((tmp_path / "r").read_text())
    assert list(record) == [*FIELDS, "perplexity"]
    assert record["value"] == 0.5
    assert record["layer"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    with pytest.raises(InputError, match=r"nll of m .* not a finite number"):
        records.write_rows(tmp_path / "r", [records.row("nll", value, "nats", model="m")], {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", range(1, 8))
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, call):
    calls, sync = [], os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) == call and call <= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    if call <= 3:
        with pytest.raises(OSError, match="No space"):
            records.write_rows(tmp_path / "r", cases.streamed(), cases.META, cases.traces())
        assert not list(tmp_path.iterdir())
    else:
        records.write_rows(tmp_path / "r", cases.streamed(), cases.META, cases.traces())
        assert len(list(tmp_path.iterdir())) == 3


BAD = {
    "not json": ('{"a": ', "line 1 is not JSON"),
    "no row": ('{"model": "m"}', "line 1 is not a row: it lacks step, metric"),
    "not an object": ("[1]", "is not a row"),
    "a word": (
        json.dumps(records.row("nll", "three", "nats", model="m")),
        "value 'three' is not a finite number",
    ),
    "nan": (
        json.dumps(records.row("nll", float("nan"), "nats", model="m")),
        "value nan is not a finite number",
    ),
}


@pytest.mark.parametrize("line, said", BAD.values(), ids=BAD)
def test_bad_rows_are_named(tmp_path, line, said):
    (tmp_path / "r.jsonl").write_text(line)
    with pytest.raises(InputError, match=said):
        records.read_rows(tmp_path / "r.jsonl")


def test_damaged_neighbours_are_named(tmp_path):
    path = cases.folder(tmp_path) / "online.jsonl"
    whole = (tmp_path / "online.jsonl.trace.npz").read_bytes()
    (tmp_path / "online.jsonl.trace.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "online.jsonl.meta.json").write_text("{")
    with pytest.raises(InputError, match=r"trace.npz is damaged"):
        records.read_traces(path)
    with pytest.raises(InputError, match=r"meta.json is not JSON"):
        records.read_meta(path)
