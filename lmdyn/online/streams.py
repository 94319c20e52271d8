"""A text as a stream of chunks.

Chunks tile the stream: the last token of one chunk is the first input of the next, so that every
token but the first of the stream (or, with resets, of each document) is predicted exactly once.
Shape letters: n chunks, C predictions of a chunk, W tokens of an overlap window, N predictions.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from lmdyn.costs import ChunkSizes
from lmdyn.data import join
from lmdyn.errors import InputError
from lmdyn.online.config import OnlineConfig
from lmdyn.online.contexts import Context


class ChunkStream(NamedTuple):
    """Chunks in order, as NumPy arrays. Made by `chunk_stream`.

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


def chunk_stream(
    documents: ChunkStream | Sequence[np.ndarray] | np.ndarray, config: OnlineConfig
) -> ChunkStream:
    """Cuts documents into chunks.

    Args:
      documents: token ids, one integer array per document (or one array alone); a `ChunkStream` is
        returned as it is.
      config: `chunk`, `context`, `tokens`, `first`; `reset="document"` keeps documents apart, so
        that no chunk crosses from one into the next; otherwise `end_of_text` joins them.

    Raises:
      InputError: nothing to predict, or documents that cannot be joined.

    >>> s = chunk_stream(np.arange(8), OnlineConfig(chunk=3))
    >>> s.inputs.tolist(), s.targets.tolist(), s.tokens
    ([[0, 1, 2], [3, 4, 5], [6, 0, 0]], [[1, 2, 3], [4, 5, 6], [7, 0, 0]], 7)
    """
    if isinstance(documents, ChunkStream):
        return documents
    if isinstance(documents, np.ndarray):
        documents = [documents]
    documents = [np.asarray(document, np.int32) for document in documents]
    # Documents are one stream, unless the model is reset at each.
    if config.reset != "document" and len(documents) > 1:
        if config.end_of_text is None:
            raise InputError(
                f"{len(documents)} documents and no end-of-text token to join them by; give"
                " end_of_text, or reset='document'"
            )
        documents = [join(documents, config.end_of_text)]
    # n + 1 tokens make n predictions; `left` counts those that may still be made.
    left, parts = np.inf if config.tokens is None else config.tokens, []
    for document in documents:
        if config.first is not None:
            document = np.concatenate([[config.first], document]).astype(np.int32)
        document = document[: int(min(len(document), left + 1))]
        if len(document) > 1:
            parts.append(_chunks(document, config))
            left -= len(document) - 1
        if left < 1:
            break
    if not parts:
        raise InputError(
            "the text has fewer than 2 tokens, so there is nothing to predict; give a longer text"
        )
    fields = [
        None if arrays[0] is None else np.concatenate(arrays) for arrays in zip(*parts, strict=True)
    ]
    return ChunkStream(*cast(Any, fields))


def _chunks(tokens: np.ndarray, config: OnlineConfig) -> tuple:
    """The fields of one document's `ChunkStream`."""
    predictions, chunk, context = len(tokens) - 1, config.chunk, config.context
    count = -(-predictions // chunk)
    first_n = np.arange(count) == 0
    if context.kind != "overlap":  # the last chunk is padded at its end
        fill, shape = count * chunk - predictions, (count, chunk)
        inputs_nC, targets_nC = (
            np.pad(ids, (0, fill)).reshape(shape) for ids in (tokens[:-1], tokens[1:])
        )
        mask_nC = (np.arange(count * chunk) < predictions).reshape(shape)
        if config.first is not None and context.kind == "none":
            inputs_nC[:, 0] = config.first
        return inputs_nC, None, targets_nC, mask_nC, first_n
    # A window ends where its chunk does; the last one is filled with tokens before its chunk.
    ends_n1 = np.minimum(chunk * (1 + np.arange(count)), predictions)[:, None]
    index_nW = ends_n1 - context.window + np.arange(context.window)[None]
    begins_n1 = np.maximum(ends_n1 - context.window, 0)
    positions_nW = np.where(index_nW >= 0, index_nW - begins_n1, -1)
    own_nC = index_nW[:, -chunk:]
    mask_nC = own_nC >= chunk * np.arange(count)[:, None]
    targets_nC = tokens[np.maximum(own_nC + 1, 0)]
    inputs_nW = tokens[np.maximum(index_nW, 0)]
    if config.first is not None:
        inputs_nW[positions_nW == 0] = config.first
    return inputs_nW, positions_nW, targets_nC, mask_nC, first_n
