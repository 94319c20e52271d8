"""Heads on a frozen body: many of them, trained together on the same final states.

Godey et al. 2024, arXiv 2404.07647, section 5.3.

All heads are in one compiled step: a batch of states is read once, and every head makes its own
loss from it. Heads of a ladder of ranks are kept apart rather than padded to the largest rank,
since padding would make each as expensive as that one.

Shape letters: N tokens, D width, V vocabulary.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmdyn.errors import InputError
from lmdyn.metrics.base import add, zeros
from lmdyn.models.heads import Head
from lmdyn.types import Array


class Fitted(NamedTuple):
    """Trained heads. Made by `fit_heads`.

    Attributes:
      params: `{name: params of that head}`.
      losses: `{name: [steps] float32}`: nats per token of each batch, before its update.
    """

    params: dict[str, dict]
    losses: dict[str, np.ndarray]


def fit_heads(
    kinds: Mapping[str, Head],
    states: Array,
    targets: Array,
    *,
    steps: int,
    batch: int = 1024,
    params: Mapping[str, dict] | None = None,
    optimizer: optax.GradientTransformation | None = None,
    seed: int = 0,
) -> Fitted:
    """Trains heads on fixed states; what one does never depends on the others.

    Args:
      kinds: `{name: head}`, from `lmdyn.models.heads`.
      states: `[N, D]`; a memory map is read batch by batch.
      targets: `[N]`.
      steps: updates. Tokens are shuffled anew each time all have been seen.
      batch: tokens of an update.
      params: `{name: params}` to start from, such as `heads.truncations`; heads that are not in
        it start afresh.
      optimizer: one that treats each parameter by itself, so no clipping by a global norm; default
        Adam, its learning rate falling from 2e-3 to 0.
      seed: of fresh parameters and of the order.

    Raises:
      InputError: no head, a number below 1, fewer tokens than a batch, or a loss not finite.

    >>> rng = np.random.default_rng(0)
    >>> states, targets = rng.normal(size=(64, 5)).astype(np.float32), rng.integers(0, 7, 64)
    >>> from lmdyn.models.heads import LowRankHead
    >>> ladder = {f"rank {r}": LowRankHead(5, 7, r) for r in (1, 3, 5)}
    >>> fitted = fit_heads(ladder, states, targets, steps=30, batch=16)
    >>> fitted.params["rank 3"]["down"].shape, len(fitted.losses["rank 1"])
    ((5, 3), 30)
    """
    _check(kinds, states, targets, steps=steps, batch=batch)
    optimizer = (
        optax.adam(optax.cosine_decay_schedule(2e-3, steps)) if optimizer is None else optimizer
    )
    given = dict(params or {})
    trained = {
        name: given.get(name) or jax.jit(head.init)(jax.random.key(seed))
        for name, head in kinds.items()
    }
    trained = jax.tree.map(
        lambda leaf: jnp.array(leaf, jnp.float32), trained
    )  # a copy, since the step takes it over
    state, weights, logged = optimizer.init(trained), jnp.full(batch, 1 / batch, jnp.float32), []

    def update(trained, state, x, target):
        def objective(trained):
            losses = {
                name: head.weighted_nll(trained[name], x, target, weights)[0]
                for name, head in kinds.items()
            }
            return sum(losses.values()), losses

        gradients, losses = jax.grad(objective, has_aux=True)(trained)
        updates, state = optimizer.update(gradients, state, trained)
        return optax.apply_updates(trained, updates), state, losses

    update = jax.jit(update, donate_argnums=(0, 1))
    order = _order(len(targets), batch, seed)
    for _ in range(steps):
        rows = next(order)
        trained, state, losses = update(
            trained, state, np.asarray(states[rows]), np.asarray(targets[rows])
        )
        logged.append(losses)
    logged = {
        name: np.array([float(losses[name]) for losses in logged], np.float32) for name in kinds
    }
    for name, losses in logged.items():
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            raise InputError(
                f"the loss of head '{name}' is {losses[bad[0]]} at step {bad[0]} of {steps}; lower"
                " the optimizer's learning rate"
            )
    return Fitted(trained, logged)


def score_heads(
    kinds: Mapping[str, Head],
    params: Mapping[str, dict],
    states: Array,
    targets: Array,
    *,
    batch: int = 4096,
) -> dict[str, float]:
    """Mean nll in nats of each head, over all tokens.

    Args: as for `fit_heads`; every token counts once.

    >>> states, targets = np.ones([9, 3], np.float32), np.arange(9) % 4
    >>> from lmdyn.models.heads import FullHead
    >>> head = FullHead(3, 4)
    >>> round(
    ...     score_heads(
    ...         {"full": head}, {"full": {"kernel": np.zeros([3, 4])}}, states, targets, batch=4
    ...     )["full"],
    ...     4,
    ... )  # log 4
    1.3863
    """
    _check(kinds, states, targets, batch=batch, at_least=1)

    @jax.jit
    def score(total, x, target, counts):
        nll = {name: head.token_nll(params[name], x, target) for name, head in kinds.items()}
        return {
            name: add(total[name], jnp.sum(jnp.where(counts, nll[name], 0.0))) for name in kinds
        }

    total = {name: zeros() for name in kinds}
    for start in range(0, len(targets), batch):
        x, target = (
            np.asarray(states[start : start + batch]),
            np.asarray(targets[start : start + batch]),
        )
        lacking = batch - len(target)
        padded = np.pad(x, [(0, lacking), (0, 0)]), np.pad(target, (0, lacking))
        total = score(total, *padded, np.arange(batch) < len(target))
    return {name: float(total[name].value()) / len(targets) for name in kinds}


def _check(kinds, states, targets, *, batch, steps=1, at_least=None):
    if not kinds:
        raise InputError("no head to train; name one or more, such as FullHead(width, vocab)")
    for name, value in (("steps", steps), ("batch", batch)):
        if value < 1:
            raise InputError(f"{name}={value}; it must be at least 1")
    if len(states) != len(targets) or len(targets) < (at_least or batch):
        raise InputError(
            f"{len(states)} states and {len(targets)} targets for batches of {batch}; give one"
            " target a state, and a batch or more"
        )
    vocab, most = min(head.vocab for head in kinds.values()), int(np.max(targets))
    if most >= vocab:
        raise InputError(
            f"target {most} is outside the vocabulary of {vocab} that a head has; use heads of the"
            " model's vocabulary"
        )


def _order(count: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of row numbers; all rows once before any comes again.

    Each batch is sorted, so that a memory map is read forwards.
    """
    rng, left = np.random.default_rng(seed), np.zeros(0, int)
    while True:
        while len(left) < batch:
            left = np.concatenate([left, rng.permutation(count)])
        yield np.sort(left[:batch])
        left = left[batch:]
