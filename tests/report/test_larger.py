"""How to run a study larger: every command on a page is one that lmdyn understands, and changes
what it says.
"""

import shlex

import pytest

from lmdyn.cli import command_line as cli
from lmdyn.report import drawing, markup
from lmdyn.report.figures import Figure
from lmdyn.studies import registry as kinds

STUDIES = [name for name, kind in kinds.KINDS.items() if kind.config]


@pytest.mark.parametrize("name", STUDIES)
def test_its_commands_are_understood(name):
    said = f"lmdyn study --config {kinds.KINDS[name].config} --seed 3 --out 'a folder/{name}'"
    if name in ("entropy decay",):
        said = said.replace(" --seed 3", "")
    before = cli.parse(shlex.split(said)[1:])
    ways = kinds.larger(name, {"command": said, "config": {"seeds": 3}, "wall_seconds": 600.0})
    assert ways
    for what, command in ways:
        assert what.endswith(".") and "{" not in what
        if not command:  # said in words
            continue
        after = cli.parse(shlex.split(command)[1:])
        assert type(after) is type(before) and after != before
        assert after.out == f"a folder/{name}-larger"
        assert getattr(after, "seed", 3) == getattr(before, "seed", 3), "what was set stays set"


@pytest.mark.parametrize("name", kinds.KINDS)
def test_without_a_command_it_is_the_shipped_one(name):
    for _, command in kinds.larger(name, {}):
        assert not command or f"--config {kinds.KINDS[name].config} " in command


def test_seeds_are_more_than_there_were():
    ways = kinds.larger("saturation", {"config": {"seeds": 12}, "wall_seconds": 60.0})
    assert ways[0][0] == "More seeds narrow the intervals: 12 took 1 minutes here, 36 take about 3."
    assert "--seeds 36 " in ways[0][1]


def test_a_figure_without_a_table_has_its_data():
    name, lines = drawing.table(
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
