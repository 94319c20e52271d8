"""The head that language models have, `softmax(x W)`: one matrix, its own or the embedding's.

Shape letters: N tokens (batch and time together), n tokens of a tile, D width, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import NamedSharding

from lmdyn.models import ops, tiles
from lmdyn.models.heads.base import Head, output_matrix, project, softmax_nll
from lmdyn.models.products import contract
from lmdyn.types import Array, Params, Tree


@dataclasses.dataclass(frozen=True)
class FullHead(Head):
    """`softmax(x W)`, W `[D, V]`. Its logits have rank D at most, however large V is.

    Its matrix is `kernel` `[D, V]`, or `embedding` `[V, D]` where the embedding is the head.

    Attributes:
      shared: whether the embedding is the head.

    >>> head = FullHead(3, 4)
    >>> total, nll = head.weighted_nll(
    ...     {"kernel": jnp.ones([3, 4])}, jnp.ones([2, 3]), jnp.array([0, 1]), jnp.ones(2) / 2
    ... )
    >>> head.size, round(float(total), 4), nll.shape  # log 4
    (12, 1.3863, (2,))
    >>> nll, best = head.token_scores(
    ...     {"kernel": jnp.array([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]])},
    ...     jnp.eye(2),
    ...     jnp.array([1, 2]),
    ... )
    >>> nll.shape, best.tolist()
    ((2,), [True, False])
    """

    shared: bool = False

    scoring: ClassVar[tuple[str, ...]] = ("kernel",)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """One matrix, which the parameters hold directly; none if tied to the embedding."""
        return {} if self.shared else {"kernel": (self.width, self.vocab)}

    @property
    def place(self) -> str:
        """`embed` where the embedding is the head."""
        return "embed" if self.shared else "head"

    @property
    def products(self) -> int:
        """Multiply-adds for one token: D V, also where the embedding is the head."""
        return self.width * self.vocab

    def tied(self) -> "FullHead":
        """The head whose matrix is the embedding."""
        return dataclasses.replace(self, shared=True)

    def matrices(self, params: Params) -> dict[str, jax.Array]:
        """Its matrix, from a model's parameters, named by how it is stored there."""
        matrix, vocab_first = output_matrix(params)
        return {"embedding" if vocab_first else "kernel": matrix}

    def single_matrix(self, params: Params) -> tuple[jax.Array, bool]:
        """The matrix, and whether it is `[V, D]`."""
        return output_matrix(params)

    def gathered(self, matrices: Tree, sharding: NamedSharding) -> Tree:
        """The matrix gathered along D, which every row of the batch needs."""
        return {
            name: ops.all_gather_axis(matrix, int(name == "embedding"), sharding)
            for name, matrix in matrices.items()
        }

    def logits(self, matrices: Mapping[str, Array], states: Array) -> jax.Array:
        """`x W`, `[n, V]` in float32, not normalised."""
        return project(states, *_oriented(matrices))

    def nll(self, logits: Array, targets: Array) -> jax.Array:
        """Nll `[n]` in nats of targets `[n]`."""
        return softmax_nll(logits, targets)[1]

    def weighted_nll(
        self,
        matrices: Tree,
        states: Array,
        targets: Array,
        weights: Array,
        sharding: NamedSharding | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """As every head's; where the matrix does not learn, its gradient is not computed."""
        matrix, vocab_first = _oriented(matrices)
        return cast(Any, _weighted_nll(states, matrix, targets, weights, vocab_first, sharding))


def _oriented(matrices):
    """The matrix, and whether it is `[V, D]`."""
    ((name, matrix),) = matrices.items()
    return matrix, name == "embedding"


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _weighted_nll(states, matrix, targets, weights, vocab_first, sharding):
    """`sum_i weights_i nll_i` and every nll, without a gradient."""
    rows = (states, targets, weights)
    if ops.runs(sharding) > 1:
        matrix = ops.all_gather_axis(matrix, int(vocab_first), sharding)
        one = lambda x, target, weight: _weighted_nll(x, matrix, target, weight, vocab_first, None)
        total, nll = tiles.per_device(one, rows, sharding)
        return total.sum(), nll.reshape(-1)

    def tile(total, rows):
        x, target, weight = rows
        _, nll = softmax_nll(project(x, matrix, vocab_first), target)
        return total + jnp.sum(nll * weight), nll

    size = tiles.tile_rows(states.shape[0], matrix.shape[0 if vocab_first else 1])
    return tiles.scan_tiles(tile, jnp.float32(0), rows, size)


def _forward(states, matrix, targets, weights, vocab_first, sharding) -> Any:
    rows = (states.value, targets.value, weights.value)
    return _loss_and_gradient(rows, matrix.value, vocab_first, sharding, matrix.perturbed)


def _loss_and_gradient(rows, matrix, vocab_first, sharding, learns) -> Any:
    """`(total, nll), (d states, d matrix)`; the last is None, and not computed, unless it learns.

    The gradient is computed while a tile's probabilities are there, so that the product with the
    matrix is not done twice.
    """
    if ops.runs(sharding) > 1:
        matrix = ops.all_gather_axis(matrix, int(vocab_first), sharding)
        one = lambda *rows: _loss_and_gradient(rows, matrix, vocab_first, None, learns)
        (total, nll), (d_states, d_matrix) = tiles.per_device(one, rows, sharding)
        d_states = d_states.reshape(rows[0].shape)
        return (total.sum(), nll.reshape(-1)), (d_states, d_matrix.sum(0) if learns else None)

    def tile(carry, rows):
        total, d_matrix = carry
        x, target, weight = rows
        logits = project(x, matrix, vocab_first)
        normalizer, nll = softmax_nll(logits, target)
        # d nll / d logits = p - [v = target]
        hit = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) == target[:, None]
        d_logits = ((jnp.exp(logits - normalizer) - hit) * weight[:, None]).astype(x.dtype)
        d_x = project(d_logits, matrix, not vocab_first).astype(x.dtype)
        total = total + jnp.sum(nll * weight)
        if not learns:
            return (total, None), (nll, d_x)
        # d W = x^T d logits, laid out as the matrix is
        pair = (d_logits, x) if vocab_first else (x, d_logits)
        grown = contract(*pair, (0, 0))
        return (total, grown if d_matrix is None else d_matrix + grown), (nll, d_x)

    count = rows[0].shape[0]
    size = tiles.tile_rows(count, matrix.shape[0 if vocab_first else 1])
    # One tile needs no sum over tiles, and no zeros to begin with.
    start = jnp.zeros(matrix.shape, jnp.float32) if learns and count > size else None
    (total, d_matrix), (nll, d_states) = tiles.scan_tiles(tile, (jnp.float32(0), start), rows, size)
    return (total, nll), (d_states, d_matrix.astype(matrix.dtype) if learns else None)


def _backward(vocab_first, sharding, saved, cotangents):
    d_states, d_matrix = saved
    scale = cotangents[0]
    if isinstance(scale, SymbolicZero):
        return None, None, None, None
    d_matrix = None if d_matrix is None else d_matrix * scale.astype(d_matrix.dtype)
    return d_states * scale.astype(d_states.dtype), d_matrix, None, None


_weighted_nll.defvjp(_forward, _backward, symbolic_zeros=True)
