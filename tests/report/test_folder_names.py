"""Several folders on one page: names tell them apart, links resolve, one folder is as it was."""

import csv
import io
import json
import urllib.parse

import pytest

from lmdyn import records, report
from lmdyn.cli import command_line
from lmdyn.errors import InputError
from tests.report import cases
from tests.report.test_page import Links
from tests.report.test_study_pages import claim, decay


@pytest.fixture
def folders(tmp_path):
    """The same model measured twice, another one, and a study twice."""
    found = []
    for name, rows in (
        ("first", cases.measured()),
        ("second", cases.measured(shift=0.1)),
        ("third", cases.measured("dir:/m/Other")),
    ):
        records.write_rows(tmp_path / name / "measure.jsonl", rows, cases.META)
        found.append(tmp_path / name)
    for name in ("here", "there"):
        out = tmp_path / name / "study one"
        records.write_rows(out / "rows.jsonl", decay(), {**cases.META, "study": "entropy decay"})
        (out / "study.json").write_text("{}")
        (out / "claims.json").write_text(
            json.dumps([{**claim("a", "supported"), "figure": "effects"}])
        )
        found.append(out)
    return found


def test_names_tell_them_apart(folders, tmp_path):
    text = report.build(folders, tmp_path / "all.html").read_text(encoding="utf-8")
    page = Links(text)
    for a in page.links:
        assert a["href"].startswith("data:") or a["href"][1:] in page.ids, a["href"]
    downloads = {a["download"]: a["href"] for a in page.links if "download" in a}
    assert {
        "knowledge-entropy.csv",
        "study-one-in-here-effects.csv",
        "study-one-in-there-effects.svg",
    } <= downloads.keys()
    table = urllib.parse.unquote(downloads["knowledge-entropy.csv"].partition(",")[2])
    models = {r["model"] for r in csv.DictReader(io.StringIO(table))}
    assert models == {"Tiny-5M (first)", "Tiny-5M (second)", "Other"}
    assert text.count("<summary>It a &lt;so&gt;.</summary>") == 1, (
        "a sentence stands once, with what each folder says on it"
    )
    for name in ("study one in here", "study one in there"):
        assert f"<b>{name}</b> <a href=" in text
        assert f"<p class=of>{name}</p>" in text, (
            "figures stand beside one another, under the folder's name"
        )
    assert {"claim-study-one-in-here-a", "claim-study-one-in-there-a"} <= page.ids
    assert not list(tmp_path.glob("*/report.html")), "no folder's own page is touched"


def test_one_folder_is_as_it_was(folders, tmp_path):
    alone = report.build(folders[0]).read_bytes()
    assert report.build([folders[0]]).read_bytes() == alone


@pytest.mark.parametrize(
    "words, message",
    [
        (["a", "b"], "a page of 2 folders belongs to none of them; give --out FILE"),
        ([], "report needs a folder of rows"),
        (["a", "no", "--out", "x.html"], "no is not a folder"),
    ],
)
def test_what_is_missing_is_one_line(tmp_path, capsys, monkeypatch, words, message):
    cases.folder(tmp_path / "a")
    cases.folder(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["report", *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "x.html").exists()


def test_the_command_line_takes_several(folders, tmp_path, capsys):
    assert (
        command_line.main(
            ["report", str(folders[0]), str(folders[2]), "--out", str(tmp_path / "two.html")]
        )
        == 0
    )
    assert "Other" in (tmp_path / "two.html").read_text(encoding="utf-8")


def test_folders_below_one_folder_are_gathered(folders, tmp_path):
    (tmp_path / "there" / "study one" / "runs" / "seed0").mkdir(parents=True)
    records.write_rows(
        tmp_path / "there" / "study one" / "runs" / "seed0" / "rows.jsonl",
        cases.measured("dir:/m/Deeper-9"),
        cases.META,
    )
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "study.json").write_text("{}")
    path = report.build(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "report.html"
    downloads = {a["download"] for a in Links(text).links if "download" in a}
    assert {
        "knowledge-entropy.csv",
        "study-one-in-here-effects.csv",
        "study-one-in-there-effects.svg",
    } <= downloads
    assert "Tiny-5M (first)" in text and "Other" in text
    assert "Deeper-9" not in text, "what a study trained is the study's own"
    assert "Left out because unfinished: stopped." in text
    assert not list(tmp_path.rglob("figures")), "no folder below is touched"
    assert report.build(tmp_path).read_text(encoding="utf-8") == text, (
        "its own page is not a part of it"
    )


def test_rows_of_the_folder_itself_come_first(folders, tmp_path):
    cases.folder(tmp_path)
    text = report.build(tmp_path).read_text(encoding="utf-8")
    assert text.index(f"{tmp_path.name}/measure.jsonl</small>") < text.index(
        "first/measure.jsonl</small>"
    )


def test_only_an_unfinished_study_below(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "study.json").write_text("{}")
    with pytest.raises(InputError, match=r"the study in .*a is unfinished"):
        report.build(tmp_path)
