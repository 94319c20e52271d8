"""A mixture of softmaxes, not bound by the rank of one (Yang et al. 2018, arXiv 1711.03953).

Shape letters: n tokens, D width, V vocabulary, K components.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from lmdyn.errors import InputError
from lmdyn.models.heads.base import Head, project
from lmdyn.types import Array


@dataclasses.dataclass(frozen=True)
class MixtureHead(Head):
    """`sum_k pi_k(x) softmax(tanh(x U_k) W)`, pi = softmax(x P) (Yang et al. 2018, equation 6).

    The components share W `[D, V]`; a component has U_k `[D, D]` and a column of P `[D, K]`.

    Attributes:
      components: K.

    >>> MixtureHead(6, 11, components=3).size  # 3 * 6 * 6 + 6 * 3 + 6 * 11
    192
    """

    components: int

    argument: ClassVar[str] = "components"
    scoring: ClassVar[tuple[str, ...]] = ("output", "prior")

    def __post_init__(self) -> None:
        if self.components < 1:
            raise InputError(f"components={self.components}; a mixture needs 1 or more")

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """All U_k beside one another, P and W."""
        return {
            "latent": (self.width, self.components * self.width),
            "prior": (self.width, self.components),
            "output": (self.width, self.vocab),
        }

    @property
    def copies(self) -> int:
        """An array for each component, and their sum."""
        return self.components + 1

    @property
    def products(self) -> int:
        """Multiply-adds for one token: W counts for each component."""
        return self.size + (self.components - 1) * self.width * self.vocab

    def logits(self, matrices: Mapping[str, Array], states: Array) -> jax.Array:
        """Log-probabilities `[n, V]`."""
        latent = jnp.tanh(project(states, matrices["latent"])).astype(states.dtype)
        each = jax.nn.log_softmax(
            project(latent.reshape(-1, self.width), matrices["output"])
        ).reshape(len(states), self.components, self.vocab)
        prior = jax.nn.log_softmax(project(states, matrices["prior"]))
        return jax.nn.logsumexp(each + prior[..., None], 1)
