"""Rank of the target: how many directions next-token distributions take.

Godey et al. 2024, arXiv 2404.07647, section 6; docs/methods.md#rank-of-the-target.

The contexts of c tokens that a text holds are the rows of a sparse matrix, the vocabulary its
columns, and an entry is how often the token follows the context. With rows made empirical
distributions, the singular values say how well a head of rank d can do at best in the sense of
least squares: the error of the best approximation of rank d is `sqrt(sum_{i>d} s_i^2 / sum s_i^2)`
(Eckart and Young).

A text holds most long contexts once, and such a row is a single 1 whatever the true distribution
is. So an error measured on one text says little; how it changes as the text grows, and with
contexts seen `least` times or more, says what is the text's size and what is the language.

Shape letters: n tokens, c tokens of context, C distinct contexts, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import scipy.sparse

from lmdyn import records
from lmdyn.errors import InputError
from lmdyn.metrics.sparse_spectra import leading_values, squared_sum
from lmdyn.types import ArrayLike

CHUNK = 2**20
"""Tokens read at a time."""
BYTES_A_TOKEN = 40
"""Memory that counting takes for each position of a part: keys, their order, copies on the way."""


def ngram_counts(
    tokens: ArrayLike,
    vocab: int,
    context: int = 1,
    *,
    ends: ArrayLike | None = None,
    least: int = 1,
    memory: int = 2**29,
) -> scipy.sparse.csr_array:
    """How often every token follows every context of a text.

    Contexts are numbered exactly, in 64 bits, and divided in parts by a hash; each pass over the
    text counts one part, by sorting. So the memory beyond the result stays within `memory`, and 40
    MB for the chunk that is read, however long the text is; the text is read as often as there are
    parts. The result takes 8 bytes for each distinct context and token (12 while parts are put
    together), which `least` keeps small.

    Args:
      tokens: `[n]` integers below `vocab`; a memory map is read in chunks.
      vocab: V.
      context: c, how many tokens a context has; `V^c` must stay below 2^64.
      ends: `[documents]`, where each document ends, as `lmdyn.data.Tokens` has it: no context
        crosses an end. None: one document.
      least: contexts seen less often are left out.
      memory: bytes to count with.

    Returns:
      `[C, V]` whole counts, a row per context, in no particular order.

    Raises:
      InputError: a context that is too long for 64 bits or for the text, a token outside the
        vocabulary, or no context seen often enough.

    >>> ngram_counts(
    ...     np.array([0, 1, 0, 1, 2]), vocab=3
    ... ).toarray().tolist()  # after 0: 1 twice; after 1: 0 and 2
    [[0, 2, 0], [1, 0, 1]]
    """
    tokens = np.asanyarray(tokens)
    if vocab < 1 or context < 1 or vocab**context >= 2**64:
        longest = int(63.99 // math.log2(vocab)) if vocab > 1 else 64
        raise InputError(
            f"contexts of {context} tokens of {vocab} do not fit into 64 bits; use 1 to {longest}"
            " tokens"
        )
    count = len(tokens) - context
    if count < 1:
        raise InputError(
            f"{len(tokens)} tokens hold no context of {context} and a next token; give a longer"
            " text"
        )
    # Contexts are counted in parts, by their hash, so that one part fits into memory.
    ends = np.array([len(tokens)]) if ends is None else np.asarray(ends)
    parts = max(1, math.ceil(count * BYTES_A_TOKEN / memory))
    found = [
        _count_part(*_positions(tokens, vocab, context, ends, part, parts), vocab, least)
        for part in range(parts)
    ]
    # One array after the other, so that parts and whole are not held twice.
    columns, counts, pairs = (
        np.concatenate([one.pop(0) for one in found]) if parts > 1 else found[0].pop(0)
        for _ in range(3)
    )
    if not len(columns):
        raise InputError(
            f"no context of {context} tokens is seen {least} times in {len(tokens):,} tokens; lower"
            " least, or give a longer text"
        )
    starts = _narrow(np.concatenate([[0], np.cumsum(pairs, dtype=np.int64)]), len(columns))
    return scipy.sparse.csr_array((counts, columns, starts), shape=(len(pairs), vocab))


def _positions(tokens, vocab, context, ends, part, parts):
    """Contexts' numbers `[m]` uint64, and the tokens after them `[m]`, of one part."""
    keys, following = [], []
    for start in range(0, len(tokens) - context, CHUNK):
        block = np.asarray(tokens[start : start + CHUNK + context])
        if part == 0 and len(block) and not 0 <= int(block.min()) <= int(block.max()) < vocab:
            wrong = block.min() if block.min() < 0 else block.max()
            raise InputError(
                f"token {wrong} is outside the vocabulary of {vocab}; was the text read with the"
                " model's tokenizer?"
            )
        size = len(block) - context
        key = np.zeros(size, np.uint64)
        for place in range(context):
            key = key * np.uint64(vocab) + block[place : place + size].astype(np.uint64)
        # The next token's document must be the one that the context starts in.
        at = np.arange(start, start + size)
        inside = (
            np.searchsorted(ends, at, side="right")
            == np.searchsorted(ends, at + context, side="right")
            if len(ends) > 1
            else slice(None)
        )
        key, after = key[inside], block[context:][inside]
        if (
            parts > 1
        ):  # Fibonacci hashing: the high bits of a product with an odd number near 2^64 / 1.618
            mine = ((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) % np.uint64(
                parts
            ) == part
            key, after = key[mine], after[mine]
        keys.append(key)
        following.append(after)
    return np.concatenate(keys), np.concatenate(following)


def _count_part(keys, following, vocab, least) -> list[np.ndarray]:
    """Columns and counts `[pairs]`, and how many pairs each context has `[contexts]`."""
    if int(keys.max(initial=0)) >= 2**64 // vocab:  # number them anew, so that pairs fit
        keys = np.unique(keys, return_inverse=True)[1].astype(np.uint64)
    keys *= np.uint64(vocab)
    keys += following.astype(np.uint64)
    del following
    keys.sort()
    first = np.flatnonzero(np.diff(keys, prepend=keys[:1] + np.uint64(1)))
    counts, pairs = np.diff(first, append=len(keys)), keys[first]
    del keys, first
    row, column = np.divmod(pairs, np.uint64(vocab))
    del pairs
    starts = np.flatnonzero(np.diff(row, prepend=row[:1] + np.uint64(1)))
    del row
    width = np.diff(starts, append=len(column))
    if least > 1:
        often = np.add.reduceat(counts, starts) >= least if len(starts) else starts > 0
        kept = np.repeat(often, width)
        column, counts, width = column[kept], counts[kept], width[often]
    return [_narrow(column, vocab), _narrow(counts, counts.sum()), _narrow(width, vocab)]


def _narrow(numbers, most):
    return numbers.astype(np.int32 if most < 2**31 else np.int64)


def distributions(
    counts: Any, weight: Literal["contexts", "tokens"] = "contexts"
) -> scipy.sparse.csr_array:
    """Rows made empirical distributions.

    Args:
      counts: `[C, V]`.
      weight: `contexts`: every distinct context counts once, the paper's matrix. `tokens`: every
        position of the text counts once, as it does in a loss; a row is scaled by the root of how
        often its context is seen, so the squared error is summed over positions.

    >>> distributions(scipy.sparse.csr_array([[3.0, 1.0], [0.0, 4.0]])).toarray().tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    scale = _scale(counts, weight)
    return scipy.sparse.csr_array(
        (counts.data * np.repeat(scale, np.diff(counts.indptr)), counts.indices, counts.indptr),
        counts.shape,
    )


def _scale(counts, weight):
    """What every row of the counts is multiplied by, `[C]`."""
    if weight not in ("contexts", "tokens"):
        raise InputError(f"weight '{weight}' is unknown; use contexts or tokens")
    seen = np.asarray(counts.sum(1)).ravel()
    return 1 / seen if weight == "contexts" else 1 / np.sqrt(seen)


@dataclasses.dataclass(frozen=True, eq=False)
class TargetRank:
    """The spectrum of a text's next-token distributions.

    Attributes:
      values: `[k]` leading singular values, largest first.
      energy: the sum of the squares of *all* singular values, exact.
      contexts: C.
      tokens: how many positions of the text they rest on.
    """

    values: np.ndarray
    energy: float
    contexts: int
    tokens: int

    @property
    def errors(self) -> np.ndarray:
        """`[k + 1]`: the relative error of the best approximation of rank 0 to k; 1 at rank 0."""
        left = 1 - np.concatenate([[0.0], np.cumsum(self.values**2)]) / self.energy
        return np.sqrt(np.clip(left, 0, None))

    def needed(self, error: float) -> int | None:
        """The least rank with at most this error; None if it is above k.

        >>> TargetRank(np.array([2.0, 1.0, 1.0]), energy=7.0, contexts=9, tokens=20).needed(0.6)
        2
        """
        enough = np.flatnonzero(self.errors <= error + 1e-9)
        return int(enough[0]) if len(enough) else None

    def rows(self) -> list[dict[str, Any]]:
        """`target_error` at ranks 1, 2, 4, ... k."""
        ranks = sorted({*(2**i for i in range(len(self.values).bit_length())), len(self.values)})
        return [
            records.row(
                "target_error",
                self.errors[rank],
                "share",
                "target",
                rank=rank,
                contexts=self.contexts,
            )
            for rank in ranks
        ]


def target_rank(
    counts: Any,
    k: int = 2000,
    weight: Literal["contexts", "tokens"] = "contexts",
    *,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> TargetRank:
    """The leading singular values of the next-token distributions, each as often as it occurs.

    With `lmdyn.metrics.sparse_spectra.DENSE` columns or rows at most that are not empty, all of
    them, from the dense Gram matrix; else `k`, by block Lanczos.

    Args:
      counts: `[C, V]`, from `ngram_counts`.
      k: how many; fewer if the matrix has fewer.
      weight: see `distributions`.
      tolerance: see `lmdyn.metrics.sparse_spectra.leading_values`.
      seed: of the random vectors.

    >>> found = target_rank(scipy.sparse.csr_array(np.diag([5.0, 2.0, 1.0])))
    >>> found.values.tolist(), found.errors.round(4).tolist()
    ([1.0, 1.0, 1.0], [1.0, 0.8165, 0.5774, 0.0])
    """
    if k < 1:
        raise InputError(f"k={k} singular values; ask for 1 or more")
    scale = _scale(counts, weight)
    values = leading_values(counts, k, scale, tolerance=tolerance, seed=seed)
    energy = squared_sum(counts, scale)
    return TargetRank(values, energy, counts.shape[0], round(float(counts.sum())))


def target_growth(
    tokens: ArrayLike,
    vocab: int,
    context: int,
    sizes: Iterable[int],
    k: int = 2000,
    weight: Literal["contexts", "tokens"] = "contexts",
    *,
    ends: ArrayLike | None = None,
    least: int = 1,
) -> list[TargetRank]:
    """The same for the text's first tokens: as many as each of `sizes` says.

    If the rank that is needed still grows with the size, the text, not the language, sets it.

    Args:
      tokens: see `ngram_counts`.
      vocab: see `ngram_counts`.
      context: see `ngram_counts`.
      sizes: how many tokens; above the text's length is an `InputError`.
      k: see `target_rank`.
      weight: see `target_rank`.
      ends: see `ngram_counts`.
      least: see `ngram_counts`.

    >>> tokens = np.random.default_rng(0).integers(0, 7, 3000)
    >>> [
    ...     found.needed(0.2) for found in target_growth(tokens, 7, 1, [30, 3000])
    ... ]  # independent tokens: one direction, in the end
    [5, 1]
    """
    found, tokens = [], np.asanyarray(tokens)
    for size in sizes:
        if size > len(tokens):
            raise InputError(
                f"size {size:,} is more than the text's {len(tokens):,} tokens; use sizes up to"
                " that"
            )
        some = None if ends is None else np.append(np.asarray(ends)[np.asarray(ends) < size], size)
        counts = ngram_counts(tokens[:size], vocab, context, ends=some, least=least)
        found.append(target_rank(counts, k, weight))
    return found
