"""From tokens to predictions: logits, losses, and taps on the model and on what it predicts.

Shape letters: B batch, T tokens, S targets (S <= T), D width, V vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from lmdyn.errors import choose
from lmdyn.models.forward import BLOCK_SITES, STATE_SITES, Forward, forward
from lmdyn.models.heads import head_of
from lmdyn.models.modules import LanguageModel
from lmdyn.types import Array, Params

HEAD_SITES = ("nll", "log_probabilities")
SITES = tuple(dict.fromkeys(BLOCK_SITES + STATE_SITES + HEAD_SITES))


def logits(model: LanguageModel, params: Params, tokens: Array, **options: Any) -> jax.Array:
    """Next-token logits in float32. Those of another head than the full one are log-probabilities.

    Args:
      model: what it is.
      params: its parameters.
      tokens: `[B, T]` integers.
      options: as for `forward`.

    Returns:
      `[B, T, V]`.

    >>> import jax.numpy as jnp
    >>> from lmdyn.models import LanguageModel, ModelConfig, init
    >>> model = LanguageModel(
    ...     ModelConfig(
    ...         vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> logits(model, init(model), jnp.ones([1, 5], jnp.int32)).shape
    (1, 5, 11)
    """
    states, head = forward(model, params, tokens, **options).states, head_of(model.config)
    found = head.logits(head.matrices(params), _flat(states))
    return found.reshape(*states.shape[:-1], head.vocab)


def loss(
    model: LanguageModel,
    params: Params,
    inputs: Array,
    targets: Array,
    weights: Array,
    **options: Any,
) -> tuple[jax.Array, tuple[jax.Array, Forward]]:
    """`sum weights * nll`, with its gradient fused: what training and online adaptation minimise.

    Args:
      model: what it is.
      params: its parameters.
      inputs: `[B, T]` integers.
      targets: `[B, S]` integers, S <= T: the last S inputs are scored, the others are context.
      weights: `[B, S]` float32; for the mean over counted tokens, `mask / mask.sum()`.
      options: as for `forward`.

    Returns:
      A float32 scalar (nats), and `(nll [B, S], Forward)`. No gradient flows through the nll.

    >>> import jax.numpy as jnp
    >>> from lmdyn.models import LanguageModel, ModelConfig, init
    >>> model = LanguageModel(
    ...     ModelConfig(
    ...         vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> ids, weights = jnp.ones([1, 5], jnp.int32), jnp.full([1, 5], 0.2)
    >>> total, (nll, _) = loss(model, init(model), ids, ids, weights)
    >>> bool(abs(total - nll.mean()) < 1e-6)
    True
    """
    out, head = forward(model, params, inputs, **options), head_of(model.config)
    total, nll = head.weighted_nll(
        head.matrices(params),
        _flat(out.states[:, -targets.shape[1] :]),
        targets.reshape(-1),
        weights.reshape(-1),
        model.batch_sharding,
    )
    return total, (nll.reshape(targets.shape), out)


def token_nll(
    model: LanguageModel, params: Params, inputs: Array, targets: Array, **options: Any
) -> jax.Array:
    """Negative log-likelihood of each target given its input and what came before.

    Differentiable, but for training `loss` is faster: it does not compute the logits twice.

    Args:
      model: what it is.
      params: its parameters.
      inputs: `[B, T]` integers.
      targets: `[B, T]` integers.
      options: as for `forward`.

    Returns:
      `[B, T]` float32 nats.

    >>> import jax.numpy as jnp
    >>> from lmdyn.models import LanguageModel, ModelConfig, init
    >>> model = LanguageModel(
    ...     ModelConfig(
    ...         vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> ids = jnp.ones([1, 5], jnp.int32)
    >>> token_nll(model, init(model), ids, ids).shape
    (1, 5)
    """
    states, head = forward(model, params, inputs, **options).states, head_of(model.config)
    nll = head.token_nll(
        head.matrices(params), _flat(states), targets.reshape(-1), model.batch_sharding
    )
    return nll.reshape(targets.shape)


def observe(
    model: LanguageModel,
    params: Params,
    inputs: Array,
    targets: Array,
    mask: Array,
    taps: Mapping[str, Callable],
) -> dict:
    """One forward pass for any taps; the head is computed only if a tap asks for predictions.

    Args:
      model: what it is.
      params: its parameters.
      inputs: `[B, T]` integers.
      targets: `[B, T]` integers.
      mask: `[B, T]` booleans: which tokens count.
      taps: `{site: reducer}` with any of `SITES`.

    Returns:
      `{site: reduced}`.

    >>> import jax.numpy as jnp
    >>> from lmdyn.models import LanguageModel, ModelConfig, init
    >>> model = LanguageModel(
    ...     ModelConfig(
    ...         vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ...     )
    ... )
    >>> ids, mask = jnp.ones([1, 5], jnp.int32), jnp.ones([1, 5], bool)
    >>> taps = {
    ...     "mlp.coefficients": lambda c, mask: jnp.sum(
    ...         jnp.where(mask[..., None], jnp.abs(c), 0), (0, 1)
    ...     ),
    ...     "nll": lambda nll, mask: jnp.sum(nll * mask),
    ... }
    >>> found = observe(model, init(model), ids, ids, mask, taps)
    >>> found["mlp.coefficients"].shape, found["nll"].shape  # [L, F], and a number
    ((2, 10), ())
    """
    for site in taps:
        choose("tap site", site, SITES)
    inside = {site: reducer for site, reducer in taps.items() if site not in HEAD_SITES}
    above = {site: reducer for site, reducer in taps.items() if site in HEAD_SITES}
    out = forward(model, params, inputs, mask=mask, taps=inside)
    if not above:
        return dict(out.tapped)
    head, rows = head_of(model.config), (_flat(out.states), targets.reshape(-1), mask.reshape(-1))
    return out.tapped | head.observe(head.matrices(params), rows, above, model.batch_sharding)


def _flat(states):
    """`[B, T, D]` to `[B * T, D]`."""
    return states.reshape(-1, states.shape[-1])
