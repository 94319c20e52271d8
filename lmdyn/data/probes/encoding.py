"""Probes as token ids.

Shape letters: P probes, T tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmdyn.data.probes.probe import Probe
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError


class ProbeBatch(NamedTuple):
    """P probes of at most T predictions, made by `encode_probes`.

    Where `mask` is False, ids are 0 and nothing may count.
    """

    inputs: np.ndarray
    """[P, T] int32"""
    targets: np.ndarray
    """[P, T] int32: the token after each input"""
    span: np.ndarray
    """[P, T] bool: which targets overlap the span, at least one in each row, all inside `mask`"""
    mask: np.ndarray
    """[P, T] bool: which predictions are of the probe's text, and not padding"""


def encode_probes(
    probes: Sequence[Probe], tokenizer: Tokenizer, length: int | None = None
) -> ProbeBatch:
    """Probes as token ids, padded to one length, with the targets marked.

    A token counts if one of its characters is in the span, also where it holds others too (in most
    vocabularies the space before a word is part of the word's token).

    Args:
      probes: P of them.
      tokenizer: has `encode_with_offsets(text) -> (ids, offsets)` and `first_token`, which is put
        first; after such a token the target may be the first of the text.
      length: T; text after the span may be cut off, the span may not. Default the longest probe's.

    Raises:
      InputError: no probes, a length below 1, a target that does not fit into `length`, or a target
        in the first token, which nothing predicts.

    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> probes = [Probe("né à Fès", 5, 8), Probe("a b", 2, 3)]
    >>> batch = encode_probes(probes, byte_tokenizer())
    >>> batch.span.astype(int).tolist()
    [[0, 0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]]
    """
    if not len(probes):
        raise InputError("there are no probes; give at least one")
    if length is not None and length < 1:
        raise InputError(f"length={length}; it must be at least 1")
    encoded = [_encode(probe, tokenizer, length) for probe in probes]
    longest = max(len(ids) - 1 for ids, _ in encoded)
    size = length or longest
    inputs, targets = np.zeros((2, len(probes), size), np.int32)
    span, mask = np.zeros((2, len(probes), size), bool)
    for row, (ids, hit) in enumerate(encoded):
        n = min(len(ids) - 1, size)
        inputs[row, :n], targets[row, :n] = ids[:n], ids[1 : n + 1]
        span[row, :n], mask[row, :n] = hit[1 : n + 1], True
    return ProbeBatch(inputs, targets, span, mask)


def _encode(probe: Probe, tokenizer, length):
    """The ids of a probe's text, and which of them overlap its span."""
    ids, offsets = tokenizer.encode_with_offsets(probe.text)
    starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    hit = (starts < probe.end) & (ends > probe.start)
    if tokenizer.first_token is not None:
        ids, hit = np.concatenate([[tokenizer.first_token], ids]), np.concatenate([[False], hit])
    short = f"{probe.where}: the target {probe.target[:60]!r}"
    if not hit.any():
        raise InputError(f"{short} has no token of its own; give a longer target")
    if hit[0]:
        raise InputError(
            f"{short} begins with the first token, which nothing predicts; give a prompt before it"
            " or, if the model has a beginning-of-text token, use --bos document"
        )
    last = int(np.flatnonzero(hit)[-1])
    if length is not None and last > length:
        raise InputError(
            f"{short} ends at token {last}, beyond length={length}; give a length of at least"
            f" {last}"
        )
    return ids, hit
