"""A trained BPE writes any text, merges what is frequent, and comes out the same every time."""

import collections
import itertools
import random
import subprocess
import sys

import numpy as np
import pytest

from lmdyn.data import documents, tokenizers
from lmdyn.data.sources import Documents
from lmdyn.errors import InputError

CORPUS = [
    "the cat and the hat and the bat",
    "a cat, a hat; the end of the hat",
    "",
    "été à la plage",
] * 5


def test_any_text_comes_back():
    tokenizer = tokenizers.train_bpe(CORPUS, vocab=290)
    source = random.Random(3)
    every = [
        chr(c)
        for c in (*range(0, 0x3000, 7), *range(0x4E00, 0x5000, 5), *range(0x1F300, 0x1F600, 3))
    ]
    texts = [
        "",
        " ",
        "\n\n\t x",
        "\x00\x7f",
        "the hat",
        "👩‍🚀 \uff21\uff22 ﬁ Å",
        "".join(source.sample(every, 700)),
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.backend.model.unk_token is None


def test_merges_are_the_most_frequent_pairs():
    """The first merges, found by counting (Sennrich et al. 2016) with words as GPT-2 cuts them."""
    words = [collections.Counter()]
    for text in CORPUS:
        for word, _ in tokenizers.byte_tokenizer().backend.pre_tokenizer.pre_tokenize_str(text):
            words[0][tuple(word)] += 1
    merged = []
    for _ in range(6):
        pairs = collections.Counter()
        for word, n in words[-1].items():
            for pair in itertools.pairwise(word):
                pairs[pair] += n
        (best, most), (_, second) = pairs.most_common(2)
        if most == second:
            break  # a tie; which of them comes first is the library's choice
        merged.append("".join(best))
        split = collections.Counter()
        for word, n in words[-1].items():
            text, i = [], 0
            while i < len(word):
                joined = word[i : i + 2] == best
                text.append("".join(word[i : i + 1 + joined]))
                i += 1 + joined
            split[tuple(text)] += n
        words.append(split)
    assert merged
    tokenizer = tokenizers.train_bpe(CORPUS, vocab=257 + len(merged))
    assert [tokenizer.backend.id_to_token(257 + i) for i in range(len(merged))] == merged


def test_sizes():
    assert tokenizers.train_bpe(CORPUS, vocab=257).vocab == 257
    assert tokenizers.train_bpe(CORPUS, vocab=275).vocab == 275
    assert 257 < tokenizers.train_bpe(["ab ab ab"], vocab=5000).vocab < 270  # nothing left to merge
    assert len(tokenizers.train_bpe(CORPUS, vocab=290).encode("the hat")) < len("the hat")


def test_end_of_text_is_one_token_and_never_learnt():
    tokenizer = tokenizers.train_bpe(["a<|endoftext|>b" * 50], vocab=300)
    assert tokenizer.encode("x<|endoftext|>").tolist()[1:] == [tokenizer.end_of_text] == [0]
    assert not [t for t in tokenizer.backend.get_vocab() if "endof" in t and t != "<|endoftext|>"]


def test_same_documents_same_tokenizer_also_with_other_threads():
    docs = documents("builtin:docs:test")[:12]
    here = tokenizers.train_bpe(docs, vocab=600)
    assert tokenizers.train_bpe(list(docs), vocab=600).to_json() == here.to_json()
    code = (
        "from lmdyn.data import documents, tokenizers\n"
        "print(tokenizers.train_bpe(documents('builtin:docs:test')[:12], vocab=600).to_json())"
    )
    for threads in ("1", "3"):
        env = {"RAYON_NUM_THREADS": threads, "PYTHONIOENCODING": "utf-8"}
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env=env
        )
        assert other.stdout.decode("utf-8").rstrip("\n") == here.to_json()


def test_saved_and_loaded(tmp_path):
    made = tokenizers.train_bpe(CORPUS, vocab=280, name="tiny")
    (tmp_path / "tokenizer.json").write_text(made.to_json(), encoding="utf-8")
    for back in (
        tokenizers.from_file(tmp_path / "tokenizer.json"),
        tokenizers.from_folder(tmp_path),
    ):
        assert (back.vocab, back.end_of_text) == (made.vocab, made.end_of_text)
        for text in ("the cat, été", "<|endoftext|>x", "  two"):
            np.testing.assert_array_equal(back.encode(text), made.encode(text))
            assert back.encode_with_offsets(text)[1] == made.encode_with_offsets(text)[1]
        assert back.to_json() == made.to_json()


def broken(item):
    raise InputError("file line 3 is not UTF-8")


BAD = {
    "too small": (CORPUS, 256, "vocab=256 of a byte-level BPE; 256 bytes and .* need 257"),
    "one text": ("the cat", 300, "takes a sequence of documents"),
    "no documents": ([], 300, "has no text"),
    "empty documents": (Documents("text:a", ("", ""), str), 300, "text:a has no text"),
    "unreadable": (Documents("text:a", ("", ""), broken), 300, "file line 3 is not UTF-8"),
}


@pytest.mark.parametrize("docs, vocab, said", BAD.values(), ids=BAD)
def test_bad_input(docs, vocab, said):
    with pytest.raises(InputError, match=said):
        tokenizers.train_bpe(docs, vocab)
