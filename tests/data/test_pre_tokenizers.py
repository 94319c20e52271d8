"""How byte-level BPE cuts text, against llama.cpp, `tokenizers` and tiktoken.

The pieces were printed by llama.cpp (libllama 0.5.0) from GGUF files with a vocabulary in which any
neighbours join, so that a token is what the pre-tokenizer left whole. Where llama.cpp only comes
near a model's own `tokenizer.json`, the piece is that of the latter's rule: words of one case (its
engine takes `\\p{Lu}` for `\\p{L}`), Falcon's and DeepSeek's digits.
"""

import base64
import json
import warnings

import pytest
import tokenizers as hf
from tokenizers import models, pre_tokenizers, trainers

from lmdyn.data import tokenizers
from lmdyn.data.tokenizers.byte_level import PRE_TOKENIZERS, byte_letters
from lmdyn.data.tokenizers.tiktoken import parse_ranks
from lmdyn.errors import InputError

LETTERS = byte_letters()
TEXTS = (
    "We'LL pay 12345  now\n\n ok",
    "It's HelloWorld, 1,234567!\r\n\t(x)_y",
    "Caf\u00e9 \u4f60\u597dab\u3042  \n d'x?",
)
# Pieces are parted by "|". First all texts by GPT-2's rule; then what differs from the row named.
GPT2 = (
    "We|'|LL| pay| 12345| | now|\n\n| ok",
    "It|'s| HelloWorld|,| 1|,|234567|!|\r\n|\t|(|x|)_|y",
    "Caf\u00e9| \u4f60\u597dab\u3042|  \n| d|'|x|?",
)
DIGITS = (
    "We|'|LL| pay| |1|2|3|4|5| | now|\n\n| ok",
    "It|'s| HelloWorld|,| |1|,|2|3|4|5|6|7|!|\r\n|\t|(|x|)_|y",
    GPT2[2],
)
THREES = (
    "We|'LL| pay| |123|45| | now|\n\n| ok",
    "It|'s| HelloWorld|,| |1|,|234|567|!\r\n|\t|(x|)_|y",
    "Caf\u00e9| \u4f60\u597dab\u3042|  \n| d|'x|?",
)
ONES = (
    "We|'LL| pay| |1|2|3|4|5| | now|\n\n| ok",
    "It|'s| HelloWorld|,| |1|,|2|3|4|5|6|7|!\r\n|\t|(x|)_|y",
    THREES[2],
)
CHINESE_APART = "Caf\u00e9| |\u4f60\u597d|ab|\u3042|  \n| d|'x|?"
PIECES = {
    "default": (
        "We|'|LL| pay| |123|45| | now|\n\n| ok",
        "It|'|s| HelloWorld|,| |1|,|234|567|!|\r\n\t|(|x|)_|y",
        GPT2[2],
    ),
    "gpt-2 phi-2 mpt olmo jais trillion exaone4 modern-bert jina-v2-de gigachat": GPT2,
    "smollm starcoder refact codeshell exaone minerva-7b command-r mellum2": DIGITS,
    "llama-bpe llama3 llama-v3 falcon3 pixtral lfm2 dbrx smaug-bpe chatglm-bpe glm4 jais-2": THREES,
    "qwen2 deepseek-r1-qwen stablelm2 megrez hunyuan grok-2 qwen35 bailingmoe llada-moe": ONES,
    "laguna": (
        ONES[0],
        "It|'s| HelloWorld|,| |1|,|2|3|4|5|6|7|!\r|\n|\t|(x|)_|y",
        "Caf\u00e9| \u4f60\u597dab\u3042|  |\n| d|'x|?",
    ),
    "deepseek-llm": (
        "We|'|LL| pay| |1|2|3|4|5| | now|\n|\n| ok",
        "It|'|s| HelloWorld|,| |1|,|2|3|4|5|6|7|!|\r|\n|\t(|x|)_|y",
        "Caf|\u00e9| |\u4f60\u597d|ab|\u3042|  |\n| d|'|x|?",
    ),
    "deepseek-coder": (
        "We|'|LL| pay| |1|2|3|4|5| | now|\n|\n| ok",
        "It|'|s| HelloWorld|,| |1|,|2|3|4|5|6|7|!|\r|\n|\t(|x|)_|y",
        "Caf\u00e9| |\u4f60\u597d|ab|\u3042|  |\n| d|'|x|?",
    ),
    "deepseek-v3 hunyuan-dense joyai-llm": (*THREES[:2], CHINESE_APART),
    "spark2_5": (
        "We|'LL| pay| |1|2|3|4|5| | now|\n|\n| ok",
        "It|'s| HelloWorld|,| |1|,|2|3|4|5|6|7|!|\r|\n|\t|(x|)_|y",
        CHINESE_APART,
    ),
    "afmoe": ("We|'LL| pay| |12|345| | now|\n\n| ok", THREES[1], CHINESE_APART),
    "youtu": (
        "We'LL| pay| |1|2|3|4|5| | now|\n\n| ok",
        "It's| Hello|World|,| |1|,|2|3|4|5|6|7|!\r\n|\t|(x|)_|y",
        CHINESE_APART,
    ),
    "falcon": (
        "We|'|LL| pay| |123|45| | now|\n\n| ok",
        "It|'|s| HelloWorld|,| |1|,|234|567|!|\r\n\t|(|x|)_|y",
        None,  # cuts inside of characters
    ),
    "bloom gpt3-finnish poro-chat": (
        "We'LL| pay| 12345| | now|\n\n| ok",
        "It's| HelloWorld|,| 1|,|234567|!\r\n\t(|x|)|_y",
        "Caf\u00e9| \u4f60\u597dab\u3042|  \n| d'x|?",
    ),
    "viking": (
        "We'LL| pay| |1|2|3|4|5| | now|\n\n| ok",
        "It's| HelloWorld|,| |1|,|2|3|4|5|6|7|!\r\n\t(|x|)|_y",
        "Caf\u00e9| \u4f60\u597dab\u3042|  \n| d'x|?",
    ),
    "tekken": (ONES[0], "It|'s| Hello|World|,| |1|,|2|3|4|5|6|7|!\r\n|\t|(x|)_|y", ONES[2]),
    "gpt-4o llama4 kanana2 minimax-m2": (
        "We'LL| pay| |123|45| | now|\n\n| ok",
        "It's| Hello|World|,| |1|,|234|567|!\r\n|\t|(x|)_|y",
        ONES[2],
    ),
    "tiny_aya": (
        "We'LL| pay| |12|345| | now|\n\n| ok",
        "It's| Hello|World|,| |1|,|234|567|!\r\n|\t|(x|)_|y",
        ONES[2],
    ),
    "kimi-k2": (
        "We'LL| pay| |123|45| | now|\n\n| ok",
        "It's| Hello|World|,| |1|,|234|567|!\r\n|\t|(x|)_|y",
        "Caf\u00e9| |\u4f60\u597d|ab\u3042|  \n| d|'x|?",
    ),
    "superbpe": (
        "We'LL pay |12|345|  now\n\n ok",
        "It's HelloWorld, |1|,|234|567|!\r\n\t(x)_y",
        TEXTS[2],
    ),
    "seed-coder": (ONES[0], "It|'s| HelloWorld|,| |1|,|2|3|4|5|6|7|!|\r\n|\t|(x|)_|y", ONES[2]),
    "exaone-moe": (
        ONES[0],
        "It|'s| HelloWorld|,| |1|,|2|3|4|5|6|7|!\r|\n|\t|(x|)_|y",
        "Caf\u00e9 \u4f60\u597dab\u3042|  \n| d|'x|?",
    ),
    "chameleon": (
        "We|'|LL| pay| |1|2|3|4|5|  |now|\n|\n| ok",
        "It|'|s| HelloWorld|,| |1|,|2|3|4|5|6|7|!|\r|\n|\t|(|x|)|_|y",
        "Caf\u00e9| \u4f60\u597dab\u3042|  |\n| d|'|x|?",
    ),
}


def written(text: str) -> str:
    return "".join(LETTERS[byte] for byte in text.encode())


@pytest.mark.parametrize("names", PIECES)
def test_pieces(names):
    for name in names.split():
        pre = pre_tokenizers.Sequence(list(PRE_TOKENIZERS[name].split))
        for text, pieces in zip(TEXTS, PIECES[names], strict=True):
            if pieces is not None:
                found = [piece for piece, _ in pre.pre_tokenize_str(text)]
                assert found == [written(piece) for piece in pieces.split("|")], name


def test_falcons_digits_are_those_of_the_letters_for_bytes():
    """In U+4F60 the byte 0xBD is written as a fraction, which its rule takes for a digit."""
    pre = pre_tokenizers.Sequence(list(PRE_TOKENIZERS["falcon"].split))
    assert [piece for piece, _ in pre.pre_tokenize_str("\u4f60")] == [*written("\u4f60")]


@pytest.fixture(scope="module")
def trained():
    """Byte-level BPE whose words cross digits, spaces and signs, so that cutting shows."""
    backend = hf.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    lines = [text[i : i + 9] for text in TEXTS for i in range(len(text))] * 4
    backend.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=420,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return json.loads(backend.to_str())["model"]


def ranks_file(trained) -> bytes:
    """Tokens in the order of their ids, which is that of the merges, as in tiktoken's files."""
    unwritten = {letter: byte for byte, letter in enumerate(LETTERS)}
    tokens = sorted(trained["vocab"], key=trained["vocab"].get)
    return b"".join(
        base64.b64encode(bytes(unwritten[letter] for letter in token)) + b" %d\n" % i
        for i, token in enumerate(tokens)
    )


CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
RANKS = {
    "Llama 3": ("tokenizer.model", {"config": {"model_type": "llama"}}, CL100K, 256),
    "Qwen": (
        "qwen.tiktoken",
        {"tokenizer_config": {"tokenizer_class": "QWenTokenizer"}},
        CL100K.replace("{1,3}", ""),
        208,
    ),
}


@pytest.mark.parametrize("name", RANKS)
def test_ranks_join_as_in_tiktoken(name, trained, tmp_path):
    tiktoken = pytest.importorskip("tiktoken")
    file, settings, pattern, special = RANKS[name]
    data = ranks_file(trained)
    (tmp_path / file).write_bytes(data)
    for setting, values in settings.items():
        (tmp_path / f"{setting}.json").write_text(json.dumps(values))
    found = tokenizers.from_folder(tmp_path)
    size = len(trained["vocab"])
    assert found.vocab == size + special
    names = {found.backend.id_to_token(i): i for i in range(size, found.vocab)}
    theirs = tiktoken.Encoding(
        "theirs", pat_str=pattern, mergeable_ranks=parse_ranks(data), special_tokens=names
    )
    for text in (*TEXTS, "".join(TEXTS), "x<|im_start|>y<|eot_id|>z", "don'T\t\t99999 \u00e9\n"):
        assert found.encode(text).tolist() == theirs.encode(text, allowed_special="all")
        assert found.decode(found.encode(text)) == text
    if name == "Llama 3":
        assert (found.first_token, found.end_of_text) == (size, size + 1)
        assert names["<|eot_id|>"] == size + 9  # as in the published model: 128009 of 128000
        assert names["<|reserved_special_token_3|>"] == size + 11
    else:
        assert (found.first_token, found.end_of_text) == (None, size)
        assert names["<|extra_204|>"] == size + 207


def test_ranks_without_names_for_the_other_tokens(trained, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(ranks_file(trained))
    with pytest.raises(
        InputError, match="tokenizer class that is not named cuts text is not known"
    ):
        tokenizers.from_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama4"}')
    with pytest.raises(
        InputError, match="names no tokens beside tiktoken's ranks; write them into"
    ):
        tokenizers.from_folder(tmp_path)


def gguf_fields(trained, **changes):
    found = {
        "model": "gpt2",
        "tokens": sorted(trained["vocab"], key=trained["vocab"].get),
        "merges": [" ".join(merge) for merge in trained["merges"]],
        "eos_token_id": 0,
        **changes,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in found.items() if value is not None}


def test_a_gguf_that_does_not_say_how_text_is_cut(trained):
    fields = gguf_fields(trained) | {"general.architecture": "llama"}
    with pytest.raises(InputError, match=r"give --pre NAME .* gguf-new-metadata --pre-tokenizer"):
        tokenizers.from_gguf(fields, "toy")
    chosen = tokenizers.from_gguf(fields, "toy", pre="llama-bpe")
    said = tokenizers.from_gguf(gguf_fields(trained, pre="llama-bpe"))
    other = tokenizers.from_gguf(gguf_fields(trained, pre="gpt-2"))
    ids = [found.encode("".join(TEXTS)).tolist() for found in (chosen, said, other)]
    assert ids[0] == ids[1] != ids[2]
    with pytest.raises(InputError, match=r"unknown tokenizer.ggml.pre 'llama3-bpe'; did you mean"):
        tokenizers.from_gguf(fields, pre="llama3-bpe")


@pytest.mark.parametrize("said", [None, "default"])
def test_all_models_of_an_architecture_cut_alike(said, trained):
    fields = gguf_fields(trained, pre=said) | {"general.architecture": "qwen3"}
    with pytest.warns(UserWarning, match=r"text is cut as qwen2; if that is wrong, give --pre"):
        found = tokenizers.from_gguf(fields, "toy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wanted = tokenizers.from_gguf(gguf_fields(trained, pre="qwen2"))
    assert found.encode("".join(TEXTS)).tolist() == wanted.encode("".join(TEXTS)).tolist()


def test_characters_are_merged_where_a_model_has_no_bytes():
    """Gemma 4 (`gemma4`): merges of characters, spaces as SentencePiece writes them."""
    tokens = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "\u2581", "a", "b", "ab", "\u2581ab"]
    fields = {
        "model": "gemma4",
        "tokens": tokens,
        "token_type": [2, *[6] * 256, *[1] * 5],
        "merges": ["a b", "\u2581 ab"],
        "eos_token_id": 0,
    }
    found = tokenizers.from_gguf({f"tokenizer.ggml.{k}": v for k, v in fields.items()})
    pieces = [tokens[i] for i in found.encode("ab aab\u00e9")]
    assert pieces == ["ab", "\u2581", "a", "ab", "<0xC3>", "<0xA9>"]
    assert found.decode(found.encode(" ab ab\u00e9")) == " ab ab\u00e9"
