"""Windows of shuffled, joined documents, by index.

Shape letters: T tokens of a window.
"""

import dataclasses

import numpy as np

from lmdyn.data.token_store import Tokens
from lmdyn.data.windows import Batch
from lmdyn.errors import InputError, check_least


@dataclasses.dataclass(frozen=True)
class Packing:
    """How documents become batches of windows.

    Args:
      length: T, tokens of a window.
      batch: B, windows of a batch, over all hosts.
      end_of_text: the token after each document.
      attend_across: False: attention stays inside a document (batches carry `documents`).
      predict_across: False: the first token of a document does not count (it rests on another
        document).
      first: a token that takes the place of the first input of every window
        (`Tokenizer.window_token`); None leaves windows as they are.

    Raises:
      InputError: a length or a batch below 1.

    >>> Packing(length=0, batch=8, end_of_text=256)
    Traceback (most recent call last):
    lmdyn.errors.InputError: length=0; it must be at least 1
    """

    length: int
    batch: int
    end_of_text: int
    attend_across: bool = True
    predict_across: bool = True
    first: int | None = None

    def __post_init__(self) -> None:
        check_least(self, length=1, batch=1)


class PackedWindows:
    """Windows of shuffled, joined documents: `len(packed)`, `packed[i] -> Batch` without axis B.

    The ragged last window is left out.

    Args:
      tokens: the documents' tokens.
      packing: length, end of text, and what counts; its batch means nothing here.
      seed: of the order of documents.

    Raises:
      InputError: a text shorter than one window.

    >>> tokens = Tokens("abc", "", np.array([1, 2, 3, 4, 5], np.uint16), np.array([2, 5]))
    >>> packing = Packing(length=3, batch=1, end_of_text=0, predict_across=False)
    >>> packed = PackedWindows(tokens, packing, seed=1)
    >>> [packed[i].inputs.tolist() for i in range(len(packed))], packed[0].mask.tolist()
    ([[1, 2, 0], [3, 4, 5]], [True, True, False])
    """

    def __init__(self, tokens: Tokens, packing: Packing, seed: int) -> None:
        length = packing.length
        self.tokens, self.packing = tokens, packing
        self.order = np.random.default_rng(seed).permutation(len(tokens))
        sizes = np.diff(tokens.ends, prepend=0)[self.order] + 1
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        """`[documents + 1]`: where each begins in the stream; its end-of-text belongs to it."""
        if len(self) < 1:
            raise InputError(
                f"{tokens.name} has {self.starts[-1]} tokens, and one window of length {length}"
                f" needs {length + 1}; give more text, or a length of at most {self.starts[-1] - 1}"
            )

    def __len__(self) -> int:
        return int(self.starts[-1] - 1) // self.packing.length

    def __getitem__(self, index: int) -> Batch:
        length = self.packing.length
        start = int(index) * length
        stop = start + length + 1
        window, owner = np.empty(length + 1, np.int32), np.empty(length + 1, np.int32)
        # `owner` numbers the documents of a window from 0.
        first = document = int(np.searchsorted(self.starts, start, side="right")) - 1
        at = start
        while at < stop:
            ids = self.tokens[self.order[document]]
            inside = at - self.starts[document]
            taken = ids[inside : inside + stop - at]
            end = at + len(taken)
            window[at - start : end - start] = taken
            owner[at - start : end - start] = document - first
            if end < stop:
                window[end - start] = self.packing.end_of_text
                owner[end - start] = document - first
                end += 1
            at, document = end, document + 1
        across = self.packing.predict_across
        mask = np.ones(length, bool) if across else owner[:-1] == owner[1:]
        inputs, targets = window[:-1].copy(), window[1:]
        if self.packing.first is not None:
            inputs[0] = self.packing.first
        return Batch(inputs, targets, mask, owner[:-1])
