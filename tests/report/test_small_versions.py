"""Small versions of studies: one notice above the claims says that they decide nothing, and the
study's section points to it.
"""

import html
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

from lmdyn import records, report
from lmdyn.cli import command_line
from lmdyn.report import small_versions
from lmdyn.report.studies import larger
from lmdyn.studies.saturation import PAGE
from tests.report import cases
from tests.report.test_study_pages import claim, decay, told

ROOT = Path(__file__).parents[2]
TOUR = sorted(
    path
    for path in (ROOT / "configs" / "tour").glob("*.py")
    if "TrainConfig" not in path.read_text(encoding="utf-8") and path.stem != "tiny"
)
NOTICE = "decide nothing"


def study(folder, rows, name, config):
    """A study's folder with a claim of each verdict."""
    records.write_rows(
        folder / "rows.jsonl",
        rows,
        {
            **cases.META,
            "study": name,
            "seed": 0,
            "command": "lmdyn study --config s.py --seeds 2 --out o",
            "config": config,
        },
    )
    (folder / "study.json").write_text("{}")
    said = [
        claim(v.replace(" ", "-"), v, "learning", study=name)
        for v in ("supported", "not supported", "undecided")
    ]
    (folder / "claims.json").write_text(json.dumps(said))
    return folder


def shown(path):
    """The page's text, without its scripts and tags."""
    body = re.sub(r"<(script|style).*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_a_small_version_says_so_everywhere(tmp_path):
    text = shown(
        report.build(
            study(
                tmp_path / "s",
                told(),
                "fact learning",
                {"seeds": 2, "small_version_of": "configs/fact_learning.py"},
            )
        )
    )
    answer, rest = text.split("This study is a small version", 1)
    head = answer.split("In short")[0]
    assert "3 claims of a small version, which decide nothing" in head
    assert "supported" not in head, "its verdicts are not counted as if they were findings"
    assert text.count(NOTICE) == 2, "in the summary and in the one notice"
    assert "A small version , which decides nothing ." in rest, "the section points to it"
    assert ": small version ." in answer
    whole = "lmdyn study --config configs/fact_learning.py --out out/fact_learning"
    assert text.count(whole) >= 2, "in the notice, and first of how to run it larger"
    assert "s.py" not in text.split("Where the numbers come from")[0], (
        "nothing is made larger from the small version"
    )


def test_a_study_at_its_real_size_says_none_of_it(tmp_path):
    text = shown(report.build(study(tmp_path / "s", told(), "fact learning", {"seeds": 1})))
    assert "small version" not in text and NOTICE not in text
    assert "3 claims: 1 supported, 1 not supported, 1 undecided" in text


def test_beside_one_at_its_real_size_the_small_one_is_named(tmp_path):
    folders = [
        study(tmp_path / "tour", told(), "fact learning", {"small_version_of": "c.py"}),
        study(tmp_path / "whole", told(), "fact learning", {}),
        study(tmp_path / "decay", decay(), "entropy decay", {}),
    ]
    text = shown(report.build(folders, tmp_path / "x.html"))
    assert (
        "6 claims: 2 supported, 2 not supported, 2 undecided; 3 claims of a small version, which"
        " decide nothing" in text
    )
    assert "Fact learning is a small version here" in text
    assert "Tour: a small version , which decides nothing ." in text
    assert text.count("tour small version") == 3, "at each of its claims"


def test_how_to_run_it_larger_starts_from_its_real_size():
    made = larger(
        PAGE,
        {
            "command": "lmdyn study --config configs/tour/saturation.py --out o",
            "wall_seconds": 60.0,
            "config": {"seeds": 2, "small_version_of": "configs/saturation.py"},
        },
    )
    assert made[0][1] == "lmdyn study --config configs/saturation.py --out out/saturation"
    assert all("tour" not in command and "took" not in what for what, command in made)
    assert len(made) == 1 + len(PAGE.larger)


@pytest.mark.parametrize("path", TOUR, ids=lambda path: path.stem)
def test_every_study_of_the_tour_names_what_it_is_small_of(path):
    config = runpy.run_path(str(path))["config"]()
    assert (ROOT / config.small_version_of).exists()
    whole = command_line.parse(shlex.split(small_versions.command(config.small_version_of))[1:])
    assert type(whole) is type(config) and whole.small_version_of is None


def test_the_tour_has_studies():
    assert len(TOUR) >= 4
