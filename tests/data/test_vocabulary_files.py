"""Tokenizers of folders without `tokenizer.json`, against the classes of `transformers`."""

import json
import random

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from lmdyn.data import tokenizers
from lmdyn.errors import InputError

transformers = pytest.importorskip("transformers")

TEXTS = [
    "We'LL pay 12345  now\n\n ok",
    "x <|im_start|>user\nhi<|im_end|>\n<|endoftext|>",
    "Cafe\u0301 Caf\u00e9 \uac00 \u1100\u1161 e\u0301e\u0301 e\u0301 def  f(x):\n\treturn 10 // 3",
    " <tool>  a <tool> b\u4e2d\u6587 \U0001f600 stripped <s t> joined",
    "  two words  ",
]
ADDED = {
    "<|im_start|>": {"special": True},
    "<|im_end|>": {"special": True},
    "<tool>": {"special": False, "lstrip": True, "rstrip": True, "normalized": True},
    "two words": {"special": False, "normalized": False},
    "e\u0301e\u0301": {"special": False, "normalized": True},
}
FLAGS = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
CLASSES = ["GPT2Tokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizer", "Qwen2Tokenizer"]


@pytest.fixture(scope="module")
def trained():
    """Vocabulary and merges whose words cross digits, so that cutting shows."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rng = random.Random(0)
    words = ["We'LL", "pay", "now", "ok", "user", "return", "Caf\u00e9", "e\u0301", "def", "two"]
    words += ["12345", "345", "10"]
    lines = [" ".join(rng.choices(words, k=20)) for _ in range(100)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=330, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"]
        ),
    )
    return json.loads(backend.to_str())["model"]


def write(folder, trained, **files):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(trained["vocab"]))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in trained["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def decoder(trained) -> dict:
    first = len(trained["vocab"])
    added = {"<|endoftext|>": {"special": True}}
    found = {"0": {"content": "<|endoftext|>", **FLAGS, "special": True}}
    for i, (token, flags) in enumerate((ADDED | added).items()):
        if token not in added:
            found[str(first + i)] = {"content": token, **FLAGS, **flags}
    return found


def same_ids(folder, theirs):
    found = tokenizers.from_folder(folder)
    for text in TEXTS:
        assert found.encode(text).tolist() == theirs(text, add_special_tokens=False).input_ids, text
    return found


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("prefix", [False, True])
def test_added_tokens_of_tokenizer_config(name, prefix, trained, tmp_path):
    about = {
        "tokenizer_class": name,
        "added_tokens_decoder": decoder(trained),
        "add_prefix_space": prefix,
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    folder = write(tmp_path / "in", trained, tokenizer_config=about)
    found = same_ids(folder, getattr(transformers, name).from_pretrained(folder))
    assert (found.end_of_text, found.bos) == (0, len(trained["vocab"]))
    assert found.vocab == len(trained["vocab"]) + len(ADDED)
    again = tokenizers.Tokenizer(Tokenizer.from_str(found.to_json()), 0, "again")
    assert again.encode(TEXTS[1]).tolist() == found.encode(TEXTS[1]).tolist()


@pytest.mark.parametrize("name", CLASSES)
def test_added_tokens_json(name, trained, tmp_path):
    first = len(trained["vocab"])
    folder = write(
        tmp_path / "in",
        trained,
        tokenizer_config={"tokenizer_class": name},
        added_tokens={token: first + i for i, token in enumerate(ADDED)},
        special_tokens_map={
            "bos_token": "<|endoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        },
    )
    same_ids(folder, getattr(transformers, name).from_pretrained(folder))


@pytest.mark.parametrize(
    "model, name",
    [("gpt2", "GPT2Tokenizer"), ("gpt_neox", "GPTNeoXTokenizer"), ("qwen3", "Qwen2Tokenizer")],
)
def test_the_class_follows_the_model_where_none_is_named(model, name, trained, tmp_path):
    folder = write(tmp_path / "in", trained, config={"model_type": model})
    same_ids(folder, getattr(transformers, name).from_pretrained(folder))


def test_digits_and_accents_are_cut_by_class(trained, tmp_path):
    """What GPT-2's rule and Qwen 2's make of the same files differs, and is each its own."""
    found = {}
    for name in ("GPT2Tokenizer", "Qwen2Tokenizer"):
        folder = write(tmp_path / name, trained, tokenizer_config={"tokenizer_class": name})
        tokenizer = tokenizers.from_folder(folder)
        found[name] = [tokenizer.decode([i]) for i in tokenizer.encode("pay 12345")]
        accents = [tokenizer.encode(text).tolist() for text in ("Cafe\u0301", "Caf\u00e9")]
        assert (accents[0] == accents[1]) == (name == "Qwen2Tokenizer")
    assert found["Qwen2Tokenizer"][-5:] == list("12345")
    assert found["GPT2Tokenizer"][-1] == " 12345"


def test_a_first_token_that_the_config_asks_for(trained, tmp_path):
    about = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<|endoftext|>",
        "add_bos_token": True,
    }
    folder = write(tmp_path / "in", trained, tokenizer_config=about)
    theirs = transformers.GPT2Tokenizer.from_pretrained(folder)
    assert tokenizers.from_folder(folder).first_token == theirs("a").input_ids[0] == 0


BAD = {
    "class": (
        {"tokenizer_config": {"tokenizer_class": "RobertaTokenizerFast"}},
        "how the tokenizer class RobertaTokenizer cuts text is not known",
    ),
    "model": ({"config": {"model_type": "llama"}}, "of a llama model"),
    "id taken": ({"added_tokens": {"<x>": 3}}, "'<x>' among the added tokens"),
    "token taken": ({"added_tokens": {"<|endoftext|>": 999}}, "has id 0 in vocab.json and 999"),
    "malformed": (
        {"tokenizer_config": {"added_tokens_decoder": {"a": 1}}},
        "the added tokens are malformed",
    ),
}


@pytest.mark.parametrize("files, words", BAD.values(), ids=BAD)
def test_what_is_not_known_is_refused(files, words, trained, tmp_path):
    with pytest.raises(InputError) as caught:
        tokenizers.from_folder(write(tmp_path / "in", trained, **files))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_added_tokens_without_a_row_in_the_embedding(trained, tmp_path):
    """As `<image_soft_token>` of Gemma 3, whose id is the number of rows."""
    about = {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": decoder(trained)}
    found = tokenizers.from_folder(write(tmp_path / "in", trained, tokenizer_config=about))
    rows = found.vocab - 1
    last = found.backend.id_to_token(rows)
    with pytest.warns(UserWarning, match="1 tokens of in, such as .*, have no row in"):
        within = found.within(rows)
    text = f"def x{last}y"
    ids = within.encode(text)
    assert ids.max() < within.vocab <= rows
    assert within.decode(ids) == text
    assert found.within(rows + 1) is found
    assert found.within(3) is found  # of another model
