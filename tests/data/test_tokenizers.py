"""Tokenizers from files and GGUF metadata, against rules worked out by hand and an independent
merger.
"""

import itertools
import json
import random

import numpy as np
import pytest
import tokenizers as hf
from tokenizers import models, pre_tokenizers, processors, trainers

from lmdyn.data import tokenizers
from lmdyn.errors import InputError

TEXT = "We'LL pay 12345  now\n\n ok"
PIECES = {
    "gpt-2": ["We", "'", "LL", "Ġpay", "Ġ12345", "Ġ", "Ġnow", "ĊĊ", "Ġok"],
    "olmo": ["We", "'", "LL", "Ġpay", "Ġ12345", "Ġ", "Ġnow", "ĊĊ", "Ġok"],
    "smollm": ["We", "'", "LL", "Ġpay", "Ġ", *"12345", "Ġ", "Ġnow", "ĊĊ", "Ġok"],
    "llama-bpe": ["We", "'LL", "Ġpay", "Ġ", "123", "45", "Ġ", "Ġnow", "ĊĊ", "Ġok"],
    "dbrx": ["We", "'LL", "Ġpay", "Ġ", "123", "45", "Ġ", "Ġnow", "ĊĊ", "Ġok"],
    "qwen2": ["We", "'LL", "Ġpay", "Ġ", *"12345", "Ġ", "Ġnow", "ĊĊ", "Ġok"],
}


@pytest.fixture(scope="module")
def trained():
    """A byte-level BPE of 500 tokens, trained on whole words with digits: its JSON."""
    backend = hf.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshr", k=rng.randint(2, 6))) for _ in range(200)]
    lines = [" ".join(rng.choices([*words, "12", "345", "it's", "Café"], k=30)) for _ in range(200)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_end|>"]
    backend.train_from_iterator(
        lines,
        trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, special_tokens=special),
    )
    return json.loads(backend.to_str())


def fields(trained, pre, **changes):
    vocab = trained["model"]["vocab"]
    found = {
        "model": "gpt2",
        "pre": pre,
        "tokens": sorted(vocab, key=vocab.get),
        "merges": [" ".join(m) for m in trained["model"]["merges"]],
        "token_type": [3, 3] + [1] * (len(vocab) - 2),
        "eos_token_id": 1,
        **changes,
    }
    return {f"tokenizer.ggml.{k}": v for k, v in found.items() if v is not None}


@pytest.mark.parametrize("pre", PIECES)
def test_text_is_cut_as_each_pre_tokenizer_says(pre, trained):
    tokenizer = tokenizers.from_gguf(fields(trained, pre))
    assert [piece for piece, _ in tokenizer.backend.pre_tokenizer.pre_tokenize_str(TEXT)] == PIECES[
        pre
    ]
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert (tokenizer.vocab, tokenizer.end_of_text) == (500, 0)


def test_a_gguf_gives_the_ids_of_the_tokenizer_it_was_made_from(trained):
    tokenizer, original = (
        tokenizers.from_gguf(fields(trained, "gpt-2")),
        hf.Tokenizer.from_str(json.dumps(trained)),
    )
    text = "it's 345 sheaton Café<|im_end|> \U0001f600 rain\n"
    assert tokenizer.encode(text).tolist() == original.encode(text).ids
    assert tokenizer.encode(text).dtype == np.int32


@pytest.mark.filterwarnings("ignore:gguf. tokenizer.ggml.pre says default")
def test_qwen_composes_characters_and_default_follows_the_architecture(trained):
    for changed in (
        fields(trained, "qwen2"),
        {**fields(trained, "default"), "general.architecture": "qwen2"},
    ):
        tokenizer = tokenizers.from_gguf(changed)
        assert tokenizer.encode("Cafe\u0301").tolist() == tokenizer.encode("Café").tolist()


def test_user_defined_tokens_are_found_in_text(trained):
    changed = fields(trained, "gpt-2")
    changed["tokenizer.ggml.tokens"] = [*changed["tokenizer.ggml.tokens"], "   "]
    changed["tokenizer.ggml.token_type"] = [*changed["tokenizer.ggml.token_type"], 4]
    tokenizer = tokenizers.from_gguf(changed)
    assert 500 in tokenizer.encode("a   b")
    assert tokenizer.vocab == 501
    assert tokenizer.decode(tokenizer.encode("a   b")) == "a   b"


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model": "bert"}, "unknown tokenizer.ggml.model 'bert'; known: gemma4, gpt2, llama, t5"),
        ({"model": None}, "holds no tokenizer"),
        ({"pre": "smolm"}, "unknown tokenizer.ggml.pre 'smolm'; did you mean 'smollm'"),
        ({"tokens": []}, "tokens is missing or empty"),
        ({"merges": None}, "merges is missing"),
        ({"merges": ["zz qq"]}, "cannot be built"),
        ({"model": "llama"}, "scores has 0 numbers for 500 tokens"),
        (
            {"tokens": ["a", "b"], "token_type": [1, 1], "merges": [], "eos_token_id": None},
            "no token ends a text",
        ),
        (
            {"tokens": ["a", "b"], "token_type": [1, 1], "merges": [], "eos_token_id": 7},
            "no token ends a text",
        ),
    ],
)
def test_bad_metadata_is_one_line(changes, words, trained):
    with pytest.raises(InputError) as caught:
        tokenizers.from_gguf(fields(trained, **{"pre": "gpt-2", **changes}), "toy")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def join_by_score(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's BPE: always joins the neighbours whose whole has the highest score, leftmost
    first.
    """
    pieces = list("▁" + text.replace(" ", "▁"))
    while True:
        joins = [
            (-scores[a + b], i)
            for i, (a, b) in enumerate(itertools.pairwise(pieces))
            if a + b in scores
        ]
        if not joins:
            return pieces
        _, i = min(joins)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


def sentencepiece(**changes):
    rng = random.Random(1)
    letters = list("abcd▁")
    words = set()
    while len(words) < 60:
        words.add("".join(rng.choices(letters, k=rng.randint(2, 4))))
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{i:02X}>" for i in range(256)),
        *letters,
        *sorted(words),
    ]
    special = 3 + 256
    order = rng.sample(range(1000), len(tokens))
    found = {
        "model": "llama",
        "tokens": tokens,
        "scores": [float(-s) for s in order],
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "token_type": [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - special),
        **changes,
    }
    return {f"tokenizer.ggml.{k}": v for k, v in found.items()}, dict(
        zip(tokens[special:], found["scores"][special:], strict=False)
    )


def test_sentencepiece_joins_by_score():
    made, scores = sentencepiece()
    tokenizer = tokenizers.from_gguf(made)
    rng = random.Random(2)
    tokens = made["tokenizer.ggml.tokens"]
    for _ in range(200):
        text = "".join(rng.choices("abcd ", k=rng.randint(1, 30)))
        assert [tokens[i] for i in tokenizer.encode(text)] == join_by_score(text, scores)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.end_of_text == 2


def test_sentencepiece_falls_back_to_bytes_and_may_leave_the_first_space_out():
    tokenizer = tokenizers.from_gguf(sentencepiece()[0])
    assert tokenizer.encode("é").tolist()[1:] == [3 + 0xC3, 3 + 0xA9]
    assert tokenizer.decode(tokenizer.encode("aéb")) == "aéb"
    bare = tokenizers.from_gguf(sentencepiece(add_space_prefix=False)[0])
    assert bare.encode("é").tolist() == [3 + 0xC3, 3 + 0xA9]
    assert bare.decode(bare.encode(" a")) == " a"


def test_bytes():
    tokenizer = tokenizers.byte_tokenizer()
    text = "naïve \U0001f600\n\x00 <|endoftext|>"
    ids = tokenizer.encode(text)
    assert ids.tolist() == [*text[:-13].encode(), 256]
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab == 257
    assert tokenizer.end_of_text == 256


def test_offsets_are_the_characters_of_a_token(trained):
    tokenizer = tokenizers.from_gguf(fields(trained, "gpt-2"))
    text = "it's Café \U0001f600"
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert ids.tolist() == tokenizer.encode(text).tolist()
    assert len(ids) == len(offsets)
    assert offsets[0][0] == 0
    assert offsets[-1][1] == len(text)
    assert all(a[1] <= b[1] for a, b in itertools.pairwise(offsets))


def save(folder, trained, rename=None, **files):
    backend = hf.Tokenizer.from_str(json.dumps(trained))
    backend.post_processor = processors.TemplateProcessing(
        single="<|im_end|> $A", special_tokens=[("<|im_end|>", 1)]
    )
    backend.enable_truncation(3)
    backend.enable_padding()
    text = backend.to_str()
    (folder / "tokenizer.json").write_text(
        text.replace("<|endoftext|>", rename) if rename else text
    )
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def test_a_folder_adds_no_special_tokens_and_cuts_nothing(tmp_path, trained):
    save(tmp_path, trained)
    tokenizer = tokenizers.from_folder(tmp_path)
    assert len(tokenizer.encode(TEXT)) > 5
    assert 1 not in tokenizer.encode(TEXT)
    assert tokenizer.name == tmp_path.name
    assert tokenizer.end_of_text == 0
    again = tmp_path / "again.json"
    again.write_text(tokenizer.to_json())
    assert tokenizers.from_file(again).encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"eos_token": "<|im_end|>"}},
        {"tokenizer_config": {"eos_token": {"content": "<|im_end|>"}}},
        {"tokenizer_config": {}, "special_tokens_map": {"eos_token": "<|im_end|>"}},
        {"generation_config": {"eos_token_id": [1, 7]}},
        {"config": {"eos_token_id": 1}},
    ],
)
def test_the_end_of_text_is_the_eos_token_where_there_is_no_other(files, tmp_path, trained):
    save(tmp_path, trained, rename="<nothing>", **files)
    assert tokenizers.from_folder(tmp_path).end_of_text == 1


def test_vocabulary_and_merges_as_gpt_2_first_had_them(tmp_path, trained):
    (tmp_path / "vocab.json").write_text(json.dumps(trained["model"]["vocab"]))
    (tmp_path / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(m) for m in trained["model"]["merges"])
    )
    tokenizer = tokenizers.from_folder(tmp_path)
    assert (
        tokenizer.encode(TEXT).tolist()
        == tokenizers.from_gguf(fields(trained, "gpt-2")).encode(TEXT).tolist()
    )
    assert tokenizer.encode("a<|endoftext|>")[-1] == tokenizer.end_of_text == 0


def test_ids_out_of_range_and_missing_files(tmp_path, trained):
    tokenizer = tokenizers.byte_tokenizer()
    with pytest.raises(InputError, match=r"token id 257 is outside 0 to 256"):
        tokenizer.decode([3, 257])
    with pytest.raises(InputError, match=r"token id -1 is outside"):
        tokenizer.decode([-1])
    with pytest.raises(InputError, match=r"No such file"):
        tokenizers.from_file(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"has no tokenizer.json"):
        tokenizers.from_folder(tmp_path)
    save(tmp_path, trained, rename="<nothing>")
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(InputError, match=r"tokenizer_config.json is not a JSON object"):
        tokenizers.from_folder(tmp_path)
