"""How byte-level BPE cuts a text into words before it merges bytes."""

import dataclasses

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CL100K = (
    _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _CL100K.replace(r"\p{N}{1,3}", r"\p{N}")


def _split(pattern: str):
    return [
        pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def _gpt2():
    return [pre_tokenizers.ByteLevel(add_prefix_space=False)]


def _digits():
    return [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]


@dataclasses.dataclass(frozen=True)
class PreTokenizer:
    """How text is cut into words before bytes are merged.

    Args:
      split: the steps of cutting, of the `tokenizers` library.
      normalizer: what is done to the text first; None is nothing.
      merge_all: False where whole words of the vocabulary skip the merges.

    >>> PRE_TOKENIZERS["llama-bpe"].merge_all
    False
    """

    split: tuple
    normalizer: object = None
    merge_all: bool = True


PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    **dict.fromkeys(
        ("default", "gpt-2", "gpt2", "phi-2", "mpt", "jais", "trillion", "roberta-bpe"),
        PreTokenizer((*_gpt2(),)),
    ),
    **dict.fromkeys(
        ("olmo", "gpt-neox", "gptneox", "stablelm"), PreTokenizer((*_gpt2(),), normalizers.NFC())
    ),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
        PreTokenizer((*_digits(),)),
    ),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3"),
        PreTokenizer((*_split(_CL100K),), merge_all=False),
    ),
    **dict.fromkeys(("dbrx", "olmo2", "smaug-bpe"), PreTokenizer((*_split(_CL100K),))),
    **dict.fromkeys(
        ("qwen2", "qwen3", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan"),
        PreTokenizer((*_split(_QWEN2),), normalizers.NFC()),
    ),
}
"""By llama.cpp's names (`tokenizer.ggml.pre`); the rules are those of each `tokenizer.json`."""


def byte_level_bpe(model: models.BPE, pre: PreTokenizer) -> tokenizers.Tokenizer:
    """A backend of the `tokenizers` library: byte-level BPE with a way to cut text into words.

    >>> backend = byte_level_bpe(models.BPE({"a": 0, "b": 1}, []), PRE_TOKENIZERS["gpt-2"])
    >>> backend.encode("ab").ids
    [0, 1]
    """
    backend = tokenizers.Tokenizer(model)
    if pre.normalizer is not None:
        backend.normalizer = pre.normalizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(list(pre.split))
    backend.decoder = decoders.ByteLevel()
    return backend
