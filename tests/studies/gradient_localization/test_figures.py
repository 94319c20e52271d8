"""Figures of gradient localization, from made-up rows."""

import pytest

from lmdyn import records
from lmdyn.report import gradient_profiles, page
from lmdyn.studies.gradient_localization import figures
from tests.report.test_figures import drawn

MODES = ("plain", "freeze", "scale", "running freeze")


def rows(seeds=2):
    found = []
    row = lambda metric, value, unit="x", **more: found.append(
        records.row(metric, value, unit, model="run:r", **more)
    )
    for seed in range(seeds):
        for site in ("attention", "mlp"):
            for layer in range(3):
                for number, kind in enumerate(("updated", "new", "unchanged", "traced")):
                    row(
                        "relative_gradient_norm",
                        1.0 + layer + number + seed,
                        site=site,
                        layer=layer,
                        kind=kind,
                        seed=seed,
                    )
                row("profile_difference", 0.1 * layer, site=site, layer=layer, seed=seed)
                row(
                    "running_profile",
                    2.0 * (1 + layer),
                    site=site,
                    layer=layer,
                    seed=seed,
                    method="m",
                    mode="running freeze",
                    factor=1.0,
                )
        row("profile_difference", 0.2, seed=seed, p=0.04)
        for number, mode in enumerate(MODES):
            for factor in (1.0, 2.0):
                tags = {"seed": seed, "method": "m", "mode": mode, "factor": factor}
                for update in (0, 4):
                    for kind in ("updated", "new", "unchanged"):
                        row(
                            "span_log_probability",
                            -3.0 + update * (number + 1) / 8,
                            kind=kind,
                            update=update,
                            **tags,
                        )
                    row("old_nll", 3.0 + update / 8, update=update, **tags)
                row("learned", factor * (number + 1 + seed), **tags)
                row("forgotten", 0.1 * factor, **tags)
                row("moved", 0.01 * factor, **tags)
                row("flops", 1e9 * (number + 1), **tags)
        row("static_nll", 4.0, seed=seed, flops=1.0)
        for mode in ("plain", "freeze"):
            for steps in (1, 2):
                row(
                    "online_at_best",
                    3.0 - steps - seed,
                    seed=seed,
                    mode=mode,
                    steps=steps,
                    flops=steps * 1e9,
                )
    return found


def test_every_figure_is_made_and_drawn():
    made = {figure.name: figure for figure in figures.figures(rows())}
    assert list(made) == [
        "profile",
        "difference",
        "frontier",
        "by-kind",
        "moved",
        "running",
        "running-frontier",
        "online",
    ]
    for figure in made.values():
        assert page.to_svg(figure.chart).startswith("<svg")


def test_profiles_are_means_over_seeds():
    attention, _ = figures.profile(rows()).chart
    found = {(d["kind"], d["layer"]): d["value"] for d in drawn(attention) if "each" in d}
    assert found["updated", 0] == pytest.approx(1.5) and found["unchanged", 2] == pytest.approx(5.5)


def test_runs_are_read_at_their_end():
    (one,) = [
        r for r in figures.runs(rows()) if (r["seed"], r["mode"], r["factor"]) == (1, "freeze", 2.0)
    ]
    assert one["new"] == pytest.approx(-2.0) and one["new before"] == -3.0 and one["old_nll"] == 3.5
    table = figures.frontier(rows()).table
    assert [line["method, updates"] for line in table] == [
        "m, everything",
        "m, freeze: r above its mean",
        "m, scale: rates r / mean r",
    ]
    assert table[1]["new spans, perplexity"] == "20.1 to 7.4"  # exp(3) and exp(2)


def test_the_frontier_begins_at_no_training():
    (chart,) = figures.frontier(rows()).chart
    found = {
        (d["mode"], d["factor"]): (d["forgotten"], d["learned"])
        for d in drawn(chart)
        if "factor" in d
    }
    assert found["scale", 0.0] == (0.0, 0.0) and found["scale", 2.0] == pytest.approx((0.2, 7.0))
    assert not any(mode in figures.RUNNING_MODES for mode, _ in found)


def test_running_profiles_are_over_their_mean():
    attention, _ = figures.running(rows()).chart
    found = {
        d["layer"]: d["value"]
        for d in drawn(attention)
        if d.get("kind") == "freeze, running profile" and "each" in d
    }
    assert found == pytest.approx({0: 0.5, 1: 1.0, 2: 1.5})


def test_no_rows_no_figures():
    assert figures.figures([]) == [] and gradient_profiles.profiles([]) == []


def test_one_seed_has_intervals_where_there_are_some():
    found = [
        {**r, "low": r["value"] - 0.5, "high": r["value"] + 0.5}
        for r in rows(1)
        if r["metric"] == "relative_gradient_norm"
    ]
    attention, _ = figures.profile(found).chart
    assert "band" in str(attention.to_dict())
