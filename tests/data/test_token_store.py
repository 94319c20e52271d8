"""Tokenising once: what is stored is what the tokenizer says, for this text and this tokenizer
only.
"""

import numpy as np
import pytest

from lmdyn import data
from lmdyn.data import tokenizers
from lmdyn.data.token_store import default_cache
from lmdyn.errors import InputError

TEXTS = ["first text, é", "", "second", "x" * 70]


class Counting:
    """A tokenizer's backend that counts the documents it is given."""

    def __init__(self, backend):
        self.backend, self.seen = backend, 0

    def encode_batch_fast(self, texts, **options):
        self.seen += len(texts)
        return self.backend.encode_batch_fast(texts, **options)


def counted():
    plain = tokenizers.byte_tokenizer()
    backend = Counting(plain.backend)
    tokenizer = tokenizers.Tokenizer(backend, plain.end_of_text, "bytes")
    object.__setattr__(tokenizer, "to_json", plain.to_json)
    object.__setattr__(tokenizer, "vocab", plain.vocab)
    return tokenizer, backend


def test_tokens_are_those_of_the_tokenizer(tmp_path):
    found = data.store(TEXTS, tokenizers.byte_tokenizer(), cache=tmp_path)
    assert [found[i].tolist() for i in range(len(found))] == [list(t.encode()) for t in TEXTS if t]
    assert found.ids.dtype == np.uint16
    with pytest.raises(IndexError):
        found[3]


def test_the_second_time_nothing_is_tokenized(tmp_path):
    tokenizer, backend = counted()
    first = data.store(TEXTS, tokenizer, cache=tmp_path)
    again = data.store(TEXTS, tokenizer, cache=tmp_path)
    assert backend.seen == len(TEXTS)
    assert again.digest == first.digest
    assert again.ids.tolist() == first.ids.tolist()


def test_another_text_or_tokenizer_has_another_store(tmp_path):
    plain = tokenizers.byte_tokenizer()
    trained = tokenizers.train_bpe(["first text second text"] * 3, 270)
    digests = {
        data.store(texts, tokenizer, cache=tmp_path).digest
        for texts in (TEXTS, [*TEXTS, "more"], ["first text, é", "sec", "ond", "x" * 70])
        for tokenizer in (plain, trained)
    }
    assert len(digests) == 6


@pytest.mark.parametrize("name", ["ids.bin", "ends.npy", "about.json"])
@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(path.read_bytes()[:-3]), lambda path: path.unlink()]
)
def test_a_damaged_store_is_made_again(tmp_path, name, damage):
    tokenizer, backend = counted()
    first = data.store(TEXTS, tokenizer, cache=tmp_path)
    wanted = first.ids.tolist()
    damage(next(tmp_path.glob(f"*/{name}")))
    assert data.store(TEXTS, tokenizer, cache=tmp_path).ids.tolist() == wanted
    assert backend.seen == 2 * len(TEXTS)


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path):
    (tmp_path / "file").write_text("")
    found = data.store(TEXTS, tokenizers.byte_tokenizer(), cache=tmp_path / "file" / "below")
    assert found[1].tolist() == list(b"second")


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "lmdyn" / "tokens"


def test_no_text_is_an_error(tmp_path):
    with pytest.raises(InputError, match="not one token"):
        data.store(["", ""], tokenizers.byte_tokenizer(), cache=tmp_path)
    assert not list(tmp_path.iterdir())
