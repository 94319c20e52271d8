"""SentencePiece models (Kudo and Richardson 2018) as backends of the `tokenizers` library.

A model comes from a `tokenizer.model` or from the metadata of a GGUF file, which number the kinds
of pieces alike. https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

import dataclasses
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_SPACE = "▁"
_UNIGRAM, _BPE = 1, 2
_FLAGS = ("single_word", "lstrip", "rstrip")
_NEVER = 1e4
"""How far below all others the score is of a piece that is never chosen."""


@dataclasses.dataclass(frozen=True)
class SentencePieceModel:
    """Pieces, and what is done to a text before it is cut into them.

    Args:
      pieces: texts of the V tokens, by id.
      scores: of each, `[V]`: log probabilities, or the order of merges.
      kinds: of each, `[V]`, such as `NORMAL`.
      unigram: the most probable pieces; else neighbours are merged by score.
      unknown: the id for what no piece covers.
      byte_fallback: what no piece covers is written as bytes.
      charsmap: replacements of characters, compiled; empty is none.
      add_prefix: a space is put before a text.
      remove_spaces: runs of spaces become one, and none is at the ends.
      bos: the id that begins a text.
      eos: the id that ends one.

    >>> SentencePieceModel(
    ...     ["<unk>", "a"], [0.0, -1.0], [UNKNOWN, NORMAL], unigram=True
    ... ).add_prefix
    True
    """

    pieces: list[str]
    scores: list[float]
    kinds: list[int]
    unigram: bool
    unknown: int = 0
    byte_fallback: bool = False
    charsmap: bytes = b""
    add_prefix: bool = True
    remove_spaces: bool = False
    bos: int = 1
    eos: int = 2


def parse_model(data: bytes) -> SentencePieceModel:
    r"""Reads a `tokenizer.model`.

    Args:
      data: a `ModelProto`.

    Raises:
      ValueError: it is none, or of a kind that the `tokenizers` library cannot express.

    >>> parse_model(bytes.fromhex("0a080a0161150000803f1200")).pieces
    ['a']
    """
    pieces: list[dict[int, Any]] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(dict(_fields(value)))
        elif number in (2, 3):
            (trainer if number == 2 else normalizer).update(_fields(value))
    kind = trainer.get(3, _UNIGRAM)
    if not pieces or kind not in (_UNIGRAM, _BPE):
        raise ValueError(
            f"{len(pieces)} pieces of model type {kind}; unigram (1) or BPE (2) is read"
        )
    if trainer.get(24, 0) or not normalizer.get(5, 1):
        raise ValueError("spaces that end words, or stay spaces, are not supported")
    return SentencePieceModel(
        [piece[1].decode() for piece in pieces],
        [piece.get(2, 0.0) for piece in pieces],
        [piece.get(3, NORMAL) for piece in pieces],
        unigram=kind == _UNIGRAM,
        unknown=trainer.get(40, 0),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=normalizer.get(2, b""),
        add_prefix=bool(normalizer.get(3, 1)),
        remove_spaces=bool(normalizer.get(4, 1)),
        bos=trainer.get(41, 1),
        eos=trainer.get(42, 2),
    )


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protocol buffer message (https://protobuf.dev/programming-guides)."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            value -= (value >> 63) << 64  # negative numbers have 64 bits
        elif wire == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif wire == 5:
            value, at = struct.unpack_from("<f", data, at)[0], at + 4
        elif wire == 1:
            value, at = data[at : at + 8], at + 8
        else:
            raise ValueError("it is no SentencePiece model")
        if at > len(data):
            raise ValueError("it ends in the middle of a field")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError("it ends in the middle of a number")


def sentencepiece_backend(
    model: SentencePieceModel,
    first_only: bool = False,
    merges: list[tuple[str, str]] | None = None,
    added: Mapping[str, tokenizers.AddedToken] | None = None,
) -> tokenizers.Tokenizer:
    """The backend that cuts text as a SentencePiece model does.

    The control and user-defined pieces are found in text first, and so is the unknown one.

    Args:
      model: what was read.
      first_only: the space goes before a text only, not after special tokens in it too.
      merges: of BPE, the first first; default: by the scores.
      added: by their text, which spaces some pieces take with them.

    >>> model = SentencePieceModel(
    ...     ["<unk>", "▁", "a", "▁a"], [0, -1, -2, 0], [2, 1, 1, 1], False
    ... )
    >>> sentencepiece_backend(model).encode("a a").ids
    [3, 3]
    """
    backend = tokenizers.Tokenizer(_unigram(model) if model.unigram else _bpe(model, merges))
    prefix = model.add_prefix
    steps = _charsmap(model.charsmap)
    if model.remove_spaces:
        ends = tokenizers.Regex(rf"\A +|[ {_SPACE}]+\z")
        steps += [
            normalizers.Replace(ends, ""),
            normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
        ]
    # Pieces with spaces are found where the spaces have become theirs, if nothing else was done.
    unchanged = not steps
    if prefix and not first_only:
        steps.append(normalizers.Prepend(_SPACE))
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    if prefix and first_only:
        # A Metaspace adds no space where the text begins with one; the first of these two cannot
        # see it, because it looks for " ".
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Metaspace(replacement=" ", prepend_scheme="first", split=False),
                pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="never", split=False),
            ]
        )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefix else []),
        ]
    )
    special, plain = [], []
    for piece, kind in zip(model.pieces, model.kinds, strict=True):
        given = (added or {}).get(piece)
        flags = {flag: getattr(given, flag, False) for flag in _FLAGS}
        late = unchanged and not prefix and _SPACE in piece
        token = tokenizers.AddedToken(piece, normalized=late, **flags)
        if kind in (UNKNOWN, CONTROL):
            special.append(token)
        elif kind == USER_DEFINED and not (model.unigram and (unchanged or _SPACE in piece)):
            plain.append(token)
    backend.add_special_tokens(special)
    backend.add_tokens(plain)
    return backend


def _charsmap(charsmap: bytes) -> list:
    """Replacements of characters before all else.

    The library applies the map to each grapheme and drops what follows the first match in it, so
    that decomposed letters lose accents; composing them first leaves single characters to the map.
    """
    if not charsmap:
        return []
    step = normalizers.Precompiled(charsmap)
    steps: list = [step]
    if step.normalize_str("\ufb01") == "fi":
        steps.insert(0, normalizers.NFKC())
    elif step.normalize_str("e\u0301") == "é":
        steps.insert(0, normalizers.NFC())
    if step.normalize_str("\r") == " ":  # "\r\n" is one grapheme
        steps.insert(0, normalizers.Replace("\r", " "))
    return steps


def _unigram(model: SentencePieceModel) -> models.Unigram:
    """Kudo (2018), https://arxiv.org/abs/1804.10959."""
    lowest = min(
        (s for s, kind in zip(model.scores, model.kinds, strict=True) if kind == NORMAL),
        default=0.0,
    )
    vocab = []
    for piece, score, kind in zip(model.pieces, model.scores, model.kinds, strict=True):
        if kind == USER_DEFINED:  # SentencePiece's own choice, which wins over the parts
            score = 0.1 * (len(piece.encode()) - 1)
        elif kind != NORMAL:
            score = lowest - _NEVER
        vocab.append((piece, score))
    return models.Unigram(vocab, unk_id=model.unknown, byte_fallback=model.byte_fallback)


def _bpe(model: SentencePieceModel, merges: list[tuple[str, str]] | None) -> models.BPE:
    """What joins first is the pair whose whole has the highest score."""
    vocab = {piece: i for i, piece in enumerate(model.pieces)}
    if merges is None:
        spaces = lambda i: model.kinds[i] == USER_DEFINED and set(model.pieces[i]) == {_SPACE}
        joined = [i for i, k in enumerate(model.kinds) if k in (NORMAL, UNUSED) or spaces(i)]
        whole = {model.pieces[i] for i in joined}
        ranked = sorted(joined, key=lambda i: (not spaces(i), -model.scores[i]))
        merges = [pair for i in ranked for pair in _pairs(model.pieces[i], vocab, whole)]
    return models.BPE(
        vocab=vocab,
        merges=merges,
        unk_token=model.pieces[model.unknown],
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )


def _pairs(piece: str, vocab: dict[str, int], whole: set[str]) -> list[tuple[str, str]]:
    """The two pieces that a piece can be joined from, in all ways."""
    pairs = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
    pairs = [(a, b) for a, b in pairs if a in whole and b in whole]
    return sorted(pairs, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
