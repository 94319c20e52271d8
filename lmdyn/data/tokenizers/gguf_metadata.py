"""The tokenizer that the metadata of a GGUF file describe."""

import dataclasses
import json

import tokenizers
from tokenizers import decoders, models, normalizers

from lmdyn.data.tokenizers.byte_level import PRE_TOKENIZERS, byte_level_bpe
from lmdyn.data.tokenizers.tokenizer import Tokenizer, finish, one_line, put_first
from lmdyn.errors import InputError, choose

_CONTROL, _USER_DEFINED = 3, 4


def from_gguf(fields: dict, name: str = "gguf", end_of_text: str | int | None = None) -> Tokenizer:
    """The tokenizer that the metadata of a GGUF file describes.

    Args:
      fields: plain values by key; those that start with "tokenizer.ggml." are read.
      name: for reports.
      end_of_text: token or id that ends a document; default "<|endoftext|>" or, if there is no such
        token, the eos token.

    Raises:
      InputError: a kind of tokenizer or pre-tokenizer that is not known, or fields that are
        missing.

    >>> fields = {"model": "gpt2", "tokens": ["a", "b"], "merges": [], "eos_token_id": 1}
    >>> from_gguf({f"tokenizer.ggml.{key}": v for key, v in fields.items()}).encode(
    ...     "ba"
    ... ).tolist()
    [1, 0]
    """
    get = lambda key, default=None: fields.get(f"tokenizer.ggml.{key}", default)
    kind = get("model")
    if kind is None:
        raise InputError(f"{name}: the file holds no tokenizer (no tokenizer.ggml.model)")
    choose("tokenizer.ggml.model", kind, ("gpt2", "llama"))
    tokens, types = get("tokens"), get("token_type") or []
    if not tokens:
        raise InputError(f"{name}: tokenizer.ggml.tokens is missing or empty")
    try:
        backend = (_gguf_byte_level if kind == "gpt2" else _gguf_sentencepiece)(fields, tokens, get)
    except InputError:
        raise
    except Exception as err:  # the library raises bare Exception
        raise InputError(
            f"{name}: the tokenizer of this GGUF cannot be built: {one_line(err)}"
        ) from err
    special = [
        tokenizers.AddedToken(t, special=True, normalized=False)
        for t, k in zip(tokens, types, strict=False)
        if k == _CONTROL
    ]
    backend.add_special_tokens(special)
    backend.add_tokens(
        [
            tokenizers.AddedToken(t, normalized=False)
            for t, k in zip(tokens, types, strict=False)
            if k == _USER_DEFINED
        ]
    )
    bos = get("bos_token_id")
    if _adds_bos(kind, get):
        put_first(backend, bos)
    found = finish(backend, get("eos_token_id"), name, name, bos, end_of_text)
    return dataclasses.replace(found, files=_files(fields, found))


def _files(fields: dict, tokenizer: Tokenizer) -> dict[str, bytes]:
    """What a Hugging Face folder would say: roles of tokens, chat templates, generation config."""
    ids = {
        "bos": fields.get("tokenizer.ggml.bos_token_id"),
        "eos": fields.get("tokenizer.ggml.eos_token_id", tokenizer.end_of_text),
        "pad": fields.get("tokenizer.ggml.padding_token_id"),
        "unk": fields.get("tokenizer.ggml.unknown_token_id"),
    }
    ids = {role: i for role, i in ids.items() if _is_id(i, tokenizer)}
    tokens = {f"{role}_token": tokenizer.backend.id_to_token(i) for role, i in ids.items()}
    numbers = {f"{role}_token_id": i for role, i in ids.items() if role != "unk"}
    turn = fields.get("tokenizer.ggml.eot_token_id")  # also ends what a chat model generates
    more = _is_id(turn, tokenizer) and turn != ids.get("eos")
    ends = {"eos_token_id": [ids.get("eos", tokenizer.end_of_text), turn]} if more else {}
    start = "tokenizer.chat_template"
    templates = {
        key[len(start) + 1 :] or "default": text
        for key, text in fields.items()
        if isinstance(text, str) and (key == start or key.startswith(start + "."))
    }
    chat: object = [{"name": name, "template": text} for name, text in templates.items()]
    if templates.keys() <= {"default"}:
        chat = templates.get("default")
    made = {
        "config.json": numbers,
        "generation_config.json": {**numbers, **ends},
        "special_tokens_map.json": tokens,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **tokens,
            **({"chat_template": chat} if chat else {}),
        },
    }
    return {name: json.dumps(values, indent=2).encode() for name, values in made.items()}


def _is_id(value: object, tokenizer: Tokenizer) -> bool:
    if not isinstance(value, int) or not 0 <= value < tokenizer.vocab:
        return False
    return tokenizer.backend.id_to_token(value) is not None


def _adds_bos(kind: str, get) -> bool:
    """Whether a text begins with the beginning-of-text token; as llama.cpp, where nothing is said.

    https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp (`add_bos`).
    """
    default = kind == "llama" or get("pre") in ("llama3", "llama-v3", "llama-bpe", "falcon3")
    return bool(get("add_bos_token", default))


def _gguf_byte_level(fields: dict, tokens: list[str], get) -> tokenizers.Tokenizer:
    pre = get("pre", "default")
    if pre == "default" and fields.get("general.architecture") in ("qwen2", "qwen3"):
        pre = "qwen2"
    pre = PRE_TOKENIZERS[choose("tokenizer.ggml.pre", pre, PRE_TOKENIZERS)]
    if get("merges") is None:
        raise InputError("tokenizer.ggml.merges is missing; this GGUF has no usable tokenizer")
    merges = [tuple(merge.split(" ", 1)) for merge in get("merges")]
    vocab = {token: i for i, token in enumerate(tokens)}
    return byte_level_bpe(
        models.BPE(vocab=vocab, merges=merges, ignore_merges=not pre.merge_all), pre
    )


def _gguf_sentencepiece(fields: dict, tokens: list[str], get) -> tokenizers.Tokenizer:
    """SentencePiece BPE: what joins first is the pair whose whole has the highest score."""
    scores = get("scores")
    if scores is None or len(scores) != len(tokens):
        raise InputError(
            f"tokenizer.ggml.scores has {len(scores or [])} numbers for {len(tokens)} tokens"
        )
    vocab = {token: i for i, token in enumerate(tokens)}
    types = get("token_type") or [1] * len(tokens)
    ranked = sorted((i for i, kind in enumerate(types) if kind == 1), key=lambda i: -scores[i])
    merges = [pair for i in ranked for pair in _pairs(tokens[i], vocab)]
    unknown = tokens[get("unknown_token_id", 0)]
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    replace = normalizers.Replace(" ", "▁")
    prefix = get("add_space_prefix", True)
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), replace] if prefix else [replace]
    )
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend


def _pairs(token: str, vocab: dict[str, int]) -> list[tuple[str, str]]:
    pairs = [
        (token[:i], token[i:])
        for i in range(1, len(token))
        if token[:i] in vocab and token[i:] in vocab
    ]
    return sorted(pairs, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
