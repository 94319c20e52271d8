"""`lmdyn gradients`: rows as they are promised, a figure, and bad input in one line."""

import json

import numpy as np
import pytest

from lmdyn import checkpoints, data, metrics, records, report
from tests.cli.test_bad_input import one_line
from tests.cli.test_command_line import caches, folder, run  # noqa: F401 (fixtures)

WORDS = [
    "gradients",
    "dir:{d}/tiny",
    "--probe",
    "{d}/facts.jsonl",
    "--reference",
    "text:{d}/a.txt",
    "--spans",
    "6",
    "--batch",
    "5",
    "--resamples",
    "40",
    "--out",
    "{o}/g.jsonl",
]


@pytest.fixture
def place(folder):  # noqa: F811
    lines = [
        {"prompt": f"Person {i} lives in", "target": f"town {i % 3}", "kind": kind}
        for i in range(4)
        for kind in ("new", "updated")
    ]
    (folder / "facts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "one.jsonl").write_text(json.dumps({**lines[0], "kind": "unchanged"}))
    (folder / "nothing.jsonl").write_text("")
    (folder / "templama.json").write_text(
        '{"query": "Ada plays for _X_.", "answer": [{"name": "A"}], "date": "2019-13"}'
    )
    return folder


def words(place, out, *more, drop=(), **changed):
    found = [w.format(d=place, o=out) for w in WORDS]
    for option, value in changed.items():
        found[found.index(f"--{option}") + 1] = value.format(d=place)
    return [*found, *more]


def test_rows_are_those_of_the_library_and_there_is_a_figure(capsys, place, tmp_path):
    out = tmp_path / "out"
    code, said, err = run(capsys, *words(place, out))
    assert code == 0, err
    rows = records.read_rows(out / "g.jsonl")
    of = lambda metric, **more: [
        r for r in rows if r["metric"] == metric and all(r.get(k) == v for k, v in more.items())
    ]
    loaded = checkpoints.load(f"dir:{place}/tiny")
    probes = [p for p in data.read_probes(str(place / "facts.jsonl")) if p.kind == "new"]
    norms = metrics.layer_gradients(
        loaded.model,
        loaded.params,
        data.encode_probes(probes, loaded.tokenizer),
        groups=("attention", "mlp"),
    )
    for group in ("attention", "mlp"):
        found = of("gradient_norm", site=group, set="probe", kind="new")
        assert [r["layer"] for r in found] == [0, 1, 2]
        np.testing.assert_allclose(
            [r["value"] for r in found], norms.norms[group].mean(-1), rtol=1e-4
        )
        reference = [r["value"] for r in of("gradient_norm", site=group, set="reference")]
        relative = of("relative_gradient_norm", site=group, kind="new")
        np.testing.assert_allclose(
            [r["value"] for r in relative], norms.norms[group].mean(-1) / reference, rtol=1e-4
        )
        assert all(r["low"] <= r["value"] <= r["high"] for r in relative)
    (test,) = of("profile_difference", site=None)
    assert test["kinds"] == ["new", "updated"] and 0 < test["p"] <= 1
    assert "new against updated: profiles differ by" in said and "layer 2" in said
    assert records.read_meta(out / "g.jsonl")["config"]["spans"] == 6
    page = report.build(out).read_text(encoding="utf-8")
    assert 'id="gradients"' in page and "norm relative to random spans" in page


def test_groups_are_any_selectors_and_kinds_come_from_several_files(capsys, place, tmp_path):
    (place / "more.jsonl").write_text(
        "\n".join(
            json.dumps({"prompt": f"The {i}th is", "target": "it", "kind": "unchanged"})
            for i in range(3)
        )
    )
    given = words(place, tmp_path, "--groups", "blocks.mlp.up,head", "--limit", "2")
    given.insert(given.index("--probe") + 2, str(place / "more.jsonl"))
    code, _, err = run(capsys, *given)
    assert code == 0, err
    found = [
        r
        for r in records.read_rows(tmp_path / "g.jsonl")
        if r["metric"] == "relative_gradient_norm"
    ]
    assert {r["kind"] for r in found} == {"new", "updated", "unchanged"} and {
        r["sequences"] for r in found
    } == {2}
    assert {(r["site"], r["layer"]) for r in found} == {
        ("blocks.mlp.up", 0),
        ("blocks.mlp.up", 1),
        ("blocks.mlp.up", 2),
        ("head", None),
    }


CASES = {
    "no probes": (dict(probe="{d}/nothing.jsonl"), "has no probes"),
    "one probe of a kind": (dict(probe="{d}/one.jsonl"), "1 probe of kind unchanged"),
    "missing probes": (dict(probe="{d}/none.jsonl"), "none.jsonl"),
    "a date that does not parse": (
        dict(probe="templama:{d}/templama.json@2018,2019"),
        "'2019-13' is not a date",
    ),
    "missing text": (dict(reference="text:{d}/none.txt"), "is not there"),
    "spans": (dict(spans="1"), "--spans=1"),
    "batch": (dict(batch="0"), "--batch=0"),
    "cut off": (("--length", "12"), "beyond length=12"),
    "short text": (("--tokens", "8"), "the text has"),
    "group": (("--groups", "mpl"), "mpl"),
    "no group": (("--groups", ","), "--groups names nothing"),
    "no reference": (None, "missing: --reference"),
}


@pytest.mark.parametrize("change, said", CASES.values(), ids=CASES)
def test_one_clear_line_and_nothing_written(capsys, place, tmp_path, change, said):
    out = tmp_path / "out"
    out.mkdir()
    given = (
        words(place, out, **change)
        if isinstance(change, dict)
        else words(place, out, *(change or ()))
    )
    if change is None:
        at = given.index("--reference")
        given = given[:at] + given[at + 2 :]
    code, _, err = run(capsys, *given)
    assert said in one_line(code, err)
    assert not list(out.iterdir())
