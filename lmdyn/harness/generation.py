"""What a request and a model's `generation_config.json` say about how a text is continued."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError

DEFAULT_TOKENS = 256
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of the number of tokens, the first that is given counts."""
_NEUTRAL = {
    "num_beams": (1,),
    "no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "penalty_alpha": (0,),
    "guidance_scale": (1,),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "bad_words_ids": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "sequence_bias": ({},),
}
"""What changes greedy decoding and is not there, with the values that change nothing."""


class Continuation(NamedTuple):
    """How one text is continued. Made by `read_options`."""

    tokens: int
    """at most"""
    until: list[str]
    """texts that end it, themselves left out"""
    eos: frozenset[int]
    """tokens that end it"""
    penalty: float
    """of tokens that stand in the text already: logits above 0 are divided by it, others multiplied
    (Keskar et al. 2019, arXiv 1909.05858)"""


def read_options(
    given: Mapping[str, Any], tokenizer: Tokenizer, eos: int, length: int
) -> Continuation:
    """How a request wants its text to be continued, by what came with the model where it says not.

    Args:
      given: the request's `gen_kwargs`.
      tokenizer: of the model, with the files of its folder.
      eos: the token that ends a text where the files say nothing; its text also ends one.
      length: T at most, context included.

    Raises:
      InputError: sampling, or another way to decode that is not there; a number of tokens that does
        not fit.

    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> read_options({"until": "a", "max_gen_toks": 4}, byte_tokenizer(), 256, 16)
    Continuation(tokens=4, until=['a', '<|endoftext|>'], eos=frozenset({256}), penalty=1.0)
    """
    name = "generation_config.json"
    name = name if name in tokenizer.files else "config.json"
    config = json.loads(tokenizer.files.get(name, b"{}"))
    temperature = float(given.get("temperature") or 0.0)
    if given.get("do_sample", temperature > 0) and temperature != 0:
        raise InputError(
            f"temperature={temperature}: only greedy decoding is there; use do_sample=false"
        )
    for where, values in (("the request", given), (name, config)):
        for key in values.keys() & _NEUTRAL:
            if values[key] is not None and values[key] not in _NEUTRAL[key]:
                raise InputError(
                    f"{key}={values[key]} in {where}: only plain greedy decoding is there, with"
                    " repetition_penalty; leave it out"
                )
    default = DEFAULT_TOKENS if length > DEFAULT_TOKENS else length // 2
    limits = [given[key] for key in _LIMITS if given.get(key) is not None]
    tokens = int(limits[0] if limits else default)
    if not 0 < tokens < length:
        raise InputError(f"max_gen_toks={tokens}; it must be at least 1 and below length={length}")
    until = given.get("until") or []
    until = [until] if isinstance(until, str) else list(until)
    ends = config.get("eos_token_id", eos if "eos_token_id" not in config else None)
    ends = ends if isinstance(ends, list) else [ends]
    penalty = given.get("repetition_penalty", config.get("repetition_penalty")) or 1.0
    return Continuation(
        tokens,
        [stop for stop in (*until, tokenizer.decode([eos])) if stop],
        frozenset(end for end in ends if end is not None),
        float(penalty),
    )


def cut_at(text: str, stops: list[str]) -> str:
    """A text up to the first of some others, one after another.

    >>> cut_at("one two three", ["three", "two"])
    'one '
    """
    for stop in stops:
        text = text.split(stop)[0]
    return text
