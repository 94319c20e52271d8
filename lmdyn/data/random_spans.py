"""Random spans of a text: what probes are compared with.

Shape letters: P probes, R random spans, T tokens, N stream length.
"""

import numpy as np

from lmdyn.data.probes.encoding import ProbeBatch
from lmdyn.errors import InputError


def random_spans(
    stream: np.ndarray,
    like: ProbeBatch,
    count: int | None = None,
    seed: int = 0,
    first: int | None = None,
) -> ProbeBatch:
    """Spans at random places of a text, as long as those of probes and after as much text.

    They differ from the probes only in what they say. Each takes the span, the text before and the
    text after, in tokens, from one of the probes; all probes are used alike.

    Args:
      stream: `[N + 1]` token ids of a text (`lmdyn.data.join`).
      like: P probes, from `encode_probes`.
      count: R; default P.
      seed: of the places.
      first: the token that probes begin with (`Tokenizer.first_token`); it takes the place of every
        first input.

    Returns:
      A `ProbeBatch` of R sequences of T tokens.

    Raises:
      InputError: a text shorter than the longest probe, or a count below 1.

    >>> span = np.array([[False, True, False], [False, False, True]])
    >>> probes = ProbeBatch(
    ...     np.zeros([2, 3], int),
    ...     np.zeros([2, 3], int),
    ...     span,
    ...     np.array([[True, True, False], [True] * 3]),
    ... )
    >>> found = random_spans(np.arange(100, 120), probes, count=4)
    >>> found.inputs.shape, sorted(found.mask.sum(1).tolist())
    ((4, 3), [2, 2, 3, 3])
    """
    count = len(like.span) if count is None else count
    if count < 1:
        raise InputError(f"count={count}; at least 1 random span is needed")
    lengths = like.mask.sum(1)
    if len(stream) <= lengths.max():
        raise InputError(
            f"the text has {len(stream)} tokens and the longest probe needs {lengths.max() + 1};"
            " give a longer text"
        )
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.arange(count) % len(lengths))
    starts = rng.integers(0, len(stream) - lengths[rows])
    mask = like.mask[rows]
    places = np.where(mask, starts[:, None] + np.arange(mask.shape[1]), 0)
    inputs, targets = (
        np.where(mask, np.asarray(stream)[places + after], 0).astype(np.int32) for after in (0, 1)
    )
    if first is not None:
        inputs[:, 0] = first
    return ProbeBatch(inputs, targets, like.span[rows], mask)
