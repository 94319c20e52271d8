"""From final states to next-token predictions: logits, losses, and taps on the distribution.

The head is one matrix, its own or the embedding's. Logits `[B, T, V]` are the largest array of a
language model, so nothing here but `logits` ever holds them whole: tokens go through in blocks.

Shape letters: N tokens (batch and time together), D width, V vocabulary.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from lmdyn.errors import InputError
from lmdyn.models import ops
from lmdyn.models.matrices.quantized import QuantizedMatrix, unpack
from lmdyn.types import Array, Params

BLOCK_BYTES = 2**27
"""Logits of one block of tokens take at most this much, on each device."""


def matrix(params: Params) -> tuple[Any, bool]:
    """The head as `[V, D]` (tied) or `[D, V]`, and whether it is `[V, D]`.

    >>> (
    ...     matrix({"head": {"kernel": jnp.ones([4, 9])}})[1],
    ...     matrix({"embed": {"embedding": jnp.ones([9, 4])}})[1],
    ... )
    (False, True)

    Raises:
      InputError: the model's head is of another kind (`lmdyn.models.heads.kinds`), which no one
        matrix is.
    """
    if "head" in params and "kernel" not in params["head"]:
        there = ", ".join(sorted(params["head"]))
        raise InputError(
            f"the model's head has the matrices {there}; this needs a full head, which is one"
            " matrix"
        )
    head, tied = (
        (params["head"]["kernel"], False)
        if "head" in params
        else (params["embed"]["embedding"], True)
    )
    return (unpack(head), True) if isinstance(head, QuantizedMatrix) else (head, tied)


def scores(states: Array, head: Array, tied: bool) -> jax.Array:
    """Logits `[N, V]` in float32 of states `[N, D]`."""
    contracted = ((1,), (1 if tied else 0,))
    return jax.lax.dot_general(
        states,
        head.astype(states.dtype),
        (contracted, ((), ())),
        preferred_element_type=jnp.float32,
    )


def logits(params: Params, states: Array) -> jax.Array:
    """Logits `[..., V]` in float32 of final states `[..., D]`."""
    head, tied = matrix(params)
    flat = scores(states.reshape(-1, states.shape[-1]), head, tied)
    return flat.reshape(*states.shape[:-1], flat.shape[-1])


def _nll(logit, targets):
    """Log-normaliser `[N, 1]` and nll `[N]`."""
    peak = logit.max(-1, keepdims=True)
    normalizer = peak + jnp.log(jnp.sum(jnp.exp(logit - peak), -1, keepdims=True))
    return normalizer, (normalizer - jnp.take_along_axis(logit, targets[:, None], -1))[:, 0]


def _block_rows(rows: int, vocab: int) -> int:
    return max(1, min(rows, BLOCK_BYTES // (4 * vocab)))


def _in_blocks(function: Callable, carry: Any, arrays: Sequence[Array], rows: int) -> Any:
    """`carry, out = function(carry, arrays[i : i + rows])` over all rows; `out`s are joined and cut
    to length.
    """
    length = arrays[0].shape[0]
    count = -(-length // rows)
    if count == 1:
        return function(carry, arrays)
    rows = -(-length // count)
    padded = [jnp.pad(a, [(0, rows * count - length)] + [(0, 0)] * (a.ndim - 1)) for a in arrays]
    carry, out = jax.lax.scan(
        function, carry, [a.reshape(count, rows, *a.shape[1:]) for a in padded]
    )
    return carry, jax.tree.map(lambda o: o.reshape(rows * count, *o.shape[2:])[:length], out)


def _by_device(
    function: Callable, rows: jax.sharding.NamedSharding | None, arrays: Sequence[Array]
) -> Any:
    """`function(*arrays)`, on each run of rows that lies on devices of its own: outputs have a
    leading axis for it.

    Every device then goes through its own rows block by block, and nothing is exchanged between
    blocks.
    """
    count = ops.runs(rows)
    return jax.vmap(function)(
        *[ops.constrain_rows(a.reshape(count, -1, *a.shape[1:]), rows) for a in arrays]
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def weighted_nll(
    states: Array,
    head: Array,
    targets: Array,
    weights: Array,
    tied: bool,
    rows: jax.sharding.NamedSharding | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`sum_i weights_i nll_i`, and every nll, without ever holding all logits.

    The gradient is computed in the forward pass, while a block's probabilities are at hand, so the
    head's product is not done twice. The nll per token is for reporting: no gradient flows through
    it.

    Args:
      states: `[N, D]`.
      head: `[V, D]` if tied else `[D, V]`.
      targets: `[N]` integers.
      weights: `[N]` float32; 0 leaves a token out.
      rows: None, or the sharding that divides the N tokens.

    Returns:
      A float32 scalar in nats, and `[N]` float32 nats.

    >>> total, nll = weighted_nll(
    ...     jnp.ones([2, 3]), jnp.ones([3, 4]), jnp.array([0, 1]), jnp.ones(2) / 2, False
    ... )
    >>> round(float(total), 4), nll.shape  # log 4
    (1.3863, (2,))
    """
    if ops.runs(rows) > 1:
        head = ops.all_gather_axis(head, int(tied), rows)
        total, nll = _by_device(
            lambda x, target, weight: weighted_nll(x, head, target, weight, tied),
            rows,
            (states, targets, weights),
        )
        return total.sum(), nll.reshape(-1)

    def block(total, rows):
        x, target, weight = rows
        _, nll = _nll(scores(x, head, tied), target)
        return total + jnp.sum(nll * weight), nll

    vocab = head.shape[0 if tied else 1]
    return _in_blocks(
        block, jnp.float32(0), (states, targets, weights), _block_rows(states.shape[0], vocab)
    )


def _weighted_nll_forward(states, head, targets, weights, tied, rows) -> Any:
    return _scored_with_slopes(
        states.value, head.value, targets.value, weights.value, tied, rows, head.perturbed
    )


def _scored_with_slopes(states, head, targets, weights, tied, rows, learns) -> Any:
    """`(total, nll), (d states, d head)`; where the head does not learn, its gradient is None, and
    is not computed.
    """
    if ops.runs(rows) > 1:
        head = ops.all_gather_axis(head, int(tied), rows)
        one = lambda x, target, weight: _scored_with_slopes(
            x, head, target, weight, tied, None, learns
        )
        (total, nll), (d_states, d_head) = _by_device(one, rows, (states, targets, weights))
        return (total.sum(), nll.reshape(-1)), (
            d_states.reshape(states.shape),
            d_head.sum(0) if learns else None,
        )
    vocab = head.shape[0 if tied else 1]

    def block(carry, rows):
        total, d_head = carry
        x, target, weight = rows
        logit = scores(x, head, tied)
        normalizer, nll = _nll(logit, target)
        hit = jax.lax.broadcasted_iota(jnp.int32, logit.shape, 1) == target[:, None]
        d_logit = ((jnp.exp(logit - normalizer) - hit) * weight[:, None]).astype(x.dtype)
        d_x = scores(d_logit, head, not tied).astype(x.dtype)
        total = total + jnp.sum(nll * weight)
        if not learns:
            return (total, None), (nll, d_x)
        pair = (d_logit, x) if tied else (x, d_logit)
        grown = jax.lax.dot_general(
            *pair, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
        return (total, grown if d_head is None else d_head + grown), (nll, d_x)

    rows = _block_rows(states.shape[0], vocab)
    start = jnp.zeros(head.shape, jnp.float32) if learns and states.shape[0] > rows else None
    arrays = (states, targets, weights)
    (total, d_head), (nll, d_states) = _in_blocks(block, (jnp.float32(0), start), arrays, rows)
    return (total, nll), (d_states, d_head.astype(head.dtype) if learns else None)


def _weighted_nll_backward(tied, rows, saved, cotangents):
    d_states, d_head = saved
    scale = cotangents[0]
    if isinstance(scale, SymbolicZero):
        return None, None, None, None
    return (
        d_states * scale.astype(d_states.dtype),
        None if d_head is None else d_head * scale,
        None,
        None,
    )


weighted_nll.defvjp(_weighted_nll_forward, _weighted_nll_backward, symbolic_zeros=True)


def token_nll(
    states: Array,
    head: Array,
    targets: Array,
    tied: bool,
    rows: jax.sharding.NamedSharding | None = None,
) -> jax.Array:
    """Nll `[N]` in nats, differentiable; the backward pass makes each block's logits again.

    Args: as for `weighted_nll`.
    """
    if ops.runs(rows) > 1:
        head = ops.all_gather_axis(head, int(tied), rows)
        return _by_device(
            lambda *a: token_nll(a[0], head, a[1], tied), rows, (states, targets)
        ).reshape(-1)

    @jax.checkpoint
    def block(carry, rows):
        x, target = rows
        return carry, _nll(scores(x, head, tied), target)[1]

    vocab = head.shape[0 if tied else 1]
    return _in_blocks(block, None, (states, targets), _block_rows(states.shape[0], vocab))[1]


def token_scores(
    states: Array,
    head: Array,
    targets: Array,
    tied: bool,
    rows: jax.sharding.NamedSharding | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Nll `[N]` in nats, and `[N]` booleans: whether the target is the most likely token, which
    greedy decoding would write.

    Args: as for `weighted_nll`.

    >>> nll, best = token_scores(
    ...     jnp.eye(2), jnp.array([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]]), jnp.array([1, 2]), False
    ... )
    >>> nll.shape, best.tolist()
    ((2,), [True, False])
    """
    if ops.runs(rows) > 1:
        head = ops.all_gather_axis(head, int(tied), rows)
        found = _by_device(lambda *a: token_scores(a[0], head, a[1], tied), rows, (states, targets))
        return jax.tree.map(lambda out: out.reshape(-1), found)

    def block(carry, rows):
        x, target = rows
        logit = scores(x, head, tied)
        return carry, (_nll(logit, target)[1], jnp.argmax(logit, -1) == target)

    vocab = head.shape[0 if tied else 1]
    return _in_blocks(block, None, (states, targets), _block_rows(states.shape[0], vocab))[1]


def observe(
    params: Params,
    states: Array,
    targets: Array,
    mask: Array,
    taps: Mapping[str, Callable],
    rows: jax.sharding.NamedSharding | None = None,
) -> dict[str, Any]:
    """Taps on predictions of a full head, in blocks of tokens.

    Args:
      states: `[N, D]`; targets: `[N]`; mask: `[N]` booleans.
      taps: reducers for the sites `log_probabilities` (`[n, V]`) and `nll` (`[n]`); each returns
        sums over tokens.
      rows: None, or the sharding that divides the N tokens.

    Returns:
      `{site: sums}`.
    """
    head, tied = matrix(params)
    if ops.runs(rows) > 1:
        name = "embed" if tied else "head"
        params = {
            name: jax.tree.map(lambda m: ops.all_gather_axis(m, int(tied), rows), params[name])
        }
        sums = _by_device(
            lambda x, target, counts: observe(params, x, target, counts, taps),
            rows,
            (states, targets, mask),
        )
        return jax.tree.map(lambda s: s.sum(0), sums)
    vocab = head.shape[0 if tied else 1]
    return observe_with(lambda x: scores(x, head, tied), vocab, states, targets, mask, taps)


def observe_with(
    score: Callable,
    vocab: int,
    states: Array,
    targets: Array,
    mask: Array,
    taps: Mapping[str, Callable],
) -> dict[str, Any]:
    """`observe` for any head. Args: score: states `[n, D]` to scores `[n, V]`, of which softmax
    gives the probabilities. vocab: V, or more where `score` holds several arrays of that size at
    once.
    """

    def block(carry, rows):
        x, target, counts = rows
        logit = score(x)
        normalizer, nll = _nll(logit, target)
        found = {"nll": nll, "log_probabilities": logit - normalizer}
        sums = {site: reducer(found[site], counts) for site, reducer in taps.items()}
        return (sums if carry is None else jax.tree.map(jnp.add, carry, sums)), None

    rows = _block_rows(states.shape[0], vocab)
    arrays = (states, targets, mask)
    start = None
    if states.shape[0] > rows:
        shapes = jax.eval_shape(lambda *a: block(None, [x[:1] for x in a])[0], *arrays)
        start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return _in_blocks(block, start, arrays, rows)[0]
