"""An endless stream of training batches, read through Grain.

It is shuffled by seed, packed, mixed by weight and cut by host. Documents are put in a random order
and joined, each followed by the end-of-text token; the whole is cut into windows (see
`lmdyn.data.windows`), and the windows come in a random order that differs in every epoch. All of it
is indexed, never buffered, so a position is one number, and a stream resumes from it exactly, on
any number of hosts.

Shape letters: B batch (all hosts together), T tokens of a window.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lmdyn.data.mix_review import ENDLESS, MixReview, ReviewedBatches, review_rows
from lmdyn.data.packing import PackedWindows, Packing
from lmdyn.data.token_store import Tokens
from lmdyn.data.windows import Batch
from lmdyn.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingStream:
    """Batches without end, made by `mix`.

    `iter(stream)` gives `Batch`es of this host's rows; the iterator has `get_state` and
    `set_state`, whose state is a dict that JSON can hold.

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
    packing: Packing,
    *,
    seed: int = 0,
    host: int = 0,
    hosts: int = 1,
    review: MixReview | None = None,
    steps: int = 0,
) -> TrainingStream:
    """The training stream of several texts.

    Args:
      sources: `(tokens, weight)` pairs; of the windows, each source gives its share of all weights.
      packing: how documents become batches of windows.
      seed: of the orders of documents and windows.
      host: this host's number.
      hosts: how many there are. Together they read the same batches at any number.
      review: old text that takes the place of some rows, fewer and fewer of them; it needs `steps`.
      steps: batches after which nothing is reviewed.

    Returns:
      A `TrainingStream`.

    Raises:
      InputError: no source, weights that are not positive, a batch that the hosts cannot share
        evenly, or a text shorter than one window.

    >>> tokens = Tokens("abc", "", np.arange(50).astype(np.uint16), np.array([20, 50]))
    >>> batches = iter(mix([(tokens, 1.0)], Packing(length=4, batch=3, end_of_text=60)))
    >>> first = next(batches)
    >>> first.inputs.shape, batches.get_state()
    ((3, 4), {'next_index': 1})
    """
    import grain

    weights = [float(weight) for _, weight in sources]
    _check(weights, packing.batch, hosts)
    shuffled, epoch = [], {}
    for number, (tokens, _) in enumerate(sources):
        own = _seed(seed, number)
        packed = PackedWindows(tokens, packing, own)
        epoch[tokens.name] = len(packed) * packing.length
        shuffled.append(_shuffled(packed, own))
    shares = [weight / sum(weights) for weight in weights]
    joined = shuffled[0] if len(shuffled) == 1 else grain.MapDataset.mix(shuffled, shares)

    def stack(rows):
        rows = Batch(*map(np.stack, zip(*rows, strict=True)))
        return rows._replace(documents=None) if packing.attend_across else rows

    fingerprint = _fingerprint(sources, weights, packing, seed)
    if review is None:
        dataset = joined[host:ENDLESS:hosts].batch(packing.batch // hosts, batch_fn=stack)
        return TrainingStream(dataset, fingerprint, epoch)
    own = _seed(seed, len(sources))
    old = _shuffled(PackedWindows(review.tokens, packing, own), own)
    windows = sum(epoch.values()) // packing.length
    rows = review_rows(steps, packing.batch, windows, review.ratio, review.decay)
    both = grain.MapDataset.source(ReviewedBatches(joined, old, rows, packing.batch))
    dataset = both.map(lambda rows: stack(rows[host::hosts]))
    fingerprint["review"] = {
        "name": review.tokens.name,
        "digest": review.tokens.digest,
        "ratio": review.ratio,
        "decay": review.decay,
        "steps": steps,
    }
    return TrainingStream(dataset, fingerprint, epoch)


def _check(weights: list[float], batch: int, hosts: int) -> None:
    if not weights:
        raise InputError("no text to train on; give at least one source")
    if batch % hosts:
        raise InputError(
            f"batch={batch} is not a multiple of the {hosts} hosts; use one, such as"
            f" {-(-batch // hosts) * hosts}"
        )
    if not all(0 < weight < np.inf for weight in weights):
        raise InputError(
            f"weights {', '.join(f'{w:g}' for w in weights)}: each must be a positive number; leave"
            " out what weighs nothing"
        )


def _shuffled(packed: PackedWindows, seed: int):
    """All windows again and again, in another order in every epoch."""
    import grain

    return grain.MapDataset.source(packed).seed(seed).shuffle().repeat()


def _fingerprint(sources, weights: list[float], packing: Packing, seed: int) -> dict:
    texts = [
        {"name": tokens.name, "digest": tokens.digest, "weight": weight}
        for (tokens, _), weight in zip(sources, weights, strict=True)
    ]
    cut = {key: value for key, value in dataclasses.asdict(packing).items() if value is not None}
    return {"texts": texts, "seed": seed, **cut}


def _seed(seed: int, number: int) -> int:
    """A seed for the `number`-th source that shares nothing with its neighbours'.

    It has 31 bits: Grain takes 32.
    """
    return (
        int.from_bytes(hashlib.sha256(json.dumps([seed, number]).encode()).digest()[:4], "little")
        & 0x7FFFFFFF
    )
