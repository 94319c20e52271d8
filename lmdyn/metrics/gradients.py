"""The gradient of every sequence, by groups of parameters.

Fernandez et al. 2024, arXiv 2411.04448; docs/methods.md#profiles.

One forward and one backward pass a batch give the norm of each sequence's own gradient, not of the
batch's mean. Between layers only the gradient of the residual stream passes; no gradient of a
matrix is ever made for more than one matrix. Small parameters (norms, biases) get a copy for each
sequence; matrices are `lmdyn.models.matrices.grad_norm`; the embedding and the head, which are one
matrix where they are tied, are put together here.

Shape letters: B batch, T tokens, S tokens of a span, L layers, l those of a group, D width,
V vocabulary, P probes. A name ends in the letters of its shape: `states_BSD`.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn import records
from lmdyn.data import ProbeBatch, check_tokens
from lmdyn.errors import InputError
from lmdyn.models import forward, ops
from lmdyn.models.heads import head_of, project
from lmdyn.models.matrices import GradNormProbe, stored
from lmdyn.models.matrices.grad_norm import gram
from lmdyn.models.modules import LanguageModel
from lmdyn.models.products import einsum
from lmdyn.models.tiles import tile_rows
from lmdyn.params import flatten, group_layers, group_members, group_names, unflatten
from lmdyn.types import Array, Params

EMBED, HEAD = ("embed", "embedding"), ("head", "kernel")
NORM_UNIT = "nats per unit weight"
"""Unit of gradient norms: of a loss in nats, with respect to parameters."""


def gradient_norms(
    model: LanguageModel,
    params: Params,
    inputs: Array,
    targets: Array,
    span: Array,
    groups: Iterable[str] | str | None = None,
    *,
    most: int | None = None,
) -> dict[str, jax.Array]:
    """Norms of the gradient of each sequence's loss: the mean nll over its span.

    A pure function: jit it with `model`, `groups` and `most` static.

    Args:
      model: the model, as `lmdyn.load` returns it.
      params: the model's parameters.
      inputs: `[B, T]` integers.
      targets: `[B, T]` integers.
      span: `[B, T]` booleans over targets: the tokens whose mean nll is the sequence's loss.
        Padding after it changes nothing.
      groups: names of `lmdyn.params.GROUPS` or selectors, one or several; default: all parts of the
        model.
      most: no span has more tokens than this (the head is computed for as many); default T.

    Returns:
      `{group: norms}` in float32: `[l, B]` for a group inside the blocks, a row for each layer that
      it names, and `[B]` for a group with parameters outside (all of its parameters together). 0
      for a sequence whose span is empty.

    Raises:
      InputError: a group that matches nothing.

    >>> from lmdyn import models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> ids = jnp.arange(15).reshape(3, 5) % 11
    >>> found = gradient_norms(
    ...     model,
    ...     models.init(model),
    ...     ids,
    ...     ids + 1,
    ...     ids > 2,
    ...     ["mlp", "blocks[1].attention.query", "all"],
    ... )
    >>> {group: norms.shape for group, norms in found.items()}
    {'mlp': (2, 3), 'blocks[1].attention.query': (1, 3), 'all': (3,)}
    """
    return _norms(model, params, inputs, targets, span, groups, most)[0]


def _norms(model, params, inputs, targets, span, groups, most):
    """`gradient_norms`, and the losses `[B]`."""
    # Squared norms of each sequence's gradient, leaf by leaf: layers of a leaf apart.
    members = _members(params, groups)
    inputs, targets, span = (
        ops.constrain_rows(array, model.batch_sharding) for array in (inputs, targets, span)
    )
    most = most or inputs.shape[1]
    wanted = set().union(*members.values())
    squares, losses = _squares(model, params, inputs, targets, span, wanted, most)

    # The squared norm of a group is the sum over its leaves, layer by layer inside the blocks.
    found = {}
    for group, leaves in members.items():
        layers = group_layers(leaves)
        if layers is None:
            total = sum(
                squares[path] if at is None else squares[path][np.array(at)].sum(0)
                for path, at in leaves.items()
            )
        else:
            inside = {path: at for path, at in leaves.items() if at is not None}
            total = jnp.stack(
                [
                    sum(squares[path][layer] for path, at in inside.items() if layer in at)
                    for layer in layers
                ]
            )
        found[group] = jnp.sqrt(jnp.maximum(total, 0.0))  # rounding may leave a little below zero
    return found, losses


def _members(params, groups):
    """`{group: its parameters}`."""
    groups = (groups,) if isinstance(groups, str) else groups
    return {group: group_members(params, group) for group in groups or group_names(params)}


def _squares(model, params, inputs, targets, span, wanted, most: int):
    """Squared norms of every wanted leaf, `{path: [L, B] or [B]}`, and the losses `[B]`."""
    batch, length = inputs.shape
    leaves = flatten(params)
    leaves.pop(HEAD, None)
    # A sequence's own table has the T rows that it reads, in their order: the gradient of those,
    # and never of all V rows.
    rows_BTD = stored(leaves.pop(EMBED)[inputs])[0]
    reader = model.clone(
        config=dataclasses.replace(model.config, vocab=length), batch_sharding=None
    )

    def states(own, rows_TD):
        """Final states `[T, D]` of one sequence.

        `own` are its copies of small leaves, and the squares of probed matrices.
        """
        kept = {
            path: GradNormProbe(leaves[path], own[path]) if path[-1] == "kernel" else own[path]
            for path in own
        }
        tree = unflatten(leaves | kept | {EMBED: rows_TD})
        return forward(reader, tree, jnp.arange(length)[None]).states[0]

    # Every sequence gets a copy of each small leaf, and a zero [L] for each matrix: the cotangent
    # of that zero is the squared norm of the matrix's gradient (`GradNormProbe`).
    inner = [path for path in leaves if path in wanted and path[0] != "positions"]
    start = {
        path: jnp.zeros(leaves[path].shape[:1]) if path[-1] == "kernel" else leaves[path]
        for path in inner
    }
    own = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (batch, *leaf.shape)), start)
    final_BTD, back = jax.vjp(jax.vmap(states), own, rows_BTD)

    # The loss at the top, then one backward pass through all blocks.
    top = _head(model, params, final_BTD, inputs, targets, span, most)
    found, d_rows_BTD = back(top.d_final)
    squares = {path: _own_square(path, gradient) for path, gradient in found.items()}

    # Outside the blocks: head, embedding (a token that occurs again adds to the same row, so
    # |E|^2 sums d_t . d_u over all t, u of one token), positions (each is read once).
    if HEAD in wanted:
        squares[HEAD] = top.square
    if EMBED in wanted:
        same_BTT = inputs[:, :, None] == inputs[:, None, :]
        products_BTT = jnp.where(same_BTT, jax.vmap(gram)(d_rows_BTD), 0.0)
        squares[EMBED] = jnp.sum(products_BTT, (1, 2))
        if model.config.tied_head:
            # |E + H|^2 = |E|^2 + |H|^2 + 2 E.H, where H has a row for all of the vocabulary.
            both = einsum("btd,bsd,bst->b", d_rows_BTD, top.states, top.d_inputs)
            squares[EMBED] += top.square + 2 * both
    for path in wanted:
        if path[0] == "positions":
            squares[path] = jnp.sum(jnp.square(d_rows_BTD), (1, 2))
    return squares, top.losses


def _own_square(path, gradient):
    """Squared norms `[L, B]` (`[B]` outside the blocks), from gradients `[B, L, ...]`."""
    if path[-1] != "kernel":
        gradient = jnp.sum(jnp.square(gradient), -1)
    return gradient.T


class _Top(NamedTuple):
    """Losses, their gradient, and what the norm of the head's gradient needs."""

    losses: jax.Array
    """`[B]` nats"""
    d_final: jax.Array
    """`[B, T, D]`: gradient of the final states"""
    square: jax.Array
    """`[B]`: squared norm of the head's gradient"""
    states: jax.Array
    """`[B, S, D]`: final states that predict the span"""
    d_inputs: jax.Array
    """`[B, S, T]`: gradient of the logits of those tokens that the sequence reads"""


def _head(model, params, final, inputs, targets, span, most: int) -> _Top:
    """The loss of every sequence and its gradient, at the tokens of spans only.

    Logits `[B, S, V]` are made in blocks of sequences.
    """
    matrix, vocab_first = head_of(model.config).single_matrix(params)

    # The S tokens of each span, first; their weights sum to 1 for every sequence.
    at_BS = jnp.argsort(~span, axis=1, stable=True)[:, :most]
    counts_BS = jnp.take_along_axis(span, at_BS, 1)
    weights_BS = counts_BS / jnp.maximum(counts_BS.sum(1, keepdims=True), 1)
    targets_BS = jnp.take_along_axis(targets, at_BS, 1)
    states_BSD = jnp.take_along_axis(final, at_BS[..., None], 1)

    def one(sequence):
        x_SD, target_S, weight_S, ids_T = sequence
        # d loss / d logits = weight (softmax - one hot)
        logits_SV = project(x_SD, matrix, vocab_first)
        log_p_SV = jax.nn.log_softmax(logits_SV)
        hit_SV = jax.nn.one_hot(target_S, logits_SV.shape[1])
        d_logits_SV = (jnp.exp(log_p_SV) - hit_SV) * weight_S[:, None]
        d_x_SD = project(d_logits_SV.astype(x_SD.dtype), matrix, not vocab_first)
        loss = -jnp.sum(weight_S * jnp.take_along_axis(log_p_SV, target_S[:, None], 1)[:, 0])
        # |x^T d|^2 = sum of (x x^T) (d d^T): no [D, V] gradient is made.
        square = jnp.sum(gram(x_SD) * gram(d_logits_SV))
        return loss, d_x_SD.astype(x_SD.dtype), square, d_logits_SV[:, ids_T]

    # As many sequences at a time as a tile of logits holds.
    several = tile_rows(len(inputs), most * model.config.vocab)
    sequences = (states_BSD, targets_BS, weights_BS, inputs)
    run = (
        jax.vmap(one)
        if several >= len(inputs)
        else functools.partial(jax.lax.map, one, batch_size=several)
    )
    losses, d_states_BSD, square, d_inputs_BST = run(sequences)
    rows_B1 = jnp.arange(len(at_BS))[:, None]
    d_final_BTD = jnp.zeros_like(final).at[rows_B1, at_BS].set(d_states_BSD)
    return _Top(losses, d_final_BTD, square, states_BSD, d_inputs_BST)


@dataclasses.dataclass(frozen=True)
class LayerGradients:
    """Norms of the gradient of each probe's loss, by groups of parameters.

    The loss is the mean nll over the probe's span. Made by `layer_gradients`.

    Attributes:
      norms: `{group: [l, P] or [P]}` float64, in nats per unit weight; see
        `gradient_norms`.
      layers: `{group: l layer indices, or None}`.
      depth: L, of the model.
      losses: `[P]` float64 nats.
      tokens: `[P]`, how many tokens each span has.
    """

    norms: Mapping[str, np.ndarray]
    layers: Mapping[str, tuple[int, ...] | None]
    depth: int
    losses: np.ndarray
    tokens: np.ndarray

    @property
    def profile(self) -> dict[str, np.ndarray]:
        """`{group: [l] or []}`, mean over probes."""
        return {group: norms.mean(-1) for group, norms in self.norms.items()}

    def of(self, chosen: Any) -> "LayerGradients":
        """The same for some of the probes, such as those of one kind of knowledge."""
        norms = {group: norms[..., chosen] for group, norms in self.norms.items()}
        return dataclasses.replace(
            self, norms=norms, losses=self.losses[chosen], tokens=self.tokens[chosen]
        )

    def rows(self) -> list[dict[str, Any]]:
        """`gradient_norm` of each group and layer, mean over probes."""
        count = len(self.losses)
        return [
            records.row("gradient_norm", value, NORM_UNIT, group, layer, sequences=count)
            for group, mean in self.profile.items()
            for layer, value in zip(self.layers[group] or (None,), np.atleast_1d(mean), strict=True)
        ]


def layer_gradients(
    model: LanguageModel,
    params: Params,
    probes: ProbeBatch,
    *,
    groups: Iterable[str] | str | None = None,
    batch: int = 16,
    progress: bool = False,
) -> LayerGradients:
    """`gradient_norms` of any number of probes, in batches.

    Args:
      model: as `lmdyn.load` returns it.
      params: its parameters, quantised ones too.
      probes: a `lmdyn.data.ProbeBatch` of P probes: `inputs`, `targets` and `span`, each `[P, T]`.
      groups: as for `gradient_norms`.
      batch: how many sequences are run at once, at most; batches are of one size, the last one
        padded.
      progress: show a bar on standard error.

    Raises:
      InputError: no probes, a probe without a span, a batch below 1, a group that matches nothing.

    >>> from lmdyn import data, models
    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> config = models.ModelConfig(
    ...     vocab=256, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> probes = data.encode_probes(
    ...     [data.Probe("a b", 2, 3), data.Probe("one two", 4, 7)], byte_tokenizer()
    ... )
    >>> found = layer_gradients(model, models.init(model), probes, groups=["attention", "mlp"])
    >>> found.norms["mlp"].shape, found.profile["attention"].shape, found.tokens.tolist()
    ((2, 2), (2,), [1, 3])
    """
    inputs, targets, span = (
        np.asarray(part) for part in (probes.inputs, probes.targets, probes.span)
    )
    count = len(inputs)
    if not count:
        raise InputError("there are no probes; give at least one")
    if batch < 1:
        raise InputError(f"batch={batch}; it must be at least 1")
    spans = span.sum(1)
    if not spans.all():
        raise InputError(
            f"probe {int(np.flatnonzero(spans == 0)[0])} of {count} has no token in its span; give"
            " every probe one"
        )
    check_tokens(inputs, model.config.vocab)
    check_tokens(targets, model.config.vocab)
    length = int(np.flatnonzero(span.any(0))[-1]) + 1  # what follows the last span changes nothing
    members = _members(params, groups)
    run = _compiled(model, tuple(members), int(spans.max()))

    batches = -(-count // batch)
    runs = ops.runs(model.batch_sharding)  # devices share a batch evenly
    size = runs * -(-count // (batches * runs))
    starts, found = range(0, count, size), []
    if progress:
        from tqdm.auto import tqdm

        starts = tqdm(starts, desc="gradients", unit="batch", leave=False)
    # Batches of one shape: the last one is padded with sequences that are cut off again.
    for start in starts:
        part = [array[start : start + size, :length] for array in (inputs, targets, span)]
        kept = len(part[0])
        norms = run(params, *(np.pad(array, [(0, size - kept), (0, 0)]) for array in part))
        cut = lambda x, kept=kept: np.asarray(x, np.float64)[..., :kept]
        found.append(jax.tree.map(cut, norms))
    norms, losses = jax.tree.map(lambda *parts: np.concatenate(parts, -1), *found)
    layers = {group: group_layers(leaves) for group, leaves in members.items()}
    return LayerGradients(
        {group: norms[group] for group in members}, layers, model.config.depth, losses, spans
    )


@functools.lru_cache(maxsize=16)
def _compiled(model, groups, most):
    """One compilation for a whole series of checkpoints."""
    return jax.jit(
        lambda params, inputs, targets, span: _norms(
            model, params, inputs, targets, span, groups, most
        )
    )
