"""An endless stream of training batches, read through Grain: shuffled by seed, packed, mixed by
weight, cut by host.

Documents are put in a random order and joined, each followed by the end-of-text token; the whole is
cut into windows (see `lmdyn.data.windows`), and the windows come in a random order that is another
in every epoch. All of it is indexed, never buffered, so a position is one number, and a stream goes
on from it exactly, on any number of hosts.

Shape letters: B batch (all hosts together), T tokens of a window.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lmdyn.data.token_store import Tokens
from lmdyn.data.windows import Batch
from lmdyn.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Review:
    """Old text that is read again while new text is learned: MixReview (He et al. 2021, arXiv
    1910.07117).

    In epoch e of the new text, counted from 0, `ratio * decay^e` old windows come to each new one.

    Attributes:
      tokens: the old text.
      ratio, decay: see above.

    >>> old = Tokens("old", "", np.zeros(50, np.uint16), np.array([20, 50]))
    >>> new = Tokens("new", "", np.ones(50, np.uint16), np.array([20, 50]))
    >>> batches = mix(
    ...     [(new, 1.0)],
    ...     length=4,
    ...     batch=4,
    ...     end_of_text=60,
    ...     review=Review(old, ratio=1.0, decay=0.5),
    ...     steps=8,
    ... )
    >>> first = next(iter(batches)).inputs
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
      steps: batches. batch: B. epoch: windows of one pass over the new text.

    >>> review_rows(
    ...     6, batch=4, epoch=6, ratio=1.0, decay=0.5
    ... ).tolist()  # half; from the new text's 7th window on a third, and a fifth
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


class _Reviewed:
    """Batches, each a list of rows, of which `rows[i]` in the i-th are old; after the last of
    `rows` all are new.
    """

    def __init__(self, new, old, rows: np.ndarray, batch: int):
        self.new, self.old, self.batch_sharding, self.batch = new, old, rows, batch
        self.before = np.concatenate([[0], np.cumsum(rows)])

    def __len__(self):
        return ENDLESS // self.batch

    def __getitem__(self, index):
        index = int(index)
        old = int(self.before[min(index, len(self.batch_sharding))])
        count = int(self.batch_sharding[index]) if index < len(self.batch_sharding) else 0
        new = index * self.batch - old
        return [self.old[old + i] for i in range(count)] + [
            self.new[new + i] for i in range(self.batch - count)
        ]


ENDLESS = 2**60
"""Windows in a stream: without an end for any run, and still a length that Python can hold."""


class PackedWindows:
    """Windows of shuffled, joined documents, by index: `len(packed)`, `packed[i] -> Batch` of one
    row without axis B.

    Args:
      tokens: the documents' tokens.
      length: T.
      end_of_text: the token that follows every document.
      seed: of the order of documents.
      predict_across: whether the first token of a document counts as a prediction (it rests on
        another document).

    The ragged last window is left out.

    >>> tokens = Tokens("abc", "", np.array([1, 2, 3, 4, 5], np.uint16), np.array([2, 5]))
    >>> packed = PackedWindows(tokens, length=3, end_of_text=0, seed=1, predict_across=False)
    >>> (
    ...     [packed[i].inputs.tolist() for i in range(len(packed))],
    ...     packed[0].documents.tolist(),
    ...     packed[0].mask.tolist(),
    ... )
    ([[1, 2, 0], [3, 4, 5]], [0, 0, 0], [True, True, False])
    """

    def __init__(
        self, tokens: Tokens, length: int, end_of_text: int, seed: int, predict_across: bool = True
    ) -> None:
        self.tokens, self.length, self.end_of_text, self.predict_across = (
            tokens,
            length,
            end_of_text,
            predict_across,
        )
        self.order = np.random.default_rng(seed).permutation(len(tokens))
        sizes = np.diff(tokens.ends, prepend=0)[self.order] + 1
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        """`[documents + 1]`: where each document begins in the joined stream; its end-of-text token belongs to it."""
        if len(self) < 1:
            raise InputError(
                f"{tokens.name} has {self.starts[-1]} tokens, and one window of length {length}"
                f" needs {length + 1}; give more text, or a length of at most {self.starts[-1] - 1}"
            )

    def __len__(self) -> int:
        return int(self.starts[-1] - 1) // self.length

    def __getitem__(self, index: int) -> Batch:
        start = int(index) * self.length
        stop = start + self.length + 1
        window, owner = np.empty(self.length + 1, np.int32), np.empty(self.length + 1, np.int32)
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
                window[end - start] = self.end_of_text
                owner[end - start] = document - first
                end += 1
            at, document = end, document + 1
        mask = np.ones(self.length, bool) if self.predict_across else owner[:-1] == owner[1:]
        return Batch(window[:-1], window[1:], mask, owner[:-1])


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """Batches without end. `iter(stream)` gives `Batch`es of this host's rows; the iterator has
    `get_state` and `set_state`, whose state is a dict that JSON can hold. Made by `mix`.

    Attributes:
      dataset: a Grain `MapDataset` of batches.
      fingerprint: what the stream is: digests of the texts, weights, seed, length, batch. A
        position from another stream means nothing in this one.
      epoch: predictions in one pass over each source, by name.
    """

    dataset: Any
    fingerprint: dict
    epoch: dict[str, int]

    def __iter__(self) -> Iterator[Batch]:
        import grain

        # Windows are cut from a memory map in microseconds: few threads, a short queue.
        return iter(
            self.dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8))
        )


def mix(
    sources: Sequence[tuple[Tokens, float]],
    *,
    length: int,
    batch: int,
    end_of_text: int,
    seed: int = 0,
    host: int = 0,
    hosts: int = 1,
    attend_across: bool = True,
    predict_across: bool = True,
    review: Review | None = None,
    steps: int = 0,
) -> Stream:
    """The training stream of several texts.

    Args:
      sources: `(tokens, weight)` pairs; of the windows, each source gives its share of all weights.
      length: T. batch: B, over all hosts.
      end_of_text: the token after each document.
      seed: of the orders of documents and windows.
      host, hosts: this host's number, and how many there are. Together they read the same batches
        at any number.
      attend_across: False: attention stays inside a document (batches carry `documents`).
      predict_across: False: the first token of a document does not count.
      review: old text that takes the place of some rows, fewer and fewer of them; it needs `steps`,
        after which there is none.

    Returns:
      A `Stream`.

    Raises:
      InputError: no source, weights that are not positive, a batch that the hosts cannot share
        evenly, or a text shorter than one window.

    >>> tokens = Tokens("abc", "", np.arange(50).astype(np.uint16), np.array([20, 50]))
    >>> batches = iter(mix([(tokens, 1.0)], length=4, batch=3, end_of_text=60))
    >>> first = next(batches)
    >>> first.inputs.shape, batches.get_state()
    ((3, 4), {'next_index': 1})
    """
    import grain

    if not sources:
        raise InputError("no text to train on; give at least one source")
    for name, value in (("length", length), ("batch", batch)):
        if value < 1:
            raise InputError(f"{name}={value}; it must be at least 1")
    if batch % hosts:
        raise InputError(
            f"batch={batch} is no multiple of the {hosts} hosts; use one, such as"
            f" {-(-batch // hosts) * hosts}"
        )
    weights = [float(weight) for _, weight in sources]
    if not all(0 < weight < np.inf for weight in weights):
        raise InputError(
            f"weights {', '.join(f'{w:g}' for w in weights)}: each must be a positive number; leave"
            " out what weighs nothing"
        )
    parts, epoch = [], {}
    for number, (tokens, _) in enumerate(sources):
        own = _seed(seed, number)
        packed = PackedWindows(tokens, length, end_of_text, own, predict_across)
        epoch[tokens.name] = len(packed) * length
        parts.append(grain.MapDataset.source(packed).seed(own).shuffle().repeat())
    joined = (
        parts[0]
        if len(parts) == 1
        else grain.MapDataset.mix(parts, [w / sum(weights) for w in weights])
    )

    def stack(rows):
        rows = Batch(*map(np.stack, zip(*rows, strict=True)))
        return rows._replace(documents=None) if attend_across else rows

    if review is None:
        dataset = joined[host:ENDLESS:hosts].batch(batch // hosts, batch_fn=stack)
    else:
        own = _seed(seed, len(sources))
        old = (
            grain.MapDataset.source(
                PackedWindows(review.tokens, length, end_of_text, own, predict_across)
            )
            .seed(own)
            .shuffle()
            .repeat()
        )
        rows = review_rows(steps, batch, sum(epoch.values()) // length, review.ratio, review.decay)
        dataset = grain.MapDataset.source(_Reviewed(joined, old, rows, batch)).map(
            lambda rows: stack(rows[host::hosts])
        )
    fingerprint = {
        "texts": [
            {"name": tokens.name, "digest": tokens.digest, "weight": w}
            for (tokens, _), w in zip(sources, weights, strict=True)
        ],
        "length": length,
        "batch": batch,
        "seed": seed,
        "end_of_text": end_of_text,
        "attend_across": attend_across,
        "predict_across": predict_across,
    }
    if review is not None:
        told = {
            "name": review.tokens.name,
            "digest": review.tokens.digest,
            "ratio": review.ratio,
            "decay": review.decay,
            "steps": steps,
        }
        fingerprint["review"] = told
    return Stream(dataset, fingerprint, epoch)


def _seed(seed: int, number: int) -> int:
    """A seed for the `number`-th source that shares nothing with its neighbours'; Grain takes 32
    bits.
    """
    return (
        int.from_bytes(hashlib.sha256(json.dumps([seed, number]).encode()).digest()[:4], "little")
        & 0x7FFFFFFF
    )
