"""A session's Altair theme is for its own charts; the page keeps to its own, light and dark."""

import altair as alt
import pytest

from lmdyn import report
from lmdyn.report import exports


@pytest.fixture
def themed():
    report.enable_theme(width=333, height=77)
    yield
    alt.theme.enable("default")
    alt.renderers.enable("default")


def chart():
    return alt.Chart(alt.Data(values=[{"x": 1, "y": 2}])).mark_line().encode(x="x:Q", y="y:Q")


def test_charts_of_the_session_are_themed_and_shown_as_pictures(themed):
    config = chart().to_dict()["config"]
    assert (
        config["view"]["continuousWidth"],
        config["view"]["continuousHeight"],
        config["background"],
    ) == (333, 77, "#ffffff")
    data = chart()._repr_mimebundle_(None, None)
    assert (data[0] if isinstance(data, tuple) else data)["image/png"].startswith(b"\x89PNG")


def test_the_page_does_not_take_the_theme_over(themed):
    before = exports.spec_of(chart())
    alt.theme.enable("default")
    assert before["config"] == chart().to_dict()["config"]
    assert "background" not in before["config"]
