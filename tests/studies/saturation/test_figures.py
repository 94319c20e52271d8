"""The figures of the saturation study, from rows in which everything is planted."""

import xml.etree.ElementTree as ElementTree

import pytest

from lmdyn.report import page
from lmdyn.studies.saturation import figures as saturation
from lmdyn.studies.saturation.claims import claims
from lmdyn.studies.saturation.summary import summary
from tests.report.test_figures import drawn
from tests.studies.saturation import cases as planted

EVERY = [
    "losses",
    "anisotropy",
    "anisotropy-by-depth",
    "spectra",
    "singular-entropy",
    "ranks",
    "target",
    "target-growth",
    "alternatives",
]


@pytest.fixture(scope="module")
def rows():
    found = planted.study(seeds=2)
    return found + summary(found, 0.125)


def test_every_part_has_its_figure_and_no_rows_have_none(rows):
    figures = saturation.figures(rows)
    assert [f.name for f in figures] == EVERY
    for figure in figures:
        assert ElementTree.fromstring(page.to_svg(figure.chart)).tag.endswith("svg")
        assert figure.data
    assert saturation.figures([]) == []
    claimed = {claim.figure for claim in claims(rows)}
    assert claimed <= set(EVERY)


def test_losses_show_the_law_the_rises_and_the_excess(rows):
    whole, narrow, excess = saturation.losses(rows).chart
    rings = [d for d in drawn(narrow) if "rise" in d]
    assert sorted(d["name"] for d in rings) == ["width 16", "width 16", "width 8", "width 8"]
    assert {d["name"] for d in drawn(narrow)} == {"width 8", "width 16"}
    ends = {d["name"]: d["value"] for d in drawn(excess) if "fit" in d}
    assert all((value > 0.03) == (name in ("width 8", "width 16")) for name, value in ends.items())
    table = saturation.losses(rows).table
    assert [line["turns up in"] for line in table] == [
        "2 of 2",
        "2 of 2",
        "0 of 2",
        "0 of 2",
        "0 of 2",
    ]
    assert {d["name"] for d in drawn(whole)} == {f"width {w}" for w in planted.WIDTHS}


def test_widths_are_told_on_shares_so_that_they_compare(rows):
    data = saturation.spectra(rows).data
    assert max(d["place"] for d in data) == 1 and {d["name"] for d in data} == {
        "width 8",
        "width 24",
        "width 64",
    }
    entropy = saturation.singular_entropy(rows).data
    last = {d["name"]: d["value"] for d in entropy if d["step"] == planted.STEPS}
    assert last["width 8"] == pytest.approx(planted.entropy(8, planted.STEPS), rel=1e-5)


def test_ranks_and_other_heads_are_those_of_the_rows(rows):
    left, near = saturation.ranks(rows).chart
    mean = {(d["rank"], d["start"]): d["value"] for d in drawn(left) if "each" in d}
    assert mean[16, "trained from there"] == pytest.approx(3.1, abs=1e-3) and mean[
        64, "as it is"
    ] == pytest.approx(3.0, abs=1e-3)
    assert max(d["value"] for d in drawn(near) if "value" in d) <= 3.0 * 1.08 + 1e-3
    gains = {
        (d["name"], d["kind"]): d["value"]
        for d in drawn(saturation.alternatives(rows).chart)
        if "each" in d
    }
    assert gains["mixture of 2: 1.03 times the numbers", "on a frozen body"] == pytest.approx(
        0.05, abs=1e-3
    )
