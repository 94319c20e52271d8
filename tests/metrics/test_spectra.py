"""Spectra: NumPy's decomposition in float64, planted spectra, closed forms, what cannot be
decomposed.
"""

import jax
import numpy as np
import pytest

from lmdyn import metrics
from lmdyn.errors import InputError
from lmdyn.metrics import spectra
from lmdyn.models.matrices.quantized import from_bytes, unpack
from tests.helpers import assert_close, small


def planted(values, rows, columns, seed=0):
    """A float32 matrix with these singular values."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.normal(size=(rows, len(values))))
    right, _ = np.linalg.qr(rng.normal(size=(columns, len(values))))
    return ((left * values) @ right.T).astype(np.float32)


@pytest.mark.parametrize("exact", [0, 2**18])
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (1, 3), (3, 31, 67), (2, 2, 9, 5)])
def test_values_are_those_of_numpy_in_float64(monkeypatch, exact, shape):
    monkeypatch.setattr(spectra, "EXACT", exact)
    monkeypatch.setattr(spectra, "BLOCK_ROWS", 4)
    matrices = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    assert_close(
        metrics.singular_values(matrices),
        np.linalg.svd(matrices.astype(np.float64), compute_uv=False),
        1e-12,
    )


def test_a_planted_spectrum_is_recovered_down_to_the_stated_error(monkeypatch):
    """Four decades; by the Gram matrix every value is within 1e-4 of NumPy's, each relative to
    itself.
    """
    monkeypatch.setattr(spectra, "EXACT", 0)
    values = np.logspace(2, -2, 37)
    matrix = planted(values, 301, 37)
    found = metrics.singular_values(matrix)
    assert_close(found, values, 1e-6)
    exact = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    assert np.abs(found / exact - 1).max() < 1e-4


@pytest.mark.parametrize(
    "values, entropy, rank",
    [
        ([2.0] * 5, 0.0, 5.0),
        ([3.0, 0, 0, 0, 0], np.log(5), 1.0),
        ([1.0, 1.0, 0, 0, 0], np.log(5 / 2), 2.0),
    ],
)
def test_entropy_and_effective_rank_of_flat_and_collapsed_spectra(values, entropy, rank):
    found = metrics.Spectrum(np.array([values, values]), "mlp.up", (0, 2))
    assert found.singular_entropy.tolist() == pytest.approx([entropy] * 2, abs=1e-12)
    assert found.effective_rank.tolist() == pytest.approx([rank] * 2)
    assert [(r["layer"], r["site"], r["unit"]) for r in found.rows()] == [
        (0, "mlp.up", "nats"),
        (2, "mlp.up", "nats"),
    ]


@pytest.mark.parametrize("kind", ["gated", "learned"])
def test_a_selector_names_matrices_layer_by_layer(kind):
    _, params = small(kind)
    found = metrics.spectrum_of(params, "blocks[0,2].mlp.down+blocks[1].attention+head")
    assert list(found.matrices) == [
        "attention.key",
        "attention.output",
        "attention.query",
        "attention.value",
        "mlp.down",
        "head",
    ]
    down = np.asarray(params["blocks"]["mlp"]["down"]["kernel"], np.float64)
    assert_close(found["mlp.down"].values, np.linalg.svd(down, compute_uv=False)[[0, 2]], 1e-6)
    assert found["mlp.down"].layers == (0, 2)
    head = (
        params["head"]["kernel"] if kind == "gated" else params["embed"]["embedding"]
    )  # learned ties its head
    assert_close(
        found["head"].values, np.linalg.svd(np.asarray(head, np.float64), compute_uv=False), 1e-6
    )


def test_the_metric_writes_a_row_for_every_matrix_of_every_layer():
    model, params = small()
    rows = metrics.measure(metrics.build("layer_spectra,singular_entropy"), model, params, [])
    assert len(rows["layer_spectra"].rows()) == 3 * 7
    assert {r["metric"] for r in rows["layer_spectra"].rows()} == {"singular_entropy"}
    assert [r["site"] for r in rows["singular_entropy"].rows()] == ["head"]


def test_quantised_matrices_are_measured_as_what_they_stand_for():
    rng = np.random.default_rng(2)
    raw = rng.integers(0, 256, [2, 5, 34], np.uint8)
    raw[..., :2] = np.array([0.25], np.float16).view(np.uint8)
    packed = from_bytes(raw, "Q8_0")
    found = metrics.spectrum_of({"blocks": {"mlp": {"up": {"kernel": packed}}}}, "blocks")
    assert_close(
        found["mlp.up"].values,
        np.linalg.svd(np.asarray(unpack(packed), np.float64), compute_uv=False),
        1e-6,
    )


def test_what_has_no_spectrum_says_why():
    _, params = small()
    with pytest.raises(InputError, match="vectors only"):
        metrics.spectrum_of(params, "final_norm")
    with pytest.raises(InputError, match="'blocks' holds"):
        metrics.spectrum_of(params, "blocks.mpl")
    for number, message in [(0.0, "all zero"), (np.nan, "not finite")]:
        broken = jax.tree.map(lambda leaf, number=number: leaf * number, params)
        with pytest.raises(InputError, match=f"layer 0 of attention.key.*{message}"):
            metrics.spectrum_of(broken, "blocks")


def test_a_head_s_spectrum_may_be_of_a_slice_of_the_vocabulary_and_of_any_kind_of_head():
    """Tied or not, a slice is NumPy's of those tokens' vectors; a head of another kind is the
    matrix that gives its scores.
    """
    rng = np.random.default_rng(7)
    kernel = rng.normal(size=(5, 13))
    wanted = np.linalg.svd(kernel[:, 2:9], compute_uv=False)
    for params in (
        {"head": {"kernel": kernel}},
        {"embed": {"embedding": kernel.T}},
        {"head": {"output": {"kernel": kernel}, "latent": {"kernel": kernel}}},
    ):
        np.testing.assert_allclose(metrics.head_of(params, slice(2, 9)).values, wanted, rtol=1e-4)
        np.testing.assert_allclose(
            metrics.head_of(params).values, np.linalg.svd(kernel, compute_uv=False), rtol=1e-4
        )
    for empty in (slice(13, 20), slice(4, 4)):
        with pytest.raises(InputError, match="holds no token of the head's 13"):
            metrics.head_of({"head": {"kernel": kernel}}, empty)


def test_rows_of_a_head_hold_its_spectrum_few_enough_to_be_drawn():
    values = np.geomspace(8.0, 1.0, 300)
    params = {"head": {"kernel": np.diag(values)}}
    [row] = spectra.HeadSpectrum(metrics.head_of(params), 20).rows()
    assert (
        row["index"][0] == 1
        and row["index"][-1] == row["directions"] == 300
        and len(row["index"]) <= 20
    )
    np.testing.assert_allclose(row["values"], values[np.array(row["index"]) - 1] / 8, rtol=1e-4)
    [whole] = spectra.HeadSpectrum(metrics.head_of(params), 300).rows()
    share = values / values.sum()
    assert len(whole["values"]) == 300 and whole["value"] == pytest.approx(
        np.sum(share * np.log(share * 300))
    )
