"""The page's headings say what was run, on which models and when; names of folders only tell apart
what would else have the same name.
"""

import html
import re

from lmdyn import records, report
from tests.report import cases
from tests.report.test_small_versions import shown, study
from tests.report.test_study_pages import decay, told

SEEDS = {"seeds": 3, "seed": 0, "pretrain": {"model": {"width": 64, "depth": 4}}}


def headings(path, level):
    return [
        html.unescape(re.sub(r"<[^>]*>", "", found))
        for found in re.findall(rf"<h{level}>(.*?)</h{level}>", path.read_text(encoding="utf-8"))
    ]


def test_a_page_is_named_after_what_was_run(tmp_path):
    study(tmp_path / "x1", told(), "fact learning", {"model": "hf:EleutherAI/pythia-70m@step1000"})
    study(tmp_path / "x2", decay(), "entropy decay", SEEDS)
    cases.folder(tmp_path / "x3")
    path = report.build(tmp_path)
    title = "Fact learning (pythia-70m) · entropy decay · measurements of Tiny-5M"
    assert headings(path, 1) == [title]
    assert f"<title>{title}, 2 January 2026</title>" in path.read_text(encoding="utf-8")
    text = shown(path)
    assert "Run on 2 January 2026." in text
    assert (
        "Models trained for it, of width 64 and depth 4; seeds 0 to 2; 2 January 2026, 12 seconds"
        " on 1 x cpu." in text
    )
    assert not {"x1", "x2", "x3"} & {
        word for level in (1, 2) for heading in headings(path, level) for word in heading.split()
    }
    last = headings(path, 3)[-4:]
    assert last == [
        "Fact learning x1/rows.jsonl",
        "Entropy decay x2/rows.jsonl",
        "Tiny-5M, measured x3/measure.jsonl",
        "Tiny-5M, measured x3/online.jsonl",
    ]


def test_of_one_study_with_other_seeds_the_seeds_are_told(tmp_path):
    folders = []
    for name, seed in (("here", 0), ("there", 3)):
        folder = study(
            tmp_path / name, decay(), "entropy decay", {**SEEDS, "seed": seed, "out": name}
        )
        meta = {**records.read_meta(folder / "rows.jsonl"), "seed": seed}
        records.write_rows(folder / "rows.jsonl", decay(), meta)
        folders.append(folder)
    path = report.build(folders, tmp_path / "x.html")
    assert headings(path, 1) == ["Entropy decay"]
    assert "Beside one another: here (seeds 0 to 2), there (seeds 3 to 5);" in shown(path)
    text = path.read_text(encoding="utf-8")
    assert "<b>there (seeds 3 to 5)</b></th><td role=cell class=estimate" in text


def test_what_is_not_known_is_not_said(tmp_path):
    records.write_rows(tmp_path / "m.jsonl", cases.measured(), {"started": "not a date"})
    path = report.build(tmp_path)
    assert headings(path, 1) == ["Measurements of Tiny-5M"]
    assert "Run on" not in shown(path)
