"""SentencePiece models against SentencePiece itself, from folders and from GGUF metadata."""

import io
import json
import random
import re
import unicodedata

import pytest

from lmdyn.data import tokenizers
from lmdyn.data.tokenizers.sentencepiece import parse_model
from lmdyn.errors import InputError

sentencepiece = pytest.importorskip("sentencepiece")
from sentencepiece import sentencepiece_model_pb2  # noqa: E402

WORDS = (
    "the cat and a hat on mat; it's 12345 or 3.14 def f(x): return naïve Café über straße"
    " Việt ngữ tiếng 你好 世界 こんにちは 안녕 привет мир ﬁne № ½ don't x=y+1 user <tool> end"
)
TEXTS = [
    "",
    " ",
    "the cat",
    " the  cat   and\ta hat ",
    "\n\n  def f(x):\n\treturn 1234567 # ok\r\n",
    "Cafe\u0301 n\u0303 \ufb01ne \u212b ㎏ ① \uff48\uff41\uff4c\uff46",
    unicodedata.normalize("NFD", "Việt ngữ tiếng 안녕 がぎ"),
    "你好\uff0c世界 👩‍🚀 😀😀 \u200d\ufe0f",
    "it's IT'S don't ▁under▁score ▁",
    "שלום مرحبا \x01\x7f \u00a0x\u2003y",
    "a  b    c" + " " * 17 + "d",
    "a<tool>b <tool> the\n\nend\n\n\n",
]
PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
OPTIONS = {
    "as trained by default": {},
    "bytes": {"byte_fallback": True},
    "Llama": {**PLAIN, "byte_fallback": True, "split_digits": True},
    "Gemma": {
        **PLAIN,
        "byte_fallback": True,
        "add_dummy_prefix": False,
        "user_defined_symbols": ["▁▁", "▁▁▁▁", "\n\n", "<tool>"],
    },
    "NFKC, spaces kept": {"normalization_rule_name": "nfkc", "remove_extra_whitespaces": False},
    "case folded": {"normalization_rule_name": "nmt_nfkc_cf", "byte_fallback": True},
}


def trained(kind: str, **options) -> bytes:
    rng = random.Random(0)
    lines = [" ".join(rng.choices(WORDS.split(), k=12)) for _ in range(300)]
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=made,
        model_type=kind,
        vocab_size=400,
        hard_vocab_limit=False,
        character_coverage=0.99,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return made.getvalue()


@pytest.fixture(scope="module")
def models():
    return {
        (kind, name): trained(kind, **options)
        for kind in ("bpe", "unigram")
        for name, options in OPTIONS.items()
    }


def folder(path, data: bytes, **files):
    path.mkdir()
    (path / "tokenizer.model").write_bytes(data)
    for name, values in files.items():
        (path / f"{name}.json").write_text(json.dumps(values))
    return path


def gguf_fields(data: bytes) -> dict:
    """What llama.cpp's converter writes: the spaces of user-defined pieces as they are."""
    model = parse_model(data)
    user = 4
    pieces = zip(model.pieces, model.kinds, strict=True)
    found = {
        "model": "t5" if model.unigram else "llama",
        "pre": "default",
        "tokens": [p.replace("▁", " ") if kind == user else p for p, kind in pieces],
        "scores": model.scores,
        "token_type": model.kinds,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "add_space_prefix": model.add_prefix,
        "remove_extra_whitespaces": model.remove_spaces,
        "precompiled_charsmap": [b - 256 if b > 127 else b for b in model.charsmap],
    }
    return {f"tokenizer.ggml.{key}": value for key, value in found.items()}


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("name", OPTIONS)
def test_ids_and_texts_are_sentencepieces(kind, name, models, tmp_path):
    data = models[kind, name]
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    made = tokenizers.from_folder(folder(tmp_path / "m", data))
    saved = tmp_path / "tokenizer.json"
    saved.write_text(made.to_json())
    bytes_too = theirs.is_byte(theirs.piece_to_id("<0x41>"))
    for found in (
        made,
        tokenizers.from_file(saved, "</s>"),
        tokenizers.from_gguf(gguf_fields(data)),
    ):
        assert (found.vocab, found.eos if found is made else 2) == (theirs.get_piece_size(), 2)
        for text in TEXTS:
            ids = theirs.encode(text)
            assert found.encode(text).tolist() == ids, text
            if bytes_too:  # without them, what is unknown is written in another way
                assert found.decode(ids) == theirs.decode(ids)


@pytest.mark.parametrize("legacy", [True, False])
def test_tokens_beside_the_model(legacy, models, tmp_path):
    """Special tokens cut a text; `legacy`: each of its parts begins with a space."""
    data = models["bpe", "Llama"]
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    size = theirs.get_piece_size()
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    added = {
        str(size): {"content": "<|im_start|>", "special": True, **flags},
        str(size + 1): {"content": "<pad>", "special": False, **flags, "rstrip": True},
    }
    about = {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": added, "legacy": legacy}
    found = tokenizers.from_folder(folder(tmp_path / "m", data, tokenizer_config=about))
    text = "<s> the <|im_start|>cat<pad>  and a</s>hat"
    proto = sentencepiece_model_pb2.ModelProto.FromString(data)
    proto.normalizer_spec.add_dummy_prefix = legacy
    bare = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    wanted = [theirs.bos_id()]
    for part in re.split(r"(<\|im_start\|>|<pad> *|</s>)", text.removeprefix("<s>")):
        special = {"<|im_start|>": size, "<pad>": size + 1, "</s>": 2}.get(part.strip())
        wanted += bare.encode(part) if special is None else [special]
    assert found.encode(text).tolist() == wanted
    assert found.encode(" the cat").tolist() == theirs.encode(" the cat")
    assert (found.bos, found.first_token, found.eos, found.vocab) == (1, 1, 2, size + 2)


def test_added_tokens_json_and_the_model_type(models, tmp_path):
    data = models["bpe", "Llama"]
    size = parse_model(data).pieces
    found = tokenizers.from_folder(
        folder(
            tmp_path / "m",
            data,
            config={"model_type": "llama"},
            added_tokens={"<x>": len(size)},
            special_tokens_map={"additional_special_tokens": ["<x>"]},
        )
    )
    assert found.encode("a<x>").tolist()[-1] == len(size)
    assert found.first_token == 1


def test_beside_sentinels_of_t5(models, tmp_path):
    about = {"tokenizer_class": "T5Tokenizer", "extra_ids": 3}
    data = models["unigram", "as trained by default"]
    found = tokenizers.from_folder(folder(tmp_path / "m", data, tokenizer_config=about))
    size = len(parse_model(data).pieces)
    ids = [found.encode(f"<extra_id_{i}>").tolist() for i in range(3)]
    assert ids == [[size + 2], [size + 1], [size]]
    assert found.first_token is None


def test_what_cannot_be_read_is_one_line(models, tmp_path):
    data = models["bpe", "Llama"]
    suffix = trained("bpe", treat_whitespace_as_suffix=True)
    cases = {
        "no": (b"", {}, "0 pieces"),
        "text": (b"a b c\n" * 9, {}, "neither a SentencePiece model nor tiktoken's ranks"),
        "cut": (data[:-3], {}, "ends in the middle"),
        "kind": (trained("char"), {}, "model type 4"),
        "suffix": (suffix, {}, "spaces that end words"),
        "class": (
            data,
            {"tokenizer_config": {"tokenizer_class": "XGLMTokenizer"}},
            "tokenizer class XGLMTokenizer cuts text is not known",
        ),
        "gap": (data, {"added_tokens": {"<x>": 9999}}, "'<x>' has id 9999, but there are only"),
    }
    for name, (content, files, words) in cases.items():
        with pytest.raises(InputError) as caught:
            tokenizers.from_folder(folder(tmp_path / name, content, **files))
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
