"""Documents to tokens to windows.

The rule, for a stream of N + 1 tokens and windows of T: window i has the inputs `stream[i*T :
(i+1)*T]` and the targets `stream[i*T+1 : (i+1)*T+1]`. The last target of a window is the first
input of the next, so every token but the very first is predicted exactly once.

Shape letters: B batch, T tokens of a window, N predictions.
"""

import dataclasses
import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from lmdyn.data.lazy_documents import Documents
from lmdyn.data.sources.parser import documents
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError

if TYPE_CHECKING:
    from lmdyn.models import ModelConfig


class Batch(NamedTuple):
    """B windows of T tokens, made by `windows`.

    Where `mask` is False, ids are 0 and nothing may count.
    """

    inputs: np.ndarray
    """[B, T] int32"""
    targets: np.ndarray
    """[B, T] int32: the token after each input"""
    mask: np.ndarray
    """[B, T] bool: which predictions count"""
    documents: np.ndarray | None = None
    """[B, T] int32: the document of each input, where attention stays inside it; else None"""


@dataclasses.dataclass(frozen=True)
class Windows:
    """A stream cut into batches of windows: `len(windows)`, `windows[i] -> Batch`.

    Made by `windows` or `batches`. `tokens` is the number of predictions, N.
    """

    stream: np.ndarray
    """[N + 1] int32"""
    length: int
    batch: int
    first: int | None = None
    """a token that takes the place of the first input of every window"""

    @property
    def tokens(self) -> int:
        """N, how many predictions are made.

        >>> windows(np.arange(7), length=3).tokens
        6
        """
        return len(self.stream) - 1

    @property
    def count(self) -> int:
        """How many windows there are, the ragged last one included.

        >>> windows(np.arange(7), length=4).count
        2
        """
        return -(-self.tokens // self.length)

    def __len__(self) -> int:
        return -(-self.count // self.batch)

    def __iter__(self) -> Iterator[Batch]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Batch:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        size = self.batch * self.length
        start = (index % len(self)) * size
        taken = self.stream[start : start + size + 1]
        filled = len(taken) - 1
        padded = np.zeros((2, size), np.int32)
        padded[0, :filled], padded[1, :filled] = taken[:-1], taken[1:]
        inputs, targets = padded.reshape(2, self.batch, self.length)
        mask = (np.arange(size) < filled).reshape(self.batch, self.length)
        if self.first is not None:
            inputs[mask[:, 0], 0] = self.first
        return Batch(inputs, targets, mask)


def tokenize(
    source: str | Sequence[str],
    tokenizer: Tokenizer,
    tokens: int | None = None,
    progress: bool = False,
    on_bad_document: str = "error",
) -> list[np.ndarray]:
    """Each document's tokens. Documents that give none are left out.

    Args:
      source: a text reference (see `documents`) or a sequence of str.
      tokenizer: has `encode(text) -> [n] int32` and `document_token`, which is put first.
      tokens: stop after the document in which the stream reaches this many predictions; None reads
        everything.
      progress: a bar on stderr, from two seconds on.
      on_bad_document: `error` or `skip`, see `documents`.

    Returns:
      A list of [n] int32 arrays.

    Raises:
      InputError: no document has a token, or one cannot be read.

    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> [d.tolist() for d in tokenize(["ab", "", "c"], byte_tokenizer())]
    [[97, 98], [99]]
    """
    name = source if isinstance(source, str) else getattr(source, "reference", "the text")
    source = documents(source, on_bad_document) if isinstance(source, str) else source
    first = tokenizer.document_token
    result, total = [], -1
    for text in tqdm(
        source, desc="tokenizing", unit="doc", delay=2, leave=False, disable=not progress
    ):
        ids = np.asarray(tokenizer.encode(text), np.int32)
        if len(ids):
            ids = ids if first is None else np.concatenate([[first], ids]).astype(np.int32)
            result.append(ids)
            total += len(ids) + (len(result) > 1)
        if tokens is not None and total >= tokens:
            break
    if isinstance(source, Documents):
        source.warn()
    if not result:
        raise InputError(
            f"{name} has no text: {len(source)} documents and not one token; give a text with at"
            " least one window of tokens"
        )
    return result


def join(docs: Sequence[np.ndarray], end_of_text: int) -> np.ndarray:
    """One stream of all documents, with the end-of-text token between them (not at the ends).

    Args:
      docs: [n] int32 arrays.
      end_of_text: the id put between documents.

    Returns:
      [N + 1] int32.

    >>> join([np.array([1, 2]), np.array([3])], end_of_text=0).tolist()
    [1, 2, 0, 3]
    """
    between = np.array([end_of_text], np.int32)
    parts = itertools.chain.from_iterable((between, np.asarray(d, np.int32)) for d in docs)
    return np.concatenate(list(parts)[1:] or [np.zeros(0, np.int32)])


def windows(
    stream: np.ndarray,
    length: int,
    batch: int = 1,
    tokens: int | None = None,
    first: int | None = None,
) -> Windows:
    """Cuts a stream into windows, every token but the very first predicted exactly once.

    Args:
      stream: [N + 1] token ids.
      length: T, inputs of one window.
      batch: B, windows of one batch; the last batch is padded to B windows and masked.
      tokens: stop after this many predictions; None, or more than there are, takes all.
      first: a token that is put before every window; the very first token is then predicted, too.

    Returns:
      A sequence of `Batch`.

    Raises:
      InputError: a number below 1, ids that are negative or no integers, or a text shorter than one
        window.

    >>> cut = windows(np.arange(7), length=3, batch=1)
    >>> cut.tokens, len(cut), cut[1].inputs.tolist(), cut[1].targets.tolist()
    (6, 2, [[3, 4, 5]], [[4, 5, 6]])
    """
    for name, value in (
        ("length", length),
        ("batch", batch),
        ("tokens", 1 if tokens is None else tokens),
    ):
        if value < 1:
            raise InputError(f"{name}={value}; it must be at least 1")
    stream = np.asarray(stream)
    if stream.ndim != 1 or not np.issubdtype(stream.dtype, np.integer):
        raise InputError(
            f"a stream is one row of integer token ids, not {stream.dtype} of shape {stream.shape}"
        )
    check_tokens(stream, np.iinfo(np.int32).max)
    need = min(length, tokens or length)
    if len(stream) < need + 1:
        raise InputError(
            f"the text has {len(stream)} tokens, and one window of length {length} needs"
            f" {need + 1}; give more text, or a length of at most {max(len(stream) - 1, 1)}"
        )
    if first is not None:  # before the very first token, which is predicted then
        stream = np.concatenate([[first], stream])
    stream = stream[: None if tokens is None else tokens + 1].astype(np.int32)
    return Windows(stream, length, batch, first)


def batches(
    ref: str | Sequence[str],
    tokenizer: Tokenizer,
    length: int = 512,
    batch: int = 8,
    tokens: int | None = None,
    progress: bool = False,
    on_bad_document: str = "error",
) -> Windows:
    """A text reference to batches of windows: `tokenize`, `join` and `windows` in one call.

    Args:
      ref: a text reference (see `documents`) or a sequence of str.
      tokenizer: the model's; `Tokenizer.with_bos` chooses where a beginning-of-text token is put.
      length: T, inputs of one window.
      batch: B, windows of one batch.
      tokens: stop after this many predictions; None takes all.
      progress: a bar on stderr, from two seconds on.
      on_bad_document: `error` or `skip`, see `documents`.

    Returns:
      A sequence of `Batch`.

    Raises:
      InputError: see `documents`, `tokenize` and `windows`.

    >>> from lmdyn.data import tokenizers
    >>> batches(["to be or not to be"], tokenizers.byte_tokenizer(), length=5, batch=2).tokens
    17
    """
    docs = tokenize(ref, tokenizer, tokens, progress, on_bad_document)
    stream = join(docs, tokenizer.end_of_text)
    return windows(stream, length, batch, tokens, tokenizer.window_token)


def check_tokens(ids: np.ndarray, vocab: int) -> None:
    """Raises an `InputError` that names the first token id outside 0 to vocab - 1.

    >>> check_tokens(np.array([3, 11]), vocab=11)
    Traceback (most recent call last):
    lmdyn.errors.InputError: token id 11 at position 1 is outside the vocabulary of 11; ids are 0
    to 10
    """
    ids = np.asarray(ids).reshape(-1)
    outside = np.flatnonzero((ids < 0) | (ids >= vocab))
    if len(outside):
        raise InputError(
            f"token id {ids[outside[0]]} at position {outside[0]} is outside the vocabulary of"
            f" {vocab}; ids are 0 to {vocab - 1}"
        )


def check_vocabulary(tokenizer: Tokenizer, config: "ModelConfig") -> None:
    """Raises an `InputError` when a tokenizer can make ids that the model has no embedding for.

    Args:
      tokenizer: has `vocab`, its largest id + 1.
      config: a `ModelConfig`, or anything with `vocab`.

    >>> from lmdyn.data import tokenizers
    >>> from lmdyn.models import ModelConfig
    >>> small = ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> try:
    ...     check_vocabulary(tokenizers.byte_tokenizer(), small)
    ... except InputError as err:
    ...     print("refused")
    refused
    """
    if tokenizer.vocab > config.vocab:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab} ids and the model's embedding {config.vocab}; use"
            " the tokenizer that belongs to the model"
        )
