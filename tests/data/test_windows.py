"""Windows tile the stream: every token but the very first is predicted exactly once."""

import numpy as np
import pytest

from lmdyn import data
from lmdyn.data import tokenizers
from lmdyn.errors import InputError


def unroll(windows):
    """(inputs, targets) of all predictions that count, in order."""
    pairs = [(b.inputs[b.mask], b.targets[b.mask]) for b in windows]
    return (np.concatenate(column) for column in zip(*pairs, strict=True))


@pytest.mark.parametrize("size", [8, 22, 36, 106])
@pytest.mark.parametrize("length", [1, 3, 5, 7])
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("tokens", [None, 1, 5, 1000])
def test_every_token_but_the_first_is_predicted_once(size, length, batch, tokens):
    stream = np.arange(100, 100 + size)
    cut = data.windows(stream, length, batch, tokens)
    inputs, targets = unroll(cut)
    count = min(size - 1, tokens or size)
    np.testing.assert_array_equal(inputs, stream[:count])
    np.testing.assert_array_equal(targets, stream[1 : count + 1])
    assert cut.tokens == count == sum(int(b.mask.sum()) for b in cut)
    assert len(cut) == len(list(cut))


def test_window_i_is_where_the_rule_says():
    stream, length = np.arange(50), 7
    for i, b in enumerate(data.windows(stream, length)):
        rows = len(stream[i * length + 1 : (i + 1) * length + 1])
        np.testing.assert_array_equal(
            b.inputs[0, :rows], stream[i * length : (i + 1) * length][:rows]
        )
        np.testing.assert_array_equal(
            b.targets[0, :rows], stream[i * length + 1 : (i + 1) * length + 1]
        )


def test_padding_is_masked_and_harmless():
    last = data.windows(np.arange(1, 13), length=5, batch=2)[-1]
    assert last.inputs.shape == last.targets.shape == last.mask.shape == (2, 5)
    assert last.inputs.dtype == last.targets.dtype == np.int32
    assert last.mask.sum() == 1
    assert not last.inputs[~last.mask].any()
    assert not last.targets[~last.mask].any()


def test_documents_are_joined_by_end_of_text_and_nothing_else():
    tokenizer = tokenizers.byte_tokenizer()
    docs = data.tokenize(["ab", "", "c"], tokenizer)
    assert data.join(docs, tokenizer.end_of_text).tolist() == [97, 98, tokenizer.end_of_text, 99]
    assert data.join(docs[:1], tokenizer.end_of_text).tolist() == [97, 98]


@pytest.mark.parametrize("tokens", [1, 3, 5, 6, 7, 12])
def test_reading_stops_early_without_changing_the_stream(tokens):
    tokenizer, texts = tokenizers.byte_tokenizer(), ["abc", "de", "fgh", "ijklmn"]
    whole = data.join(data.tokenize(texts, tokenizer), tokenizer.end_of_text)
    short = data.join(data.tokenize(texts, tokenizer, tokens), tokenizer.end_of_text)
    np.testing.assert_array_equal(short[: tokens + 1], whole[: tokens + 1])
    assert len(short) >= min(tokens + 1, len(whole))


def test_batches_do_all_of_it(tmp_path):
    (tmp_path / "a.txt").write_text("hello, ")
    (tmp_path / "b.txt").write_text("world")
    cut = data.batches(f"text:{tmp_path}/*.txt", tokenizers.byte_tokenizer(), length=5, batch=2)
    assert bytes(cut.stream[[0, -1]].astype(np.uint8)) == b"hd"
    assert cut.tokens == 12


@pytest.mark.parametrize(
    "size, length, tokens, said",
    [
        (
            5,
            5,
            None,
            (
                "has 5 tokens, and one window of length 5 needs 6; give more text, or a length of"
                " at most 4"
            ),
        ),
        (5, 7, 9, "has 5 tokens"),
        (3, 7, 4, "needs 5"),
        (0, 3, None, "has 0 tokens"),
    ],
)
def test_text_shorter_than_one_window(size, length, tokens, said):
    with pytest.raises(InputError, match=said):
        data.windows(np.arange(size), length, tokens=tokens)


def test_fewer_predictions_than_one_window_may_be_asked_for():
    assert data.windows(np.arange(5), length=7, tokens=4).tokens == 4


@pytest.mark.parametrize(
    "change, said",
    [({"length": 0}, "length=0"), ({"batch": -1}, "batch=-1"), ({"tokens": 0}, "tokens=0")],
)
def test_numbers_below_one(change, said):
    with pytest.raises(InputError, match=said):
        data.windows(np.arange(9), **({"length": 3} | change))


def test_ids_out_of_range_are_named():
    with pytest.raises(InputError, match="token id -1 at position 2 "):
        data.windows(np.array([0, 1, -1, 5]), 3)
    with pytest.raises(InputError, match="integer token ids"):
        data.windows(np.ones(9), 3)


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows():
    class Config:
        vocab = 256

    with pytest.raises(InputError, match=r"tokenizer has 257 ids .* 256"):
        data.check_vocabulary(tokenizers.byte_tokenizer(), Config)


def test_text_without_a_token():
    with pytest.raises(InputError, match="has no text"):
        data.tokenize(["", ""], tokenizers.byte_tokenizer())
