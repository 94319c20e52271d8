"""Text to token ids and back, through the `tokenizers` library: from Hugging Face files, GGUF
metadata, or bytes.

A `Tokenizer` never adds special tokens. Text that literally contains a special token, such as
"<|endoftext|>", becomes that token, as the library does it.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from lmdyn.errors import InputError, choose
from lmdyn.types import PathLike

END_OF_TEXT = "<|endoftext|>"


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to token ids and back.

    `backend`: of the `tokenizers` library. `end_of_text`: the id that ends a document. `name`: for
    reports.

    >>> tokenizer = byte_tokenizer()
    >>> tokenizer.encode("hi").tolist(), tokenizer.decode([104, 105])
    ([104, 105], 'hi')
    """

    backend: hf.Tokenizer
    end_of_text: int
    name: str

    def encode(self, text: str) -> np.ndarray:
        """The ids of `text`, `[N]` int32, without special tokens."""
        return np.asarray(
            self.backend.encode_batch_fast([text], add_special_tokens=False)[0].ids, np.int32
        )

    def encode_with_offsets(self, text: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """The ids of `text`, and for each the characters `[start, end)` that it stands for.

        >>> byte_tokenizer().encode_with_offsets("né")[1]
        [(0, 1), (1, 2), (1, 2)]
        """
        encoding = self.backend.encode(text, add_special_tokens=False)
        return np.asarray(encoding.ids, np.int32), encoding.offsets

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of token ids, special tokens included."""
        ids = np.asarray(ids)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocab:
            raise InputError(
                f"token id {ids.max() if ids.min() >= 0 else ids.min()} is outside 0 to"
                f" {self.vocab - 1} ({self.name})"
            )
        return self.backend.decode(ids.tolist(), skip_special_tokens=False)

    @functools.cached_property
    def vocab(self) -> int:
        """The largest id, plus one."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def to_json(self) -> str:
        """The contents of a `tokenizer.json`."""
        return self.backend.to_str()


def byte_tokenizer() -> Tokenizer:
    """One id for every byte, and 256 for the end of text.

    >>> byte_tokenizer().vocab, byte_tokenizer().encode("é<|endoftext|>").tolist()
    (257, [195, 169, 256])
    """
    letters = _byte_letters()
    backend = hf.Tokenizer(
        models.BPE(vocab={letter: byte for byte, letter in enumerate(letters)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([hf.AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return Tokenizer(backend, 256, "bytes")


def _byte_letters() -> list[str]:
    """The printable letter that byte-level BPE writes for each byte (Radford et al. 2019, GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(hidden)) for byte in range(256)]


def train_bpe(documents: Iterable[str], vocab: int, name: str = "bpe") -> Tokenizer:
    """A byte-level BPE learnt from text, cut into words as GPT-2's is. It can write any text: every
    byte has an id.

    The same documents in the same order give the same tokenizer.

    Args:
      documents: str, one a document, such as `lmdyn.data.documents` gives.
      vocab: how many ids, the 256 bytes and "<|endoftext|>" (id 0) included. Where the text has
        fewer words to merge, there are fewer: see `Tokenizer.vocab`.
      name: for reports.

    Raises:
      InputError: a vocab below 257, documents without text, or one that cannot be read.

    >>> tokenizer = train_bpe(["low lower lowest"] * 3, vocab=259)
    >>> (
    ...     tokenizer.vocab,
    ...     tokenizer.end_of_text,
    ...     [tokenizer.decode([i]) for i in tokenizer.encode("low, é")],
    ... )
    (259, 0, ['low', ',', ' ', '\ufffd', '\ufffd'])
    """
    if isinstance(documents, str):
        raise InputError(
            "train_bpe takes a sequence of documents, not one text; give [text] or"
            " documents(reference)"
        )
    if vocab < 257:
        raise InputError(
            f"vocab={vocab} of a byte-level BPE; 256 bytes and {END_OF_TEXT} need 257, so give more"
        )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend = _byte_level(models.BPE(), PRE_TOKENIZERS["gpt-2"])
    found, failed = 0, []

    def texts():  # an exception must not cross the library, which would change its type
        nonlocal found
        try:
            for text in documents:
                found += bool(text)
                yield from text.split(END_OF_TEXT)  # which is a token and no text to learn from
        except InputError as err:
            failed.append(err)

    backend.train_from_iterator(texts(), trainer)
    if failed:
        raise failed[0]
    if not found:
        raise InputError(
            f"{getattr(documents, 'reference', 'the text')} has no text to learn a BPE from"
        )
    return _finish(backend, None, name, name)


def from_file(
    path: PathLike, end_of_text: str | int | None = None, name: str | None = None
) -> Tokenizer:
    """A tokenizer from a `tokenizer.json`.

    Args:
      path: the file.
      end_of_text: token or id to use when the vocabulary has no "<|endoftext|>".
      name: for reports; default the name of the folder.

    Raises:
      InputError: no such file, a file that is no tokenizer, or one with no token that ends a text.
    """
    path = pathlib.Path(path)
    try:
        backend = hf.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(f"{path}: {err.strerror or err}") from err
    except Exception as err:  # the library raises bare Exception
        raise InputError(f"{path} is no tokenizer.json: {_one_line(err)}") from err
    return _finish(backend, end_of_text, name or path.resolve().parent.name, str(path))


def from_folder(folder: PathLike, name: str | None = None) -> Tokenizer:
    """The tokenizer of a Hugging Face folder: `tokenizer.json`, or else `vocab.json` with
    `merges.txt`.

    The end of text, where there is no "<|endoftext|>", is the eos token of `tokenizer_config.json`,
    `special_tokens_map.json`, `generation_config.json` or `config.json`, whichever names one first.

    Raises:
      InputError: the folder holds neither, or they do not fit together.
    """
    folder = pathlib.Path(folder)
    name = name or folder.resolve().name
    end = _end_of_text(folder)
    if (folder / "tokenizer.json").is_file():
        return from_file(folder / "tokenizer.json", end, name)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        try:
            model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
        except Exception as err:
            raise InputError(
                f"{folder}: vocab.json and merges.txt are no tokenizer: {_one_line(err)}"
            ) from err
        backend = _byte_level(model, PRE_TOKENIZERS["gpt-2"])
        if backend.token_to_id(END_OF_TEXT) is not None:
            backend.add_special_tokens([END_OF_TEXT])
        return _finish(backend, end, name, str(folder))
    raise InputError(
        f"{folder} has no tokenizer.json; make one with"
        " AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
    )


def _end_of_text(folder: pathlib.Path) -> str | int | None:
    keys = {
        "tokenizer_config.json": "eos_token",
        "special_tokens_map.json": "eos_token",
        "generation_config.json": "eos_token_id",
        "config.json": "eos_token_id",
    }
    for file, key in keys.items():
        if not (folder / file).is_file():
            continue
        try:
            found = json.loads((folder / file).read_text(encoding="utf-8")).get(key)
        except (OSError, ValueError, AttributeError) as err:
            raise InputError(f"{folder / file} is no JSON object: {_one_line(err)}") from err
        found = found.get("content") if isinstance(found, dict) else found
        found = found[0] if isinstance(found, list) and found else found
        if isinstance(found, (str, int)):
            return found
    return None


def _finish(backend: hf.Tokenizer, end_of_text, name: str, source: str) -> Tokenizer:
    backend.no_truncation()
    backend.no_padding()
    found = backend.token_to_id(END_OF_TEXT)
    if found is None:
        found = backend.token_to_id(end_of_text) if isinstance(end_of_text, str) else end_of_text
    if found is None or backend.id_to_token(found) is None:
        raise InputError(
            f"{source}: no token ends a text: neither {END_OF_TEXT} nor an eos token; give"
            " end_of_text="
        )
    return Tokenizer(backend, int(found), name)


_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CL100K = (
    _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _CL100K.replace(r"\p{N}{1,3}", r"\p{N}")


def _split(pattern: str):
    return [
        pre_tokenizers.Split(hf.Regex(pattern), behavior="isolated"),
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
class _Pre:
    """How text is cut before merging; `merge_all`: False where whole words of the vocabulary skip
    the merges.
    """

    split: tuple
    normalizer: object = None
    merge_all: bool = True


# By the names that llama.cpp gives them in `tokenizer.ggml.pre`; the rules are those of the models'
# own tokenizer.json.
PRE_TOKENIZERS = {
    **dict.fromkeys(
        ("default", "gpt-2", "gpt2", "phi-2", "mpt", "jais", "trillion", "roberta-bpe"),
        _Pre((*_gpt2(),)),
    ),
    **dict.fromkeys(
        ("olmo", "gpt-neox", "gptneox", "stablelm"), _Pre((*_gpt2(),), normalizers.NFC())
    ),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
        _Pre((*_digits(),)),
    ),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3"), _Pre((*_split(_CL100K),), merge_all=False)
    ),
    **dict.fromkeys(("dbrx", "olmo2", "smaug-bpe"), _Pre((*_split(_CL100K),))),
    **dict.fromkeys(
        ("qwen2", "qwen3", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan"),
        _Pre((*_split(_QWEN2),), normalizers.NFC()),
    ),
}
_CONTROL, _USER_DEFINED = 3, 4


def _byte_level(model: models.BPE, pre: _Pre) -> hf.Tokenizer:
    backend = hf.Tokenizer(model)
    if pre.normalizer is not None:
        backend.normalizer = pre.normalizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(list(pre.split))
    backend.decoder = decoders.ByteLevel()
    return backend


def from_gguf(fields: dict, name: str = "gguf") -> Tokenizer:
    """The tokenizer that the metadata of a GGUF file describes.

    Args:
      fields: plain values by key; those that start with "tokenizer.ggml." are read.
      name: for reports.

    Raises:
      InputError: a kind of tokenizer or pre-tokenizer that is not known, or fields that are
        missing.
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
            f"{name}: the tokenizer of this GGUF cannot be built: {_one_line(err)}"
        ) from err
    special = [
        hf.AddedToken(t, special=True, normalized=False)
        for t, k in zip(tokens, types, strict=False)
        if k == _CONTROL
    ]
    backend.add_special_tokens(special)
    backend.add_tokens(
        [
            hf.AddedToken(t, normalized=False)
            for t, k in zip(tokens, types, strict=False)
            if k == _USER_DEFINED
        ]
    )
    return _finish(backend, get("eos_token_id"), name, name)


def _gguf_byte_level(fields: dict, tokens: list[str], get) -> hf.Tokenizer:
    pre = get("pre", "default")
    if pre == "default" and fields.get("general.architecture") in ("qwen2", "qwen3"):
        pre = "qwen2"
    pre = PRE_TOKENIZERS[choose("tokenizer.ggml.pre", pre, PRE_TOKENIZERS)]
    if get("merges") is None:
        raise InputError("tokenizer.ggml.merges is missing; this GGUF has no usable tokenizer")
    merges = [tuple(merge.split(" ", 1)) for merge in get("merges")]
    vocab = {token: i for i, token in enumerate(tokens)}
    return _byte_level(models.BPE(vocab=vocab, merges=merges, ignore_merges=not pre.merge_all), pre)


def _gguf_sentencepiece(fields: dict, tokens: list[str], get) -> hf.Tokenizer:
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
    backend = hf.Tokenizer(
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


def _one_line(err: Exception) -> str:
    return " ".join(str(err).split())
