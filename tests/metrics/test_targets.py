"""Rank of the target: counts against a dictionary, spectra against NumPy, planted sources of low
rank, growth, bounded memory.
"""

import collections
import tracemalloc

import numpy as np
import pytest
import scipy.sparse

from lmdyn.errors import InputError
from lmdyn.metrics import sparse_spectra, targets
from lmdyn.metrics.targets import distributions, ngram_counts, target_growth, target_rank


def counted(tokens, context, ends=None, least=1):
    """The rows, as a multiset of `{token: count}`, by a dictionary."""
    table = collections.defaultdict(collections.Counter)
    for start, stop in zip([0, *(ends or [])], [*(ends or []), len(tokens)], strict=True):
        document = [int(t) for t in tokens[start:stop]]
        for i in range(len(document) - context):
            table[tuple(document[i : i + context])][document[i + context]] += 1
    return sorted(sorted(row.items()) for row in table.values() if row.total() >= least)


def rows_of(counts):
    parts = np.split(np.arange(counts.nnz), counts.indptr[1:-1])
    return sorted(
        sorted((int(counts.indices[i]), int(counts.data[i])) for i in part) for part in parts
    )


def mixture(tokens, vocab, topics, seed=0):
    """A source whose next token depends on the last one through one of a few topics: the matrix has
    rank `topics`.
    """
    rng = np.random.default_rng(seed)
    to_topic, to_token = (
        rng.dirichlet(np.full(topics, 0.3), vocab),
        rng.dirichlet(np.full(vocab, 0.5), topics),
    )
    truth = to_topic @ to_token
    edges, draws, found = np.cumsum(truth, 1), rng.random(tokens), np.zeros(tokens, np.uint16)
    for i in range(1, tokens):
        found[i] = min(np.searchsorted(edges[found[i - 1]], draws[i]), vocab - 1)
    return found, truth


@pytest.fixture(scope="module")
def source():
    return mixture(200_000, 37, 3)


@pytest.mark.parametrize(
    "context, vocab", [(1, 5), (2, 5), (3, 5), (2, 2_000_000_000), (4, 60_000)]
)
@pytest.mark.parametrize("memory", [2**30, 7_000])
@pytest.mark.parametrize("ends, least", [(None, 1), ([3, 90, 91], 1), (None, 3)])
def test_counts_are_those_of_a_dictionary(monkeypatch, context, vocab, memory, ends, least):
    """Also in chunks of a few tokens, in several passes, and with contexts' numbers that fill 64
    bits.
    """
    monkeypatch.setattr(targets, "CHUNK", 17)
    tokens = vocab - 1 - np.random.default_rng(context).integers(0, 4, 301)
    wanted = counted(tokens, context, ends, least)
    if not wanted:
        pytest.skip("no context is seen as often")
    found = ngram_counts(
        tokens,
        vocab,
        context,
        ends=None if ends is None else [*ends, 301],
        least=least,
        memory=memory,
    )
    assert found.shape == (len(wanted), vocab)
    assert rows_of(found) == wanted


def test_a_store_s_tokens_are_counted_as_they_lie(tmp_path):
    tokens = np.random.default_rng(1).integers(0, 9, 500).astype(np.uint16)
    tokens.tofile(tmp_path / "ids.bin")
    found = ngram_counts(np.memmap(tmp_path / "ids.bin", np.uint16, "r"), 9, 2)
    assert rows_of(found) == counted(tokens, 2)


def test_counting_stays_within_its_memory():
    """Two million tokens of a few contexts, so that the result is small: 4 MiB and a chunk's 40
    MB, where it would take 52 MB at once.
    """
    tokens = np.random.default_rng(2).integers(0, 50, 2_000_000).astype(np.uint16)
    peaks = []
    for memory in (2**22, 2**28):
        tracemalloc.start()
        ngram_counts(tokens, 50, 1, memory=memory)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 2**22 + 40e6 < peaks[1] < 2**28


@pytest.mark.parametrize("weight", ["contexts", "tokens"])
def test_a_part_is_held_at_a_time(monkeypatch, weight):
    """Spectra do not depend on how the counting was divided."""
    tokens = np.random.default_rng(3).integers(0, 11, 900)
    whole = target_rank(ngram_counts(tokens, 11, 2), weight=weight)
    divided = target_rank(ngram_counts(tokens, 11, 2, memory=5_000), weight=weight)
    assert divided.values == pytest.approx(whole.values)


@pytest.mark.parametrize("weight", ["contexts", "tokens"])
@pytest.mark.parametrize("shape", [(40, 13), (9, 31)])
@pytest.mark.parametrize("dense", [0, 4096])
def test_spectrum_and_errors_are_those_of_numpy(monkeypatch, weight, shape, dense):
    monkeypatch.setattr(sparse_spectra, "DENSE", dense)
    monkeypatch.setattr(sparse_spectra, "BLOCK", 1)
    monkeypatch.setattr(sparse_spectra, "SPARE", 2)
    rng = np.random.default_rng(4)
    counts = rng.poisson(0.7, shape) + np.eye(*shape)  # no empty row
    share = counts / counts.sum(1, keepdims=True)
    wanted = share if weight == "contexts" else share * np.sqrt(counts.sum(1, keepdims=True))
    found = target_rank(scipy.sparse.csr_array(counts), k=6, weight=weight)
    values = np.linalg.svd(wanted, compute_uv=False)
    assert found.values == pytest.approx(values[: len(found.values)], rel=1e-5, abs=1e-7)
    assert len(found.values) == (min(shape) if dense else 6)
    left, singular, right = np.linalg.svd(wanted, full_matrices=False)
    for rank in range(6):  # the definition, on the best approximation itself
        best = (left[:, :rank] * singular[:rank]) @ right[:rank]
        assert found.errors[rank] == pytest.approx(
            np.linalg.norm(wanted - best) / np.linalg.norm(wanted), rel=1e-4
        )
    assert (found.contexts, found.tokens) == (shape[0], counts.sum())


def test_values_that_lie_close_together_are_found_too(small_blocks):
    """A diagonal of 300 values 0.1% apart; at weight `tokens` a row of one count n has the value
    sqrt(n).
    """
    counts = np.round(1e6 * (1 - np.arange(300) / 1000))
    found = target_rank(
        scipy.sparse.csr_array(np.diag(counts)), k=3, weight="tokens", tolerance=1e-9
    )
    assert found.values == pytest.approx(np.sqrt(counts[:3]), rel=1e-6)


@pytest.fixture
def small_blocks(monkeypatch):
    """No dense Gram matrix, and blocks far smaller than how often values occur."""
    for name, value in (("DENSE", 0), ("BLOCK", 4), ("SPARE", 4), ("ROWS", 50)):
        monkeypatch.setattr(sparse_spectra, name, value)


PLANTED = np.r_[np.full(30, 3.0), np.full(40, 2.0), np.full(60, 1.0), np.linspace(0.9, 0, 170)]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("k", [10, 50, 130, 299])
def test_repeated_values_are_found_as_often_as_they_occur(small_blocks, k, turned):
    """Of 400 x 300 numbers with values that occur 30, 40 and 60 times, by either side."""
    rng = np.random.default_rng(6)
    turn = lambda size: np.linalg.qr(rng.normal(size=[size, size]))[0]
    matrix = turn(400)[:, :300] * PLANTED @ turn(300)
    matrix = scipy.sparse.csr_array(matrix.T if turned else matrix)
    found = sparse_spectra.leading_values(matrix, k, np.ones(matrix.shape[0]))
    np.testing.assert_allclose(found[:k], PLANTED[:k], atol=1e-5)


def test_a_permutation_s_values_are_all_one(monkeypatch):
    """Of 5,000 columns, above the limit of the dense Gram matrix."""
    monkeypatch.setattr(sparse_spectra, "BLOCK", 16)
    order = np.random.default_rng(7).permutation(5000)
    counts = scipy.sparse.csr_array((np.full(5000, 3.0), (np.arange(5000), order)))
    found = target_rank(counts, k=40)
    assert found.values == pytest.approx(np.ones(40), abs=1e-12)
    assert found.energy == pytest.approx(5000)
    assert found.errors[40] == pytest.approx(np.sqrt(1 - 40 / 5000))


def test_scaled_rows_and_empty_ones_by_numpy(small_blocks):
    """Repeated rows with scales of their own, and two thirds of rows and columns empty."""
    rng = np.random.default_rng(8)
    small = rng.poisson(0.1, [90, 70]) * 1.0
    matrix, scale = np.zeros([270, 210]), rng.uniform(0.5, 2, 270)
    matrix[::3, 1::3] = small
    found = sparse_spectra.leading_values(scipy.sparse.csr_array(matrix), 12, scale)
    wanted = np.linalg.svd(scale[:, None] * matrix, compute_uv=False)
    np.testing.assert_allclose(found[:12], wanted[:12], rtol=1e-5)


def test_empty_columns_do_not_count():
    """A vocabulary of 200,000 of which a text uses 5: the dense Gram matrix of these."""
    tokens = 40_000 * np.random.default_rng(9).integers(0, 5, 400)
    found = target_rank(ngram_counts(tokens, 200_000, 2))
    dense = target_rank(ngram_counts(tokens // 40_000, 5, 2))
    assert found.values == pytest.approx(dense.values)
    assert len(found.values) == 5


def test_distributions_sum_to_one():
    counts = ngram_counts(np.random.default_rng(5).integers(0, 7, 200), 7, 2)
    assert np.asarray(distributions(counts).sum(1)).ravel() == pytest.approx(
        np.ones(counts.shape[0])
    )
    assert np.sum(distributions(counts, "tokens").data ** 2) <= counts.sum()


def test_a_planted_source_of_low_rank_is_recovered(source):
    """Three topics: three directions hold all but the sampling noise, and the error at rank 2 is
    that of the true matrix.
    """
    tokens, truth = source
    found = target_rank(ngram_counts(tokens, 37, 1), weight="contexts")
    singular = np.linalg.svd(truth, compute_uv=False)
    exact = np.sqrt(np.sum(singular[2:] ** 2) / np.sum(singular**2))
    assert singular[3] < 1e-12 * singular[0]
    assert found.errors[2] == pytest.approx(exact, rel=0.1)
    assert found.errors[3] < 0.25 * found.errors[2]
    assert found.needed(0.1) == 3


def test_a_short_text_looks_richer_than_its_source_is(source):
    """With the text's growth the rank that is needed falls to the planted one; with rare contexts
    left out, it does so sooner.
    """
    tokens, _ = source
    sizes = [1000, 5000, 30_000, 200_000]
    grown = target_growth(tokens, 37, 1, sizes)
    needed = [found.needed(0.1) for found in grown]
    assert needed == sorted(needed, reverse=True)
    assert needed[0] > 10 and needed[-1] == 3
    assert [found.tokens for found in grown] == [size - 1 for size in sizes]
    often = target_growth(tokens, 37, 1, [5000], least=100)[0]
    assert often.contexts < grown[1].contexts
    assert often.errors[3] < grown[1].errors[3]


def test_rows_tell_rank_and_error(source):
    found = target_rank(ngram_counts(source[0], 37, 1))
    rows = found.rows()
    assert [r["rank"] for r in rows] == [1, 2, 4, 8, 16, 32, 37]
    assert [r["value"] for r in rows] == pytest.approx([found.errors[r["rank"]] for r in rows])


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(vocab=50_000, context=5), "use 1 to 4 tokens"),
        (dict(vocab=9, context=0), "contexts of 0 tokens"),
        (dict(vocab=9, context=400), "64 bits"),
        (dict(vocab=4, context=1), "token 8 is outside the vocabulary of 4"),
        (dict(vocab=9, context=1, least=99), "seen 99 times in 10 tokens"),
        (dict(vocab=9, context=10), "10 tokens hold no context of 10"),
    ],
)
def test_what_cannot_be_counted_says_why(options, message):
    with pytest.raises(InputError, match=message):
        ngram_counts(np.arange(10) % 9, **options)


def test_other_bad_input_says_why():
    counts = scipy.sparse.csr_array(np.eye(3))
    with pytest.raises(InputError, match="weight 'rows' is unknown"):
        target_rank(counts, weight="rows")
    with pytest.raises(InputError, match="k=0"):
        target_rank(counts, k=0)
    with pytest.raises(InputError, match="size 20 is more than the text's 10"):
        target_growth(np.arange(10), 10, 1, [20])
