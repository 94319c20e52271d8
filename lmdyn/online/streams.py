"""A text as a stream of chunks.

Chunks tile the stream: the last token of one chunk is the first input of the next, so that every
token but the first of the stream (or, with resets, of each document) is predicted exactly once.
Shape letters: n chunks, C predictions a chunk, W tokens of an overlap window.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from lmdyn.costs import ChunkSizes
from lmdyn.data import join
from lmdyn.errors import InputError, choose
from lmdyn.online.contexts import Context

RESETS = ("never", "document")


class Stream(NamedTuple):
    """Chunks in order, as NumPy arrays. Made by `stream`.

    Attributes:
      inputs: `[n, C]` int32; with an overlap window `[n, W]`, the chunk's own inputs last.
      positions: `[n, W]` int32 positions within the window, -1 where the window reaches before the
        start; None for other contexts.
      targets: `[n, C]` int32.
      mask: `[n, C]`: False where a document's last chunk is filled up: with padding behind it, or,
        in an overlap window, with tokens before it that were scored already.
      first: `[n]`: True where a stream, or with resets a document, begins.
    """

    inputs: np.ndarray
    positions: np.ndarray | None
    targets: np.ndarray
    mask: np.ndarray
    first: np.ndarray

    @property
    def tokens(self) -> int:
        """N, the number of predictions."""
        return int(self.mask.sum())

    def sizes(self, context: Context) -> ChunkSizes:
        """What the costs of its evaluation follow from (`lmdyn.costs.evaluation_flops`)."""
        cached = context.window if context.kind == "cache" else 0
        return ChunkSizes(len(self.first), self.inputs.shape[1], self.targets.shape[1], cached)


def _chunks(tokens: np.ndarray, chunk: int, context: Context):
    predictions = len(tokens) - 1
    count = -(-predictions // chunk)
    fill = count * chunk - predictions
    mask = np.arange(count * chunk) < predictions
    inputs, targets = np.pad(tokens[:-1], (0, fill)), np.pad(tokens[1:], (0, fill))
    shape = (count, chunk)
    first = np.arange(count) == 0
    if context.kind != "overlap":
        return inputs.reshape(shape), None, targets.reshape(shape), mask.reshape(shape), first
    ends = np.minimum(chunk * (1 + np.arange(count)), predictions)[:, None]
    index = ends - context.window + np.arange(context.window)[None]
    positions = np.where(index >= 0, index - np.maximum(ends - context.window, 0), -1)
    own = index[:, -chunk:]
    mask = own >= chunk * np.arange(count)[:, None]
    return tokens[np.maximum(index, 0)], positions, tokens[np.maximum(own + 1, 0)], mask, first


def stream(
    documents: Sequence[np.ndarray] | np.ndarray,
    *,
    chunk: int,
    context: Context,
    reset: str = "never",
    end_of_text: int | None = None,
    tokens: int | None = None,
) -> Stream:
    """Cuts documents into chunks.

    Args:
      documents: token ids, one integer array a document (or one array alone).
      chunk: C.
      context: how much each chunk sees; an overlap's windows are laid out here.
      reset: `never` joins the documents by `end_of_text` into one stream; `document` keeps them
        apart, and no chunk crosses from one into the next.
      end_of_text: needed to join two documents or more.
      tokens: stop after this many predictions.

    Raises:
      InputError: nothing to predict, an unknown reset, or documents that cannot be joined.

    >>> from lmdyn.online import none
    >>> s = stream(np.arange(8), chunk=3, context=none())
    >>> s.inputs.tolist(), s.targets.tolist(), s.tokens
    ([[0, 1, 2], [3, 4, 5], [6, 0, 0]], [[1, 2, 3], [4, 5, 6], [7, 0, 0]], 7)
    """
    choose("reset", reset, RESETS)
    if isinstance(documents, np.ndarray):
        documents = [documents]
    if tokens is not None and tokens < 1:
        raise InputError(f"tokens={tokens}: at least 1 prediction is needed")
    documents = [np.asarray(document, np.int32) for document in documents]
    if reset == "never" and len(documents) > 1:
        if end_of_text is None:
            raise InputError(
                f"{len(documents)} documents and no end-of-text token to join them by; give"
                " end_of_text, or reset='document'"
            )
        documents = [join(documents, end_of_text)]
    left, parts = np.inf if tokens is None else tokens, []
    for document in documents:
        document = document[: int(min(len(document), left + 1))]
        if len(document) > 1:
            parts.append(_chunks(document, chunk, context))
            left -= len(document) - 1
        if left < 1:
            break
    if not parts:
        raise InputError(
            "the text has fewer than 2 tokens, so there is nothing to predict; give a longer text"
        )
    inputs, positions, targets, mask, first = zip(*parts, strict=True)
    joined = [
        None if part[0] is None else np.concatenate(part)
        for part in (inputs, positions, targets, mask, first)
    ]
    return Stream(*cast(Any, joined))
