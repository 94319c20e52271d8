"""What every output head has: from final states to logits, losses, and taps on the distribution.

A head is a frozen dataclass that holds sizes only. Its matrices are a dict that the caller keeps,
`{name: [rows, columns]}`: on its own (`init`), or inside a model's parameters (`matrices`). A new
head says its `shapes` and its `logits`; the rest is here, and never holds the log-probabilities of
all tokens at once.

Shape letters: N tokens (batch and time together), n tokens of a tile, D width, V vocabulary.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from lmdyn.errors import InputError
from lmdyn.models import ops, tiles
from lmdyn.models.matrices.base import stored
from lmdyn.models.products import contract
from lmdyn.types import Array, Params, Tree


@dataclasses.dataclass(frozen=True)
class Head(abc.ABC):
    """An output head; subclass it to add one, and name it in `ModelConfig(head=...)`.

    Attributes:
      width: D.
      vocab: V.

    >>> class TwiceHead(Head):
    ...     shapes = property(lambda self: {"output": (self.width, self.vocab)})
    ...
    ...     def logits(self, matrices, states):
    ...         return jax.nn.log_softmax(2 * project(states, matrices["output"]))
    >>> head = TwiceHead(3, 4)
    >>> matrices = head.init(jax.random.key(0))
    >>> (
    ...     head.size,
    ...     head.token_nll(matrices, jnp.zeros([2, 3]), jnp.array([0, 1])).round(3).tolist(),
    ... )
    (12, [1.3860000371932983, 1.3860000371932983])
    """

    width: int
    vocab: int

    argument: ClassVar[str] = ""
    """What the number after the colon is in `ModelConfig(head="low_rank:8")`; empty for none."""
    scoring: ClassVar[tuple[str, ...]] = ("output",)
    """Matrices that begin near zero in a model, as those that give scores do; others keep the size
    of states."""

    @property
    @abc.abstractmethod
    def shapes(self) -> dict[str, tuple[int, int]]:
        """`{name: (rows, columns)}` of its matrices; `output` gives the vocabulary's scores."""

    @abc.abstractmethod
    def logits(self, matrices: Mapping[str, Array], states: Array) -> jax.Array:
        """Next-token log-probabilities `[n, V]` in float32 of states `[n, D]`."""

    @property
    def place(self) -> str:
        """The name in a model's parameters that holds its matrices."""
        return "head"

    @property
    def size(self) -> int:
        """How many parameters it has."""
        return sum(rows * columns for rows, columns in self.shapes.values())

    @property
    def products(self) -> int:
        """Multiply-adds for one token."""
        return self.size

    @property
    def copies(self) -> int:
        """How many arrays `[n, V]` it holds at once, for the size of tiles."""
        return 1

    def tied(self) -> "Head":
        """The same head, whose matrix is the embedding.

        Raises:
          InputError: it has matrices that the embedding is not.
        """
        raise InputError(
            f"{type(self).__name__} has matrices of its own, which the embedding cannot stand for;"
            " it needs tied_head=False"
        )

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """Fresh float32 matrices, normal with variance 1 / rows."""
        keys = jax.random.split(key, len(self.shapes))
        return {
            name: jax.random.normal(k, shape) * shape[0] ** -0.5
            for k, (name, shape) in zip(keys, self.shapes.items(), strict=True)
        }

    def matrices(self, params: Params) -> dict[str, jax.Array]:
        """Its matrices, from a model's parameters: `{"head": {name: {"kernel": ...}}}`."""
        return {name: params["head"][name]["kernel"] for name in self.shapes}

    def single_matrix(self, params: Params) -> tuple[jax.Array, bool]:
        """The head as one matrix `[D, V]` or `[V, D]`, and whether it is `[V, D]`.

        Raises:
          InputError: the head is not one matrix.
        """
        raise InputError(
            f"the model's head has the matrices {', '.join(sorted(self.shapes))}; this needs a full"
            " head, which is one matrix"
        )

    def gathered(self, matrices: Tree, sharding: NamedSharding) -> Tree:
        """Its matrices as a mesh of devices needs them whose rows are divided by `sharding`."""
        return matrices

    def nll(self, logits: Array, targets: Array) -> jax.Array:
        """Nll `[n]` in nats of targets `[n]`, from what `logits` returned."""
        return -jnp.take_along_axis(logits, targets[:, None], -1)[:, 0]

    def token_nll(
        self, matrices: Tree, states: Array, targets: Array, sharding: NamedSharding | None = None
    ) -> jax.Array:
        """Nll `[N]` in nats, differentiable; the backward pass makes each tile's logits again.

        Args:
          matrices: as `matrices` or `init` returns them.
          states: `[N, D]`.
          targets: `[N]` integers.
          sharding: None, or what divides the N tokens.
        """
        if ops.runs(sharding) > 1:
            return self._divided(self.token_nll, matrices, (states, targets), sharding).reshape(-1)

        @jax.checkpoint
        def tile(carry, rows):
            x, target = rows
            return carry, self.nll(self.logits(matrices, x), target)

        return tiles.scan_tiles(tile, None, (states, targets), self._tile_rows(states))[1]

    def token_scores(
        self, matrices: Tree, states: Array, targets: Array, sharding: NamedSharding | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Nll `[N]` in nats, and `[N]` booleans: whether the target is the most likely token.

        Args:
          matrices: as `matrices` or `init` returns them.
          states: `[N, D]`.
          targets: `[N]` integers.
          sharding: None, or what divides the N tokens.

        Returns:
          Both arrays; greedy decoding would write the targets that are most likely.
        """
        if ops.runs(sharding) > 1:
            found = self._divided(self.token_scores, matrices, (states, targets), sharding)
            return jax.tree.map(lambda out: out.reshape(-1), found)

        def tile(carry, rows):
            x, target = rows
            logits = self.logits(matrices, x)
            return carry, (self.nll(logits, target), jnp.argmax(logits, -1) == target)

        return tiles.scan_tiles(tile, None, (states, targets), self._tile_rows(states))[1]

    def weighted_nll(
        self,
        matrices: Tree,
        states: Array,
        targets: Array,
        weights: Array,
        sharding: NamedSharding | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """`sum_i weights_i nll_i`, and every nll: what training minimises.

        The gradient is made in the forward pass, tile by tile, so that memory is that of one tile's
        log-probabilities. The nll per token is for reporting: no gradient flows through it.

        Args:
          matrices: as `matrices` or `init` returns them.
          states: `[N, D]`.
          targets: `[N]` integers.
          weights: `[N]` float32; 0 leaves a token out.
          sharding: None, or what divides the N tokens.

        Returns:
          A float32 scalar in nats, and `[N]` float32 nats.
        """
        if ops.runs(sharding) > 1:
            rows = (states, targets, weights)
            total, nll = self._divided(self.weighted_nll, matrices, rows, sharding)
            return total.sum(), nll.reshape(-1)
        return cast(Any, _weighted_nll(self, matrices, states, targets, weights))

    def observe(
        self,
        matrices: Tree,
        rows: tuple[Array, Array, Array],
        taps: Mapping[str, Callable],
        sharding: NamedSharding | None = None,
    ) -> dict[str, Any]:
        """Taps on predictions.

        Args:
          matrices: as `matrices` or `init` returns them.
          rows: states `[N, D]`, targets `[N]`, and which tokens count, `[N]` booleans.
          taps: reducers for the sites `log_probabilities` (`[n, V]`) and `nll` (`[n]`); each
            returns sums over tokens.
          sharding: None, or what divides the N tokens.

        Returns:
          `{site: sums}`.
        """
        if ops.runs(sharding) > 1:
            one = lambda matrices, *rows: self.observe(matrices, rows, taps)
            return jax.tree.map(lambda s: s.sum(0), self._divided(one, matrices, rows, sharding))

        def tile(carry, rows):
            x, target, counts = rows
            logits = self.logits(matrices, x)
            normalizer, nll = softmax_nll(logits, target)
            found = {"nll": nll, "log_probabilities": logits - normalizer}
            sums = {site: reducer(found[site], counts) for site, reducer in taps.items()}
            return (sums if carry is None else jax.tree.map(jnp.add, carry, sums)), None

        # Several tiles are a scan, whose sums begin at zero.
        size, start = self._tile_rows(rows[0]), None
        if len(rows[0]) > size:
            shapes = jax.eval_shape(lambda *a: tile(None, [x[:1] for x in a])[0], *rows)
            start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return tiles.scan_tiles(tile, start, rows, size)[0]

    def _tile_rows(self, states):
        return tiles.tile_rows(states.shape[0], self.vocab * self.copies)

    def _divided(self, method, matrices, arrays, sharding):
        """`method(matrices, *arrays)` on each device's own rows: a leading axis for devices."""
        matrices = self.gathered(matrices, sharding)
        return tiles.per_device(lambda *rows: method(matrices, *rows), arrays, sharding)


def project(states: Array, matrix: Array, vocab_first: bool = False) -> jax.Array:
    """`x W` in float32.

    Args:
      states: `[n, D]`.
      matrix: `[D, V]`; `[V, D]` where `vocab_first`.
      vocab_first: whether the columns of W are the matrix's rows.

    Returns:
      `[n, V]`.

    >>> project(jnp.ones([1, 2]), jnp.ones([2, 3])).tolist()
    [[2.0, 2.0, 2.0]]
    """
    return contract(states, matrix.astype(states.dtype), (1, 1 if vocab_first else 0))


def softmax_nll(logits: Array, targets: Array) -> tuple[jax.Array, jax.Array]:
    """Log-normaliser `[n, 1]` and nll `[n]` of logits `[n, V]` and targets `[n]`.

    >>> normalizer, nll = softmax_nll(jnp.zeros([1, 4]), jnp.array([2]))
    >>> normalizer.shape, round(float(nll[0]), 4)  # log 4
    ((1, 1), 1.3863)
    """
    peak = logits.max(-1, keepdims=True)
    normalizer = peak + jnp.log(jnp.sum(jnp.exp(logits - peak), -1, keepdims=True))
    return normalizer, (normalizer - jnp.take_along_axis(logits, targets[:, None], -1))[:, 0]


def output_matrix(params: Params) -> tuple[jax.Array, bool]:
    """What gives the scores of the vocabulary, and whether it is `[V, D]` rather than `[D, V]`.

    It is a full head, the embedding that it is tied to, or the last matrix of another head.

    Args:
      params: a model's parameters.

    >>> output_matrix({"head": {"kernel": jnp.ones([4, 9])}})[1]
    False
    >>> output_matrix({"embed": {"embedding": jnp.ones([9, 4])}})[1]
    True
    """
    if "head" not in params:
        return stored(params["embed"]["embedding"])[0], True
    head = params["head"]
    return stored(head["kernel"] if "kernel" in head else head["output"]["kernel"])


def output_kernel(params: Params) -> jax.Array:
    """`output_matrix` as `[D, V]`, however the parameters store it.

    >>> output_kernel({"embed": {"embedding": jnp.ones([9, 4])}}).shape
    (4, 9)
    """
    matrix, vocab_first = output_matrix(params)
    return matrix.T if vocab_first else matrix


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weighted_nll(head: Head, matrices, states, targets, weights):
    def tile(total, rows):
        x, target, weight = rows
        nll = head.nll(head.logits(matrices, x), target)
        return total + jnp.sum(nll * weight), nll

    rows = head._tile_rows(states)
    return tiles.scan_tiles(tile, jnp.float32(0), (states, targets, weights), rows)


def _weighted_nll_forward(head, matrices, states, targets, weights):
    def tile(carry, rows):
        x, target, weight = rows

        def objective(matrices, x):
            nll = head.nll(head.logits(matrices, x), target)
            return jnp.sum(nll * weight), nll

        # The tile's gradient is made while its log-probabilities are there, and they are dropped.
        differentiate = jax.value_and_grad(objective, (0, 1), has_aux=True)
        (part, nll), (d_matrices, d_x) = differentiate(matrices, x)
        total, grown = carry
        return (total + part, jax.tree.map(jnp.add, grown, d_matrices)), (nll, d_x)

    start = jnp.float32(0), jax.tree.map(jnp.zeros_like, matrices)
    (total, d_matrices), (nll, d_states) = tiles.scan_tiles(
        tile, start, (states, targets, weights), head._tile_rows(states)
    )
    return (total, nll), (d_matrices, d_states)


def _weighted_nll_backward(head, saved, cotangents):
    scale, _ = cotangents
    d_matrices, d_states = jax.tree.map(lambda d: d * scale.astype(d.dtype), saved)
    return d_matrices, d_states, None, None


_weighted_nll.defvjp(_weighted_nll_forward, _weighted_nll_backward)
