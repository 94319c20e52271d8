"""What the tokenizer classes of `transformers` and of the models' own code do."""

import dataclasses

from lmdyn.data.tokenizers.tokenizer import END_OF_TEXT


@dataclasses.dataclass(frozen=True)
class TokenizerClass:
    """What a class does where the files do not say.

    Args:
      rule: how text is cut: a key of `byte_level.PRE_TOKENIZERS`; of no use to SentencePiece.
      bos: the token that begins a text.
      eos: the token that ends one.
      adds_bos: whether texts begin with it.
      added: the tokens beside the vocabulary, in the order of their ids.

    >>> MERGES["Qwen2Tokenizer"].rule
    'qwen2'
    """

    rule: str = ""
    bos: str | None = None
    eos: str | None = None
    adds_bos: bool = False
    added: tuple[str, ...] = ()


def _llama3() -> tuple[str, ...]:
    names = "begin_of_text end_of_text {} {} finetune_right_pad_id {} start_header_id end_header_id"
    names = f"{names} eom_id eot_id python_tag".replace("{}", "reserved_special_token_{}")
    reserved = iter(range(256))
    found = [name.format(next(reserved)) if "{" in name else name for name in names.split()]
    found += [f"reserved_special_token_{next(reserved)}" for _ in range(256 - len(found))]
    return tuple(f"<|{name}|>" for name in found)


_GPT2 = TokenizerClass("gpt-2", END_OF_TEXT, END_OF_TEXT)
MERGES = {
    "GPT2Tokenizer": _GPT2,
    "CodeGenTokenizer": _GPT2,
    "GPTNeoXTokenizer": TokenizerClass("gpt-neox", END_OF_TEXT, END_OF_TEXT),
    "Qwen2Tokenizer": TokenizerClass("qwen2", None, END_OF_TEXT),
    "Qwen3_5Tokenizer": TokenizerClass("qwen35", None, END_OF_TEXT),
    "CohereTokenizer": TokenizerClass(
        "command-r", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", adds_bos=True
    ),
    "BloomTokenizer": TokenizerClass("bloom", "<s>", "</s>"),
}
"""Classes that read `vocab.json` and `merges.txt`."""
_PLAIN, _WITH_BOS = TokenizerClass(), TokenizerClass(adds_bos=True)
SENTENCEPIECE = {
    **dict.fromkeys(("PreTrainedTokenizer", "TokenizersBackend"), _PLAIN),
    **dict.fromkeys(
        (
            "LlamaTokenizer",
            "CodeLlamaTokenizer",
            "GemmaTokenizer",
            "BaichuanTokenizer",
            "InternLMTokenizer",
            "InternLM2Tokenizer",
            "OrionTokenizer",
        ),
        _WITH_BOS,
    ),
    "T5Tokenizer": TokenizerClass(added=tuple(f"<extra_id_{i}>" for i in range(100))),
}
"""Classes that read a SentencePiece model, whose bos and eos are theirs."""
RANKS = {
    "LlamaTokenizer": TokenizerClass(
        "llama-bpe", "<|begin_of_text|>", "<|end_of_text|>", True, _llama3()
    ),
    "Llama4Tokenizer": TokenizerClass("llama4", "<|begin_of_text|>", "<|end_of_text|>", True),
    "QWenTokenizer": TokenizerClass(
        "qwen2",
        None,
        END_OF_TEXT,
        added=(
            *(END_OF_TEXT, "<|im_start|>", "<|im_end|>"),
            *(f"<|extra_{i}|>" for i in range(205)),
        ),
    ),
    "ChatGLM4Tokenizer": TokenizerClass("glm4", None, END_OF_TEXT),
    "TikTokenTokenizer": TokenizerClass("kimi-k2", "[BOS]", "[EOS]"),
    "HYTokenizer": TokenizerClass("hunyuan", None, END_OF_TEXT),
}
"""Classes that read tiktoken's ranks."""
MODEL_CLASSES = {
    **dict.fromkeys(("gpt2", "gptj", "gpt_neo", "opt", "phi"), "GPT2Tokenizer"),
    "codegen": "CodeGenTokenizer",
    **dict.fromkeys(("gpt_neox", "olmo", "olmoe"), "GPTNeoXTokenizer"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2Tokenizer"),
    **dict.fromkeys(("cohere", "cohere2"), "CohereTokenizer"),
    "bloom": "BloomTokenizer",
    **dict.fromkeys(("llama", "mistral", "mixtral"), "LlamaTokenizer"),
    **dict.fromkeys(("llama4", "llama4_text"), "Llama4Tokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    "baichuan": "BaichuanTokenizer",
    "internlm": "InternLMTokenizer",
    "internlm2": "InternLM2Tokenizer",
    "orion": "OrionTokenizer",
    "qwen": "QWenTokenizer",
    "chatglm": "ChatGLM4Tokenizer",
    "kimi_k2": "TikTokenTokenizer",
    "hunyuan": "HYTokenizer",
}
"""The class of a kind of model, where none, or no particular one, is named."""
