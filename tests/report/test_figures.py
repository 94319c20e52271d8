"""Figures draw the rows' numbers, and nothing else."""

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from lmdyn.records import Quantity, describe, row
from lmdyn.report import highlights, metric_figures, page, stream_figures, theme
from lmdyn.report.figure_blocks import Group
from lmdyn.report.figures import short
from lmdyn.report.folders import Run
from tests.report import cases


def drawn(chart):
    """Every inline datum of a chart."""
    found = []

    def walk(node):
        if isinstance(node, dict):
            if isinstance(node.get("values"), list):
                found.extend(v for v in node["values"] if isinstance(v, dict))
            for name, child in node.items():
                if name != "values":
                    walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(chart.to_dict())
    return found


def layers(rows, metric):
    """The figure of a metric's layers."""
    return next(f for f in page.collect([Run("m", rows, {}, {})]) if f.name == metric)


def test_layers_and_ceiling_are_the_rows():
    rows = cases.measured()
    values = drawn(layers(rows, "knowledge-entropy").chart)
    expected = {
        r["layer"]: r["value"]
        for r in rows
        if r["metric"] == "knowledge_entropy" and r["layer"] is not None
    }
    assert {v["layer"]: v["value"] for v in values if "layer" in v} == pytest.approx(
        expected, rel=1e-5
    )
    assert [v["ceiling"] for v in values if set(v) == {"ceiling"}] == pytest.approx(
        [math.log(11)], abs=1e-4
    )


def test_anisotropy_has_every_depth_and_the_last_norm():
    values = drawn(layers(cases.measured(), "anisotropy").chart)
    assert sorted(v["value"] for v in values if "value" in v) == pytest.approx(
        sorted([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.37])
    )


def test_nothing_to_draw_is_no_figure():
    assert page.collect([Run("x", cases.streamed(), {}, {})]) == []


@pytest.mark.parametrize("count", [1, 3, 47, 48, 49, 1000])
def test_the_stream_keeps_every_token(count):
    rng = np.random.default_rng(count)
    static, online = rng.normal(size=(2, count))
    data = stream_figures.stream_data(static, online)
    assert len(data) <= stream_figures.STREAM_BINS
    assert [d["start"] for d in data] == [0, *(d["end"] for d in data[:-1])]
    assert data[-1]["end"] == count
    for name, trace in (("static", static), ("online", online)):
        total = sum(d[name] * (d["end"] - d["start"]) for d in data)
        assert total == pytest.approx(trace.sum(), rel=1e-4, abs=1e-4)
    assert data[-1]["gain"] == pytest.approx((static - online).sum(), rel=1e-4)


def test_a_series_has_a_shade_for_each_step():
    rows = [
        r
        for step in (1, 10, 100, 1000, 5000, 7000, 9000)
        for r in cases.measured(f"hf:a/b@step{step}", step, shift=step / 1e5)
    ]
    figure = layers(rows, "knowledge-entropy")
    depth, course = figure.chart
    assert depth.to_dict()["usermeta"]["shades"] == 7
    assert len(set(theme.ramp("light", 7))) == 7
    entropies = {r["step"]: r["value"] for r in rows if r["layer"] is None and r["site"] == "mlp"}
    assert {d["step"]: d["value"] for d in drawn(course)} == pytest.approx(entropies, rel=1e-5)
    ElementTree.fromstring(page.to_svg(figure.chart))


def test_a_metric_that_nobody_knows_has_its_figure_in_its_own_words():
    shares = (0.25, 0.5, 0.125)
    rows = [
        row("participation", s, "share", model="m", site="mlp", layer=i)
        for i, s in enumerate(shares)
    ]
    mine = Quantity("participation", "How many take part", "share", "mlp", "Mine.", "block")
    for meta, title, axis in (
        ({}, "Participation by layer", "layer"),
        ({"metrics": describe([mine])}, "How many take part by layer", "block"),
    ):
        [figure] = page.collect([Run("m", rows, meta, {})])
        assert (figure.name, figure.title) == ("participation", title)
        assert [d["value"] for d in drawn(figure.chart)] == list(shares)
        assert axis in page.to_svg(figure.chart) and "share" in page.to_svg(figure.chart)
        assert "highest at" in figure.says and "1 (share 0.500)" in figure.says
        assert figure.caption.startswith("Mine." if meta else "Participation, in share.")


def test_a_series_stands_apart_from_other_models():
    rows = [r for s in (1, 2, 3) for r in cases.measured("run:tiny", s)] + cases.measured()
    found = {f.name: f for f in page.collect([Run("m", rows, {}, {})])}
    assert {d["model"] for d in found["knowledge-entropy"].data} == {"Tiny-5M"}
    assert {d["step"] for d in found["knowledge-entropy-2"].data} == {1, 2, 3}
    assert metric_figures.LEAST_STEPS == 3


def test_every_figure_is_an_svg_with_its_text(tmp_path):
    runs = [
        Run("m", cases.measured(), cases.META, {}),
        Run("o", cases.streamed(), cases.META, cases.traces()),
    ]
    figs = page.collect(runs)
    assert [f.name for f in figs] == ["knowledge-entropy", "anisotropy", "gain", "stream"]
    for figure in figs:
        svg = page.to_svg(figure.chart)
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert "Tiny-5M" in figure.caption
        assert "text:a <b>.txt" in figure.caption
        assert "35 predictions" in figure.caption
    assert "ceiling = 2.40" in page.to_svg(figs[0].chart)


@pytest.mark.parametrize("mode", theme.INK)
def test_ink_and_lines_stand_out_from_the_paper(mode):
    def light(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    def contrast(a, b):
        low, high = sorted((light(a), light(b)))
        return (high + 0.05) / (low + 0.05)

    ink = theme.INK[mode]
    assert contrast(ink["ink"], ink["paper"]) >= 7
    assert contrast(ink["soft"], ink["paper"]) >= 4.5
    assert contrast(ink["accent"], ink["paper"]) >= 4.5
    assert all(contrast(c, ink["paper"]) >= 3 for c in theme.CATEGORY[mode])


def test_short_names():
    assert short("dir:/a/b/pythia-70m/") == "pythia-70m"
    assert short("gguf:C.gguf") == "C"


def test_ranks_decide_what_opens_a_page():
    ranks = {"plain": 0, "first": 1, "never": -1, "second": 1}
    known = describe(Quantity(name, name, rank=rank) for name, rank in ranks.items())
    rows = [row(name, i, "nats", model="m", layer=i) for name in ranks for i in range(3)]
    figures = metric_figures.measured([Run("m", rows, {"metrics": known}, {})])
    assert [f.name for f in figures] == ["plain", "first", "second", "never"]
    opening = highlights.choose([], [Group(f.title, [("", f)]) for f in figures], [])
    assert [h.group.figures[0][1].name for h in opening] == ["first", "second", "plain"]


def test_a_second_figure_of_a_metric_does_not_open_a_page():
    known = describe([Quantity("first", "First", rank=1)])
    rows = [row("first", i, "nats", model="m", layer=i) for i in range(3)]
    series = [
        row("first", i, "nats", model="s", layer=i, step=n) for n in range(3) for i in range(3)
    ]
    figures = metric_figures.measured([Run("m", rows + series, {"metrics": known}, {})])
    assert [(f.name, f.rank) for f in figures] == [("first", 1), ("first-2", 0)]


@pytest.mark.parametrize("unit, said", [("cosine", "cosine 2.00"), ("nats", "2.00 nats")])
def test_pure_numbers_are_named_before_them(unit, said):
    data = [{"model": "m", "step": None, "layer": i, "value": 2.0} for i in range(2)]
    sentence = metric_figures.said(Quantity("h", "H", unit, axis="depth"), data, True)
    assert f"H is highest at depth 0 ({said})" in sentence
