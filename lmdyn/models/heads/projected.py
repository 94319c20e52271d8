"""A wider projection before the softmax.

Shape letters: n tokens, D width, V vocabulary, P projected width.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax

from lmdyn.errors import InputError
from lmdyn.models.heads.base import Head, project
from lmdyn.types import Array


@dataclasses.dataclass(frozen=True)
class ProjectedHead(Head):
    """`softmax(gelu(x U) W)`, U `[D, P]`, W `[P, V]`: logits of rank up to P.

    Without the nonlinearity they would keep rank D.

    Attributes:
      wide: P.

    >>> ProjectedHead(6, 11, wide=9).size  # 6 * 9 + 9 * 11
    153
    """

    wide: int

    argument: ClassVar[str] = "width"

    def __post_init__(self) -> None:
        if self.wide < 1:
            raise InputError(f"wide={self.wide}; a projected head needs a width of 1 or more")

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """U and W."""
        return {"wide": (self.width, self.wide), "output": (self.wide, self.vocab)}

    def logits(self, matrices: Mapping[str, Array], states: Array) -> jax.Array:
        """Log-probabilities `[n, V]`."""
        wide = jax.nn.gelu(project(states, matrices["wide"])).astype(states.dtype)
        return jax.nn.log_softmax(project(wide, matrices["output"]))
