"""The tokenizer that the metadata of a GGUF file describe."""

import dataclasses
import json
import warnings

import tokenizers
from tokenizers import models

from lmdyn.data.tokenizers.byte_level import PRE_TOKENIZERS, byte_level_bpe
from lmdyn.data.tokenizers.sentencepiece import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceModel,
    sentencepiece_backend,
)
from lmdyn.data.tokenizers.tokenizer import Tokenizer, finish, one_line, put_first
from lmdyn.errors import InputError, choose

_OF_ARCHITECTURE = {
    "gpt2": "gpt-2",
    "gptneox": "gpt-neox",
    "phi2": "phi-2",
    **dict.fromkeys(("qwen2", "qwen2moe", "qwen3", "qwen3moe"), "qwen2"),
    **dict.fromkeys(("starcoder", "starcoder2"), "starcoder"),
    "olmo2": "dbrx",
    "gpt-oss": "gpt-4o",
    **{name: name for name in ("olmo", "falcon", "mpt", "bloom", "refact", "command-r", "dbrx")},
}
"""How models of an architecture cut text where a file does not say, since all of them do so."""
_RAW_TEXT = ("gemma4", "granite-embed-multi-311m", "sarvam-moe")
"""What merges characters, with spaces as SentencePiece writes them, and not bytes."""
_REMEDY = (
    "give --pre NAME (in Python, pre=), or write it into the file: gguf-new-metadata"
    " --pre-tokenizer NAME IN OUT"
)


def from_gguf(
    fields: dict, name: str = "gguf", end_of_text: str | int | None = None, pre: str | None = None
) -> Tokenizer:
    """The tokenizer that the metadata of a GGUF file describes.

    Args:
      fields: plain values by key; those that start with "tokenizer.ggml." are read.
      name: for reports.
      end_of_text: token or id that ends a document; default "<|endoftext|>" or, if there is no such
        token, the eos token.
      pre: how text is cut before bytes are merged, by llama.cpp's name for it, instead of what the
        file says.

    Raises:
      InputError: a kind of tokenizer or pre-tokenizer that is not known, or fields that are
        missing.

    >>> fields = {"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b"], "merges": []}
    >>> fields |= {"eos_token_id": 1}
    >>> from_gguf({f"tokenizer.ggml.{key}": v for key, v in fields.items()}).encode(
    ...     "ba"
    ... ).tolist()
    [1, 0]
    """
    get = lambda key, default=None: fields.get(f"tokenizer.ggml.{key}", default)
    kind = get("model")
    if kind is None:
        raise InputError(f"{name}: the file holds no tokenizer (no tokenizer.ggml.model)")
    choose("tokenizer.ggml.model", kind, ("gpt2", "llama", "t5", "gemma4"))
    if not get("tokens"):
        raise InputError(f"{name}: tokenizer.ggml.tokens is missing or empty")
    adds_bos = kind in ("llama", "gemma4")
    if kind == "gpt2":
        pre = _pre_tokenizer(fields, name, pre)
        adds_bos = pre not in _RAW_TEXT and PRE_TOKENIZERS[pre].bos
    elif pre is not None:
        raise InputError(
            f"{name}: pre={pre} does not fit tokenizer.ggml.model={kind}; leave it out"
        )
    try:
        if kind == "gpt2" and pre not in _RAW_TEXT:
            backend = _byte_level(get, str(pre))
        else:
            backend = _sentencepiece(get, kind)
    except InputError:
        raise
    except Exception as err:  # the library raises bare Exception
        raise InputError(
            f"{name}: the tokenizer of this GGUF cannot be built: {one_line(err)}"
        ) from err
    bos = get("bos_token_id")
    if get("add_bos_token", adds_bos):
        put_first(backend, bos)
    found = finish(backend, get("eos_token_id"), name, name, bos, end_of_text)
    return dataclasses.replace(found, files=_files(fields, found))


def _pre_tokenizer(fields: dict, name: str, chosen: str | None) -> str:
    """How text is cut: as the user or the file says, or as all models of an architecture do."""
    said = fields.get("tokenizer.ggml.pre")
    pre = said if chosen is None else chosen
    if pre is not None and (pre != "default" or chosen):
        return choose("tokenizer.ggml.pre", pre, (*PRE_TOKENIZERS, *_RAW_TEXT))
    architecture = fields.get("general.architecture")
    known = _OF_ARCHITECTURE.get(str(architecture), said)
    why = "says default" if said else "is missing"
    if known is None:
        raise InputError(
            f"{name}: tokenizer.ggml.pre is missing, so how its model cuts text is not known (Llama"
            f" 3: llama-bpe; Mistral Nemo: tekken; SmolLM: smollm); {_REMEDY}"
        )
    warnings.warn(
        f"{name}: tokenizer.ggml.pre {why}; text is cut as {known}; if that is wrong, {_REMEDY}",
        stacklevel=4,
    )
    return known


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


def _merges(get) -> list[tuple[str, str]]:
    if get("merges") is None:
        raise InputError("tokenizer.ggml.merges is missing; this GGUF has no usable tokenizer")
    return [tuple(merge.split(" ", 1)) for merge in get("merges")]


def _byte_level(get, name: str) -> tokenizers.Tokenizer:
    pre = PRE_TOKENIZERS[name]
    vocab = {token: i for i, token in enumerate(get("tokens"))}
    model = models.BPE(vocab=vocab, merges=_merges(get), ignore_merges=not pre.merge_all)
    backend = byte_level_bpe(model, pre)
    kinds = list(zip(get("tokens"), get("token_type") or [], strict=False))
    added = lambda *wanted: [
        tokenizers.AddedToken(token, normalized=False) for token, kind in kinds if kind in wanted
    ]
    backend.add_special_tokens(added(UNKNOWN, CONTROL))
    backend.add_tokens(added(USER_DEFINED))
    return backend


def _sentencepiece(get, kind: str) -> tokenizers.Tokenizer:
    kinds = get("token_type") or [NORMAL] * len(get("tokens"))
    tokens = [  # llama.cpp writes the spaces of user-defined pieces as they are
        token.replace(" ", "▁") if k == USER_DEFINED and not token.strip(" ") else token
        for token, k in zip(get("tokens"), kinds, strict=True)
    ]
    merges = None if kind in ("llama", "t5") else _merges(get)
    scores = get("scores") if merges is None else [0.0] * len(tokens)
    if scores is None or len(scores) != len(tokens):
        raise InputError(
            f"tokenizer.ggml.scores has {len(scores or [])} numbers for {len(tokens)} tokens"
        )
    model = SentencePieceModel(
        tokens,
        scores,
        kinds,
        unigram=kind == "t5",
        unknown=get("unknown_token_id", 2 if kind == "t5" else 0),
        byte_fallback=True,
        charsmap=bytes(byte % 256 for byte in get("precompiled_charsmap") or []),
        add_prefix=get("add_space_prefix", merges is None),
        remove_spaces=get("remove_extra_whitespaces", False),
    )
    return sentencepiece_backend(model, merges=merges)
