r"""How byte-level BPE cuts a text into words before it merges bytes.

The rules are those of the models' own `tokenizer.json`, the names those by which llama.cpp knows
them (`tokenizer.ggml.pre`). https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
"""

import dataclasses

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDS = r"|\s+(?!\S)|\s+"
_SYMBOLS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+" + _ENDS
_CL100K = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _SYMBOLS
_ONE_DIGIT = _CL100K.replace("{1,3}", "")
_QWEN35 = _ONE_DIGIT.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(
    r"s\p{L}\p{N}", r"s\p{L}\p{M}\p{N}"
)
# Words of one case: capitals, then small letters; o200k, and Mistral's without contractions.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASES = [rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}{a}{_LOWER}{b}" for a, b in ("*+", "+*")]
_O200K_ENDS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+" + _ENDS
_O200K = "|".join(f"{case}{_CONTRACTIONS}?" for case in _CASES) + r"|\p{N}{1,3}" + _O200K_ENDS
_TEKKEN = "|".join(_CASES) + r"|\p{N}" + _O200K_ENDS
_HAN = r"[\p{Han}]+"
_KIMI = (
    "|".join(
        [
            _HAN,
            *(
                case.replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]") + f"{_CONTRACTIONS}?"
                for case in _CASES
            ),
        ]
    )
    + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    + _ENDS
)
# DeepSeek's: punctuation with the letters after it, marks with their letters.
_ASCII_SYMBOLS = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_MARKED_WORDS = _ASCII_SYMBOLS + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
_DEEPSEEK3 = _MARKED_WORDS + r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+" + _ENDS
_CHINESE_AND_KANA = r"[一-\x{9FA5}\x{3040}-\x{30FF}]+"
_CHINESE_AND_HANGUL = r"[\x{0800}-\x{9FA5}\x{AC00}-\x{D7FF}]+"
# Letters that have cases: DeepSeek LLM's own list of them.
_CASED = (
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}"
    r"\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}"
    r"\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}"
    r"\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}"
    r"\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}"
    r"\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}"
    r"\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}"
    r"\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}"
    r"\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}"
    r"\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}"
    r"\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}"
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}"
    r"\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}"
    r"\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}"
    r"\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}"
    r"\x{1E900}-\x{1E943}"
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+" + _ENDS
_BLOOM = " ?[^(\\s|[.,!?…。\uff0c、।\u06d4،])]+"


def _cut(*patterns):
    """Cuts by one pattern after another, each of them what the last one left."""
    return (
        *(pre_tokenizers.Split(tokenizers.Regex(p), behavior="isolated") for p in patterns),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    )


def _gpt2(*before):
    """GPT-2's rule, after other steps."""
    return (*before, pre_tokenizers.ByteLevel(add_prefix_space=False))


_DIGITS = pre_tokenizers.Digits(individual_digits=True)


@dataclasses.dataclass(frozen=True)
class PreTokenizer:
    """How text is cut into words before bytes are merged.

    Args:
      split: the steps of cutting, of the `tokenizers` library.
      normalizer: what is done to the text first; None is nothing.
      merge_all: False where whole words of the vocabulary skip the merges.
      bos: a text begins with the beginning-of-text token, where a GGUF file does not say.

    >>> PRE_TOKENIZERS["llama-bpe"].merge_all
    False
    """

    split: tuple
    normalizer: object = None
    merge_all: bool = True
    bos: bool = False


_FALCON = (
    pre_tokenizers.Punctuation("contiguous"),
    pre_tokenizers.ByteLevel(add_prefix_space=False),
    pre_tokenizers.Digits(individual_digits=False),
    pre_tokenizers.Split(tokenizers.Regex("[0-9][0-9][0-9]"), behavior="isolated"),
)
_RULES = {
    "default": PreTokenizer(  # llama.cpp's, where nobody knew
        _cut(r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")
    ),
    "gpt-2 gpt2 phi-2 jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe"
    " gigachat a.x-4.0 mellum jais trillion granite-docling exaone4": PreTokenizer(_gpt2()),
    "olmo gpt-neox gptneox stablelm mpt modern-bert": PreTokenizer(_gpt2(), normalizers.NFC()),
    "smollm starcoder refact codeshell exaone minerva-7b mellum2": PreTokenizer(_gpt2(_DIGITS)),
    "command-r": PreTokenizer(_gpt2(_DIGITS), normalizers.NFC()),
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": PreTokenizer(
        _cut(_CL100K), merge_all=False, bos=True
    ),
    "dbrx olmo2 smaug-bpe glm4 chatglm-bpe": PreTokenizer(_cut(_CL100K)),
    "minicpm5": PreTokenizer(_cut(r"\p{N}{1,3}", _CL100K.replace("{1,3}", "+")), merge_all=False),
    "jais-2": PreTokenizer(
        _cut(
            _CL100K.removesuffix(_ENDS)
            + "".join(rf"|\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
            + r"|\s"
        )
    ),
    "qwen2 qwen3 deepseek-r1-qwen stablelm2 megrez hunyuan kormo f2llmv2": PreTokenizer(
        _cut(_ONE_DIGIT), normalizers.NFC()
    ),
    "grok-2 solar-open": PreTokenizer(_cut(_ONE_DIGIT)),
    "qwen35": PreTokenizer(_cut(_QWEN35), normalizers.NFC()),
    "ufakzeka": PreTokenizer(_cut(_ONE_DIGIT.removeprefix(_CONTRACTIONS + "|"))),
    "laguna": PreTokenizer(_cut(r"[^\n]+|[\n]+", _ONE_DIGIT)),
    "deepseek-llm": PreTokenizer(
        _cut(
            "[\r\n]",
            rf"\s?[{_CASED}]+",
            r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
            r"\s+$",
            _CHINESE_AND_HANGUL,
            r"\p{N}",
        )
    ),
    "deepseek-coder": PreTokenizer(
        _cut("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE_AND_HANGUL, r"\p{N}")
    ),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": PreTokenizer(
        _cut(r"\p{N}{1,3}", _CHINESE_AND_KANA, _DEEPSEEK3)
    ),
    "spark2_5": PreTokenizer(
        _cut(
            r"\p{N}{1,3}",
            _CHINESE_AND_KANA,
            _MARKED_WORDS + r"| ?[\p{P}\p{S}]+|[\r\n]" + _ENDS,
            r"\p{N}",
        )
    ),
    "afmoe": PreTokenizer(
        _cut(
            r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
            r"[一-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{30FF}\x{FF65}-\x{FF9F}"
            r"\x{2F00}-\x{2FDF}\x{0E40}-\x{0E7F}\x{0E80}-\x{0EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}"
            r"\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+",
            _DEEPSEEK3,
        )
    ),
    "youtu": PreTokenizer(
        _cut(
            r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+"
            r"|[\x{FF01}…“”\x{2018}\x{2019}—\x{FF1A}\x{FF1B}\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+"
            r"|[\x{3105}-\x{312F}]+|[一-\x{9FA5}\x{3040}-\x{30FF}]+",
            _O200K.replace(r"\p{N}{1,3}", r"\p{N}"),
        ),
        merge_all=False,
    ),
    "falcon": PreTokenizer(_FALCON),
    "bloom gpt3-finnish poro-chat": PreTokenizer(_cut(_BLOOM)),
    "viking": PreTokenizer(_cut(_BLOOM, r"\p{N}")),
    "tekken": PreTokenizer(_cut(_TEKKEN), merge_all=False, bos=True),
    "gpt-4o llama4 kanana2 talkie minimax-m2": PreTokenizer(_cut(_O200K)),
    "granite-embed-multi-97m": PreTokenizer(_cut(_O200K), merge_all=False),
    "tiny_aya cohere2moe": PreTokenizer(_cut(r"\d{1,3}(?=(?:\d{3})*\b)", _O200K)),
    "kimi-k2": PreTokenizer(_cut(_KIMI)),
    "superbpe": PreTokenizer(_cut(r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    "bailingmoe bailingmoe2 llada-moe": PreTokenizer(
        _cut(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
            r"|\s*[\r\n]" + _ENDS
        )
    ),
    "seed-coder": PreTokenizer(
        _cut(
            _CONTRACTIONS
            + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+"
            + _ENDS
        )
    ),
    "exaone-moe": PreTokenizer(
        _cut(
            _CONTRACTIONS
            + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
            + r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]"
            + _ENDS
        )
    ),
    "chameleon": PreTokenizer(
        _gpt2(
            *(
                pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
                for pattern in (
                    "<sentinel:[0-9]+>",
                    "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
                    "([\\t\\n]|    |  )",
                )
            ),
            _DIGITS,
            pre_tokenizers.Punctuation("isolated"),
        ),
        bos=True,
    ),
}
PRE_TOKENIZERS = {name: rule for names, rule in _RULES.items() for name in names.split()}
"""By llama.cpp's names (`tokenizer.ggml.pre`)."""


def byte_letters() -> list[str]:
    """The printable letter that byte-level BPE writes for each byte (Radford et al. 2019).

    >>> byte_letters()[32], byte_letters()[65]
    ('Ġ', 'A')
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(hidden)) for byte in range(256)]


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
