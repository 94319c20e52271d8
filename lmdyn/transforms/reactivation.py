"""Reactivation of dormant MLP coefficients.

Kim et al. 2024, arXiv 2410.01380, section 5; docs/methods.md#reactivation.

The coefficients that a layer uses least are scaled up to its mean, by a change of weights alone:
knowledge entropy rises without a step of training. `dormant`, `at_random` and `by_entropy` say
which coefficients and how many; `reactivate` changes parameters; `reactivation` joins them with the
measurement that they need.

Shape letters: L layers, D width, F MLP width.
"""

import numbers
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn.errors import InputError, choose
from lmdyn.models.matrices import check_array
from lmdyn.params.selectors import check_selector
from lmdyn.transforms.measured import Measured
from lmdyn.types import ArrayLike, Params, Tree

CONTROLS = ("none", "random")
STRENGTHS = ("equal", "entropy")
_LARGEST = 1e30
"""A larger factor to the mean could take a float32 weight to infinity."""
_LEAST_DEFICIT = 1e-12
"""An entropy this near to log F, relative to it, differs from it by rounding only."""


def dormant(coefficients: ArrayLike, ratio: ArrayLike) -> np.ndarray:
    """Which coefficients a layer uses least: `C_i <= quantile(C, ratio)`, layer by layer.

    Args:
      coefficients: `[L, F]`, mean absolute coefficients as `lmdyn.metrics.knowledge_entropy` keeps
        them.
      ratio: the share to choose, 0 to 1; a number for all layers, or `[L]`. 0 chooses none (not the
        smallest, as the formula would), 1 chooses all.

    Returns:
      `[L, F]` booleans. The quantile interpolates linearly; of coefficients that are equal to it,
      all are chosen.

    Raises:
      InputError: a coefficient that is negative or no number, or a ratio outside 0 to 1.

    >>> dormant([[4.0, 1.0, 3.0, 2.0], [5.0, 6.0, 7.0, 8.0]], [0.5, 0.0]).astype(int).tolist()
    [[0, 1, 0, 1], [0, 0, 0, 0]]
    """
    coefficients = _coefficients(coefficients)
    ratios = _ratios(ratio, len(coefficients))
    limits = [np.quantile(layer, share) for layer, share in zip(coefficients, ratios, strict=True)]
    return (coefficients <= np.array(limits)[:, None]) & (ratios > 0)[:, None]


def at_random(coefficients: ArrayLike, ratio: ArrayLike, seed: int) -> np.ndarray:
    """As many coefficients of each layer as `dormant` chooses, but any.

    The control of Kim et al. 2024.

    With one seed, a larger ratio chooses what a smaller one does, and more.

    Args:
      coefficients: as for `dormant`.
      ratio: as for `dormant`.
      seed: a whole number from 0.

    Returns:
      `[L, F]` booleans.

    >>> at_random([[4.0, 1.0, 3.0, 2.0], [5.0, 6.0, 7.0, 8.0]], [0.5, 0.25], seed=0).sum(
    ...     1
    ... ).tolist()
    [2, 1]
    """
    _check_seed(seed)
    many = dormant(coefficients, ratio).sum(1, keepdims=True)
    layers, width = np.shape(coefficients)
    ranks = np.random.default_rng(seed).permuted(np.tile(np.arange(width), (layers, 1)), axis=1)
    return ranks < many


def by_entropy(coefficients: ArrayLike, ratio: ArrayLike) -> np.ndarray:
    """A ratio for each layer, larger where its entropy H is further below its bound log F.

    Ratios are proportional to the deficit `1 - H / log F`. One that would exceed 1 is 1, and the
    others, still in proportion, take the rest, so that the mean stays `ratio`. It can only fall
    short where `ratio` asks for more layers than have a deficit: then all of those get 1, and the
    even ones, where a factor to the mean would change nothing, 0. Without any deficit, or with
    equal ones, all layers get `ratio`.

    Args:
      coefficients: `[L, F]`, as for `dormant`.
      ratio: the mean over layers, 0 to 1.

    Returns:
      `[L]` float64.

    Raises:
      InputError: a coefficient that is negative or no number, or a ratio that is not one number
        from 0 to 1.

    >>> one_of_four_used, two_of_four_used = (
    ...     [1.0, 0.0, 0.0, 0.0],
    ...     [1.0, 1.0, 0.0, 0.0],
    ... )  # deficits 1 and 1/2
    >>> [round(float(r), 3) for r in by_entropy([one_of_four_used, two_of_four_used], 0.6)]
    [0.8, 0.4]
    >>> [round(float(r), 3) for r in by_entropy([one_of_four_used, two_of_four_used], 0.9)]
    [1.0, 0.8]
    """
    from lmdyn.metrics.entropies import entropy  # not above: metrics may come to use transforms

    coefficients = _coefficients(coefficients)
    _check_one(ratio)
    layers, width = coefficients.shape
    total = layers * _ratios(ratio, layers)[0]
    dead = ~coefficients.any(1, keepdims=True)  # a layer without any signal has nothing to wake
    deficit = 1 - entropy(np.where(dead, 1.0, coefficients)) / np.log(max(width, 2))
    deficit = np.where(deficit > _LEAST_DEFICIT, deficit, 0.0)
    if not deficit.any():
        return np.full(layers, total / layers)
    full = np.zeros(layers, bool)
    while (rest := (deficit > 0) & ~full).any():
        ratios = np.where(full, 1.0, deficit * (total - full.sum()) / deficit[rest].sum())
        if (ratios <= 1).all():
            return ratios
        full |= ratios > 1
    return full.astype(np.float64)


def check_choice(ratio: ArrayLike, control: str, strength: str, seed: int) -> None:
    """Checks what `choose_coefficients` is given, before anything is measured.

    Args:
      ratio: as for `choose_coefficients`.
      control: as for `choose_coefficients`.
      strength: as for `choose_coefficients`.
      seed: as for `choose_coefficients`.

    Raises:
      InputError: any of them is out of range.

    >>> check_choice(0.5, "none", "equal", 0)
    """
    choose("control", control, CONTROLS)
    choose("strength", strength, STRENGTHS)
    if strength == "entropy":
        _check_one(ratio)
    if control == "random":
        _check_seed(seed)
    _check_ratios(ratio, np.size(ratio))


def choose_coefficients(
    coefficients: ArrayLike,
    ratio: ArrayLike,
    control: Literal["none", "random"] = "none",
    strength: Literal["equal", "entropy"] = "equal",
    seed: int = 0,
) -> np.ndarray:
    """Which coefficients to reactivate, by name: `dormant` or `at_random`.

    With `ratio` in every layer, or `by_entropy`.

    Args:
      coefficients: `[L, F]`.
      ratio: share of them, 0 to 1.
      control: `none`: the dormant ones; `random`: any.
      strength: `equal` in every layer, or by the layer's `entropy`.
      seed: of the control.

    Returns:
      `[L, F]` booleans.

    >>> choose_coefficients([[4.0, 1.0, 3.0, 2.0]], 0.5, control="random", seed=1).sum().item()
    2
    """
    check_choice(ratio, control, strength, seed)
    ratios = by_entropy(coefficients, ratio) if strength == "entropy" else ratio
    return (
        at_random(coefficients, ratios, seed)
        if control == "random"
        else dormant(coefficients, ratios)
    )


def reactivate(
    params: Params,
    coefficients: ArrayLike,
    ratio: ArrayLike = 0.5,
    gain: float = 1.0,
    chosen: Tree = None,
) -> Params:
    """Scales the MLPs' `up` so that each chosen coefficient is at `gain` times its layer's mean.

    `up.kernel[l, :, i]`, and `up.bias[l, i]` where there is one, times `gain * mean(C_l) / C_li`.
    What this does:

    - gated MLPs, `act(x gate) (x up)`, are linear in `up`: exact, and so are plain ones with ReLU;
    - plain MLPs with GELU or SiLU: approximate. With weights at the scale of initialisation, within
      16% of what is asked (gain 1), 33% (gain 2). Where inputs are far from 0, a unit that is
      dormant because they are mostly negative goes further to 0: with large random weights, the
      chosen end at 0 to 1.4 times the mean, 0.4 to 0.7 on average. Measure again to see what was
      reached;
    - all layers at once: the factors are from coefficients before the change, and every layer but
      the first then sees other inputs;
    - a coefficient of 0, or below 1e-30 of the mean, cannot be woken by a factor that float32
      weights bear: it is left as it is.

    Args:
      params: a model's parameters, also traced or divided over devices; not quantised ones.
      coefficients: `[L, F]` mean absolute coefficients, on the host
        (`lmdyn.metrics.knowledge_entropy` keeps them).
      ratio: the share of each layer to choose, as for `dormant`.
      gain: above 0; 1 brings the chosen to their layer's mean.
      chosen: `[L, F]` booleans, in place of `ratio`.

    Returns:
      The same tree with another `up`, in the same dtypes; every other leaf is the same object.

    Raises:
      InputError: a ratio, gain or coefficient out of range, shapes that are not the model's, no
        `up`, or a quantised one.

    >>> params = {"blocks": {"mlp": {"up": {"kernel": jnp.ones([1, 2, 4])}}}}
    >>> awake = reactivate(params, np.array([[4.0, 1.0, 3.0, 2.0]]), ratio=0.5)  # mean 2.5
    >>> awake["blocks"]["mlp"]["up"]["kernel"][0].tolist()
    [[1.0, 2.5, 1.0, 1.25], [1.0, 2.5, 1.0, 1.25]]
    """
    coefficients = _coefficients(coefficients)
    _check_gain(gain)
    if chosen is None:
        chosen = dormant(coefficients, ratio)
    chosen = np.asarray(chosen)
    if chosen.dtype != bool or chosen.shape != coefficients.shape:
        raise InputError(
            f"chosen is {chosen.dtype} of shape {list(chosen.shape)}; it must be bool, of the"
            f" coefficients' shape {list(coefficients.shape)}"
        )
    up = _up(params)
    layers, _, width = up["kernel"].shape
    if coefficients.shape != (layers, width):
        raise InputError(
            f"coefficients have shape {list(coefficients.shape)}; the model's MLPs are [{layers},"
            f" {width}]: measure them on this model"
        )
    # W_up[:, i] <- gain mean(C) / C_i W_up[:, i]; a coefficient that is (nearly) 0 stays as it is.
    mean = np.broadcast_to(coefficients.mean(1, keepdims=True), coefficients.shape)
    awake = chosen & (coefficients * _LARGEST > mean)
    factor = np.divide(
        gain * mean, coefficients, out=np.ones_like(coefficients), where=awake
    ).astype(np.float32)
    scaled = {"kernel": _scaled(up["kernel"], factor[:, None])}
    if "bias" in up:
        scaled["bias"] = _scaled(up["bias"], factor)
    blocks = params["blocks"]
    return {**params, "blocks": {**blocks, "mlp": {**blocks["mlp"], "up": {**up, **scaled}}}}


def reactivation(
    ratio: float = 0.5,
    gain: float = 1.0,
    control: Literal["none", "random"] = "none",
    strength: Literal["equal", "entropy"] = "equal",
    seed: int = 0,
) -> Measured:
    """`reactivate` with the measurement that it needs.

    A parameter transform for whoever has a text.

    Args:
      ratio: the share of coefficients to choose, 0 to 1.
      gain: above 0, see `reactivate`.
      control: `random` chooses as many at random.
      strength: `entropy` divides the share between layers by `by_entropy`.
      seed: of the control.

    Raises:
      InputError: any of them is out of range.

    >>> reactivation(ratio=1.5)
    Traceback (most recent call last):
    lmdyn.errors.InputError: ratio=1.5; a ratio is between 0 and 1
    """
    from lmdyn import metrics

    check_choice(ratio, control, strength, seed)
    _check_gain(gain)

    def change(params, result):
        chosen = choose_coefficients(result.coefficients, ratio, control, strength, seed)
        return reactivate(params, result.coefficients, gain=gain, chosen=chosen)

    return Measured(metrics.knowledge_entropy(), change)


@jax.jit
def _scaled(leaf, factor):
    """`leaf * factor`, and the very bits of `leaf` where the factor is 1.

    A product would lose the smallest numbers.
    """
    return jnp.where(factor == 1, leaf, (leaf * factor).astype(leaf.dtype))


def _coefficients(values) -> np.ndarray:
    """`[L, F]` float64, checked."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(
            f"coefficients have shape {list(values.shape)}; they are [layers, MLP width]"
        )
    bad = np.argwhere(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        layer, unit = bad[0]
        raise InputError(
            f"coefficient {unit} of layer {layer} is {values[layer, unit]}; a mean of absolute"
            " values is finite and not negative"
        )
    return values


def _ratios(ratio, layers: int) -> np.ndarray:
    """`[L]` float64, checked."""
    _check_ratios(ratio, layers)
    return np.broadcast_to(np.asarray(ratio, np.float64), (layers,))


def _check_ratios(ratio, layers: int):
    ratios = np.asarray(ratio, np.float64)
    if ratios.ndim > 1 or ratios.shape not in ((), (layers,)):
        raise InputError(
            f"ratio has shape {list(ratios.shape)}; give one number, or one for each of {layers}"
            " layers"
        )
    bad = ratios[~((ratios >= 0) & (ratios <= 1))]
    if bad.size:
        raise InputError(f"ratio={bad.flat[0]}; a ratio is between 0 and 1")


def _check_one(ratio):
    if np.ndim(ratio):
        raise InputError(
            f"ratio has shape {list(np.shape(ratio))}; by_entropy takes one number, the mean over"
            " layers"
        )


def _check_seed(seed):
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise InputError(f"seed={seed!r}; a seed is a whole number from 0")


def _check_gain(gain):
    if not 0 < gain < np.inf:
        raise InputError(
            f"gain={gain}; a gain is a number above 0, and 1 brings coefficients to their layer's"
            " mean"
        )


def _up(params):
    """`{"kernel": [L, D, F], maybe "bias": [L, F]}` of the MLPs."""
    if isinstance(params.get("blocks"), tuple | list):
        raise InputError(
            "the blocks are cut into several stacks; join them first (lmdyn.params.Partition.join)"
        )
    check_selector(params, "blocks.mlp.up.kernel")
    up = params["blocks"]["mlp"]["up"]
    check_array("blocks.mlp.up.kernel", up["kernel"], "changed")
    return up
