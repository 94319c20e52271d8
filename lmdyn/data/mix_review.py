"""Old text that is read again while new text is learned: MixReview (He et al. 2021, 1910.07117).

In epoch e of the new text, counted from 0, `ratio * decay^e` old windows come to each new one.
"""

import dataclasses
from typing import Any

import numpy as np

from lmdyn.data.token_store import Tokens
from lmdyn.errors import InputError

ENDLESS = 2**60
"""Windows in a stream: without an end for any run, and still a length that Python can hold."""


@dataclasses.dataclass(frozen=True, eq=False)
class MixReview:
    """Old text that is read again while new text is learned (He et al. 2021, arXiv 1910.07117).

    In epoch e of the new text, counted from 0, `ratio * decay^e` old windows come to each new one.

    Args:
      tokens: the old text.
      ratio: old windows per new one in epoch 0.
      decay: from 0 to 1.

    Raises:
      InputError: a ratio or a decay out of range.

    >>> from lmdyn.data import Packing, mix
    >>> old = Tokens("old", "", np.zeros(50, np.uint16), np.array([20, 50]))
    >>> new = Tokens("new", "", np.ones(50, np.uint16), np.array([20, 50]))
    >>> review = MixReview(old, ratio=1.0, decay=0.5)
    >>> packing = Packing(length=4, batch=4, end_of_text=60)
    >>> first = next(iter(mix([(new, 1.0)], packing, review=review, steps=8))).inputs
    >>> int((first == 0).all(1).sum())  # one old window to each new one
    2
    """

    tokens: Tokens
    ratio: float
    decay: float

    def __post_init__(self) -> None:
        if not 0 < self.ratio < np.inf or not 0 <= self.decay <= 1:
            raise InputError(
                f"a review with ratio={self.ratio}, decay={self.decay}: the ratio is above 0, the"
                " decay from 0 to 1"
            )


def review_rows(steps: int, batch: int, epoch: int, ratio: float, decay: float) -> np.ndarray:
    """How many rows of each batch are old text: `[steps]` integers.

    In epoch e of the new text it is the share `q / (1 + q)` of the rows, `q = ratio * decay^e`;
    what is left of a row is carried over to the next batch. At least one row of a batch is new.

    Args:
      steps: how many batches.
      batch: B, rows of a batch.
      epoch: windows of one pass over the new text.
      ratio: of a `MixReview`.
      decay: of a `MixReview`.

    Half; from the new text's 7th window on a third, and a fifth:

    >>> review_rows(6, batch=4, epoch=6, ratio=1.0, decay=0.5).tolist()
    [2, 2, 2, 1, 1, 1]
    """
    rows, left, seen = np.zeros(steps, int), 0.0, 0
    for step in range(steps):
        share = ratio * decay ** (seen // epoch)
        left += batch * share / (1 + share)
        rows[step] = min(int(left + 1e-9), batch - 1)
        left -= rows[step]
        seen += batch - rows[step]
    return rows


class ReviewedBatches:
    """Batches, each a list of rows, of which `rows[i]` in the i-th are old.

    After the last of `rows` all are new.

    Args:
      new: windows of the new text, by index.
      old: windows of the old text, by index.
      rows: old rows of each batch.
      batch: B, rows of a batch.

    >>> ReviewedBatches(range(0, 9), range(100, 109), np.array([1]), batch=2)[0]
    [100, 0]
    """

    def __init__(self, new: Any, old: Any, rows: np.ndarray, batch: int) -> None:
        self.new, self.old, self.rows, self.batch = new, old, rows, batch
        self.before = np.concatenate([[0], np.cumsum(rows)])

    def __len__(self) -> int:
        return ENDLESS // self.batch

    def __getitem__(self, index: int) -> list:
        index = int(index)
        old = int(self.before[min(index, len(self.rows))])
        count = int(self.rows[index]) if index < len(self.rows) else 0
        new = index * self.batch - old
        return [self.old[old + i] for i in range(count)] + [
            self.new[new + i] for i in range(self.batch - count)
        ]
