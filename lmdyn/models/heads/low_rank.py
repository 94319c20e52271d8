"""A head of rank R: fewer numbers, and a tighter softmax bottleneck.

Shape letters: n tokens, D width, V vocabulary, R rank.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import ClassVar

import jax
import numpy as np

from lmdyn.errors import InputError
from lmdyn.models.heads.base import Head, project
from lmdyn.types import Array


@dataclasses.dataclass(frozen=True)
class LowRankHead(Head):
    """`softmax(x A B)`, A `[D, R]`, B `[R, V]` (Godey et al. 2024, section 5.3).

    Attributes:
      rank: R.

    Raises:
      InputError: a rank above D or V, which a product of two matrices does not have.

    >>> LowRankHead(6, 11, rank=2).size
    34
    """

    rank: int

    argument: ClassVar[str] = "rank"

    def __post_init__(self) -> None:
        most = min(self.width, self.vocab)
        if not 1 <= self.rank <= most:
            raise InputError(
                f"rank={self.rank} of a head [{self.width}, {self.vocab}]; use 1 to {most}"
            )

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """A and B."""
        return {"down": (self.width, self.rank), "output": (self.rank, self.vocab)}

    def logits(self, matrices: Mapping[str, Array], states: Array) -> jax.Array:
        """Log-probabilities `[n, V]`."""
        narrow = project(states, matrices["down"]).astype(states.dtype)
        return jax.nn.log_softmax(project(narrow, matrices["output"]))


def truncations(matrix: Array, ranks: Iterable[int]) -> dict[int, dict[str, np.ndarray]]:
    """The best approximations of a full head by low-rank ones.

    They are its truncated singular value decomposition.

    Args:
      matrix: `[D, V]`.
      ranks: which.

    Returns:
      `{rank: {"down": [D, R], "output": [R, V]}}`, the matrices of a `LowRankHead`; at rank D the
      product is the head itself.

    >>> {
    ...     rank: (m["down"] @ m["output"]).round(4).tolist()
    ...     for rank, m in truncations([[2.0, 0.0], [0.0, 1.0]], [1, 2]).items()
    ... }
    {1: [[2.0, 0.0], [0.0, 0.0]], 2: [[2.0, 0.0], [0.0, 1.0]]}
    """
    matrix = np.asarray(matrix, np.float64)
    _, directions = np.linalg.eigh(matrix @ matrix.T)  # left singular vectors, largest last
    directions = directions[:, ::-1]
    share = (directions.T @ matrix).astype(np.float32)
    return {
        rank: {"down": directions[:, :rank].astype(np.float32), "output": share[:rank]}
        for rank in ranks
    }
