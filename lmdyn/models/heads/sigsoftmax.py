"""Sigsoftmax, not bound by the rank of its logits (Kanai et al. 2018, arXiv 1805.10829).

Shape letters: n tokens, D width, V vocabulary.
"""

import dataclasses
from collections.abc import Mapping

import jax

from lmdyn.models.heads.base import Head, project
from lmdyn.types import Array


@dataclasses.dataclass(frozen=True)
class SigsoftmaxHead(Head):
    """`p_i` proportional to `exp(z_i) sigmoid(z_i)`, z = x W (Kanai et al. 2018, equation 12).

    It has no more parameters than the full head.

    >>> SigsoftmaxHead(6, 11).size
    66
    """

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """W."""
        return {"output": (self.width, self.vocab)}

    @property
    def copies(self) -> int:
        """z, and the scores that come of it."""
        return 2

    def logits(self, matrices: Mapping[str, Array], states: Array) -> jax.Array:
        """Log-probabilities `[n, V]`."""
        z = project(states, matrices["output"])
        return jax.nn.log_softmax(z + jax.nn.log_sigmoid(z))
