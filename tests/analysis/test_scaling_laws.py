"""Scaling laws: planted laws with and without noise, SciPy from every start, intervals, tables that
are typed in.
"""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from lmdyn.analysis.scaling_laws import fit_scaling_law
from lmdyn.analysis.scaling_runs import COLUMNS, read_runs
from lmdyn.errors import InputError

PLANTED = {
    "E": 1.69,
    "A": 406.4,
    "B": 410.7,
    "a": 0.34,
    "b": 0.28,
}  # the law that Hoffmann et al. (2022) published


def loss(parameters, tokens, law=PLANTED):
    return law["E"] + law["A"] / parameters ** law["a"] + law["B"] / tokens ** law["b"]


def runs(sizes, lengths, scatter=0.0, seed=0):
    N, T = (
        grid.ravel()
        for grid in np.meshgrid(np.geomspace(2e7, 5e9, sizes), np.geomspace(1e9, 3e11, lengths))
    )
    return N, T, loss(N, T) * np.exp(np.random.default_rng(seed).normal(0, scatter, len(N)))


@pytest.fixture(scope="module")
def noisy():
    return fit_scaling_law(*runs(5, 7, scatter=0.005), draws=400)


def test_a_planted_law_without_noise_is_recovered_exactly():
    law = fit_scaling_law(*runs(3, 5), draws=20)
    assert {name: getattr(law, name) for name in PLANTED} == pytest.approx(PLANTED, rel=1e-3)
    assert np.abs(law.residuals).max() < 1e-6


def test_a_planted_law_with_noise_is_recovered_within_its_interval(noisy):
    for name, (low, high) in noisy.intervals().items():
        assert low < PLANTED[name] < high, name
        assert low < getattr(noisy, name) < high, name
    low, high = noisy.interval(1e7, 3e11)
    assert low < loss(1e7, 3e11) < high < 1.05 * low


def test_the_residual_of_a_planted_saturation_is_measured(noisy):
    """The paper's small models end about 8% above the law of the large ones."""
    saturated, sound = (noisy.residual(1e7, 3e11, share * loss(1e7, 3e11)) for share in (1.08, 1.0))
    assert saturated.low < 0.08 < saturated.high
    assert saturated.low > 0.04
    assert sound.low < 0 < sound.high


def test_the_fit_is_the_lowest_that_scipy_finds_from_anywhere():
    """Nelder-Mead on the definition, from the planted law and from the fit; and a law that one bad
    run does not bend.
    """
    N, T, losses = runs(4, 5, scatter=0.01, seed=3)
    losses[7] *= 1.3
    law = fit_scaling_law(N, T, losses, draws=1)

    def definition(x):
        error = np.abs(
            np.log(losses)
            - np.log(
                loss(
                    N, T, dict(E=math.exp(x[0]), A=math.exp(x[1]), B=math.exp(x[2]), a=x[3], b=x[4])
                )
            )
        )
        return np.where(error < 1e-3, error**2 / 2, 1e-3 * (error - 5e-4)).sum()

    here = [math.log(law.E), math.log(law.A), math.log(law.B), law.a, law.b]
    there = [
        math.log(PLANTED["E"]),
        math.log(PLANTED["A"]),
        math.log(PLANTED["B"]),
        PLANTED["a"],
        PLANTED["b"],
    ]
    options = {"maxiter": 4000, "maxfev": 4000, "xatol": 1e-9, "fatol": 1e-14}
    others = [
        minimize(definition, start, method="Nelder-Mead", options=options).fun
        for start in (here, there)
    ]
    assert definition(here) <= min(others) * (1 + 1e-4)
    assert law.residuals.argmax() == 7
    assert law.residuals[7] == pytest.approx(math.log(1.3), abs=0.03)


def test_intervals_hold_what_was_planted_about_as_often_as_they_say():
    held = []
    for seed in range(12):
        law = fit_scaling_law(*runs(4, 6, scatter=0.01, seed=seed + 10), draws=200)
        low, high = law.interval(1e7, 3e11)
        held.append(
            [
                low < loss(1e7, 3e11) < high,
                law.intervals()["a"][0] < PLANTED["a"] < law.intervals()["a"][1],
            ]
        )
    assert (
        np.mean(held) >= 0.75
    )  # 90% is asked for; bootstrap percentiles of so few runs are known to fall short of it


def test_five_runs_leave_nothing_to_judge_the_law_by():
    N, T, losses = (values[:5] for values in runs(3, 3))
    law = fit_scaling_law(N, T, losses)
    assert set(law.intervals().values()) == {(-math.inf, math.inf)}
    assert law.residual(1e7, 1e10, 3.0)[1:] == (-math.inf, math.inf)
    assert np.abs(law.predict(N, T) / losses - 1).max() < 1e-3


def test_the_same_seed_gives_the_same_law(noisy):
    again = fit_scaling_law(*runs(5, 7, scatter=0.005), draws=400)
    assert again.draws.tolist() == noisy.draws.tolist()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda N, T, L: (N[:3], T[:3], L[:3]), "3 runs are too few.*4 or more"),
        (lambda N, T, L: (N, T, L[:-1]), "three lists of one length"),
        (lambda N, T, L: (np.full(9, 7e7), T, L), "all 9 runs have N=7e\\+07"),
        (lambda N, T, L: (N, T, np.where(np.arange(9) == 2, np.nan, L)), "loss=nan of run 2"),
        (lambda N, T, L: (N, -T, L), "T=-1e\\+09 of run 0"),
    ],
)
def test_bad_runs_say_what_is_wrong(change, message):
    with pytest.raises(InputError, match=message):
        fit_scaling_law(*change(*runs(3, 3)))


def test_a_table_is_read_by_its_headings(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(
        "\ufeffmodel, loss, T, N\nsmall, 2.9, 3e11, 70e6\nlarge, 2.1, 300000000000, 6.9e9\n",
        encoding="utf-8",
    )
    found = read_runs(path)
    assert found.parameters.tolist() == [70e6, 6.9e9]
    assert found.tokens.tolist() == [3e11, 3e11]
    assert found.losses.tolist() == [2.9, 2.1]
    assert found._fields == ("parameters", "tokens", "losses") and COLUMNS == ("N", "T", "loss")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "has no column N, T, loss.*'nothing'"),
        ("N,tokens,loss\n", "no column T; its first line is 'N, tokens, loss'"),
        ("N,T,loss\n", "no run"),
        ("N,T,loss\n1e7,1e9,3\n70M,1e9,3\n", "line 3: N='70M' is not a positive number"),
        ("N,T,loss\n1e7,1e9\n", "line 2: loss='' is not a positive number"),
        ("N,T,loss\n1e7,0,3\n", "line 2: T='0'"),
        (b"\xff\xfe\x00N", "is not CSV"),
    ],
)
def test_a_bad_table_names_file_and_line(tmp_path, text, message):
    path = tmp_path / "runs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as found:
        read_runs(path)
    assert "runs.csv" in str(found.value) and "\n" not in str(found.value)


def test_a_table_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_runs(tmp_path / "none.csv")
