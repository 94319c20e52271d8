"""How to run a study larger: every command on a page is one that lmdyn understands, and changes
what it says.
"""

import shlex

import pytest

from lmdyn import records, report
from lmdyn.cli import command_line
from lmdyn.errors import InputError
from lmdyn.report import exports, markup
from lmdyn.report.figures import Figure
from lmdyn.report.studies import find, larger

STUDIES = (
    "entropy_decay",
    "fact_learning",
    "gradient_localization",
    "knowledge_entropy",
    "online_adaptation",
    "saturation",
)
PAGES = {name: find(f"lmdyn.studies.{name}") for name in STUDIES}


@pytest.mark.parametrize("name", PAGES)
def test_its_commands_are_understood(name):
    said = f"lmdyn study --config {PAGES[name].config} --seed 3 --out 'a folder/{name}'"
    if name in ("entropy_decay",):
        said = said.replace(" --seed 3", "")
    before = command_line.parse(shlex.split(said)[1:])
    ways = larger(PAGES[name], {"command": said, "config": {"seeds": 3}, "wall_seconds": 600.0})
    assert ways
    for what, command in ways:
        assert what.endswith(".") and "{" not in what
        if not command:  # said in words
            continue
        after = command_line.parse(shlex.split(command)[1:])
        assert type(after) is type(before) and after != before
        assert after.out == f"a folder/{name}-larger"
        assert getattr(after, "seed", 3) == getattr(before, "seed", 3), "what was set stays set"


@pytest.mark.parametrize("name", PAGES)
def test_without_a_command_it_is_the_shipped_one(name):
    for _, command in larger(PAGES[name], {}):
        assert not command or f"--config {PAGES[name].config} " in command


def test_seeds_are_more_than_there_were():
    ways = larger(PAGES["saturation"], {"config": {"seeds": 12}, "wall_seconds": 60.0})
    assert ways[0][0] == "More seeds narrow the intervals: 12 took 1 minutes here, 36 take about 3."
    assert "--seeds 36 " in ways[0][1]


def test_a_study_of_another_package_is_drawn_by_its_own_page(tmp_path, monkeypatch):
    (tmp_path / "somebody.py").write_text(
        "import altair as alt\n"
        "from lmdyn.report.figures import Figure\n"
        "from lmdyn.report.studies import StudyPage\n"
        "def figures(rows):\n"
        "    data = [{'value': r['value']} for r in rows]\n"
        "    chart = alt.Chart(alt.Data(values=data)).mark_point().encode(x='value:Q')\n"
        "    return [Figure('mine', 'A figure of mine', 'See.', chart, data)]\n"
        "PAGE = StudyPage('My study', 'Is it so?', 'me', '', figures)\n"
    )
    rows = [records.row("anything", 1.0, "nats", model="m")]
    for name in ("somebody", "nobody"):
        meta = {"study": name, "package": name}
        records.write_rows(tmp_path / name / "rows.jsonl", rows, meta)
        (tmp_path / name / "study.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    page = report.build(tmp_path / "somebody").read_text(encoding="utf-8")
    assert '<h2><a href="#study-My-study">My study</a></h2>' in page
    assert 'id="mine"' in page and "Is it so?" in page
    page = report.build(tmp_path / "nobody").read_text(encoding="utf-8")
    assert '<h2><a href="#study-Nobody">Nobody</a></h2>' in page
    assert "The figures are missing: nobody cannot be imported here" in page


def test_rows_that_a_study_cannot_draw_are_named(tmp_path):
    rows = [records.row("running_profile", 1.0, "ratio", model="m", site="mlp", layer=0)]
    meta = {"study": "gradient localization", "package": "lmdyn.studies.gradient_localization"}
    records.write_rows(tmp_path / "rows.jsonl", rows, meta)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(InputError, match=r"rows.jsonl: .* cannot draw these rows \(KeyError"):
        report.build(tmp_path)


def test_a_figure_without_a_table_has_its_data():
    name, lines = exports.table(
        Figure(
            "f",
            "",
            "",
            None,
            [{"step": 1, "value": -0.1234567}, {"step": 2, "value": None, "note": "<x>"}],
        )
    )
    made = markup.behind(lines, name)
    assert "<summary>Table</summary>" in made
    assert "<th scope=row>1</th><td>\u22120.123457</td><td></td>" in made
    assert "<td>&lt;x&gt;</td>" in made
