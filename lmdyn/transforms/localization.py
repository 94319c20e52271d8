"""Updates restricted to where knowledge is: masks and rates by layer.

Fernandez et al. 2024, arXiv 2411.04448, section 4; docs/methods.md#traced-gradient-layers.

These are optax transformations of *updates*. They belong at the end of a chain, after the rule and
its weight decay: a rule such as Adam divides a constant factor out of its gradients again, and
weight decay moves also what has no gradient.

    optax.chain(optax.adamw(1e-5), localize(profile, mode="scale"))

A mask computes everything and throws it away. What is frozen from first to last is left out by a
partition instead, which costs neither gradient nor optimizer state: `partition(params,
trained(profile))`.

Layers are addressed by groups (`lmdyn.params.groups`): `"attention"`, `"mlp"`, or any selector.
Shape letter: L layers.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from lmdyn.errors import InputError, choose
from lmdyn.params import GROUPS
from lmdyn.params.partitions import Partition, partition
from lmdyn.params.selectors import check_selector, flatten, unflatten
from lmdyn.types import ArrayLike, Params, Tree

PROFILE_GROUPS = ("attention", "mlp")
"""The groups that a profile is read at, unless others are given."""


def layer_rates(rates: Any, part: Partition | None = None) -> optax.GradientTransformation:
    """Multiplies the updates of every layer by a rate of its own.

    Args:
      rates: `{group: [L] or one number}`, or `[L]` for the blocks as a whole. A parameter in
        several groups gets the product; one in no group passes unchanged.
      part: the partition, where the updates are those of its chosen parameters alone (groups that
        it leaves out are passed over).

    Raises:
      InputError: rates that are negative or not finite; and when the optimizer's state is made, a
        group that matches nothing or rates for another number of layers.

    >>> updates = {
    ...     "blocks": {"mlp": {"up": {"kernel": jnp.ones([2, 1, 3])}}},
    ...     "head": {"kernel": jnp.ones([1, 3])},
    ... }
    >>> scaled, _ = layer_rates({"mlp": [0.0, 0.5]}).update(updates, optax.EmptyState())
    >>> (
    ...     scaled["blocks"]["mlp"]["up"]["kernel"][:, 0, 0].tolist(),
    ...     scaled["head"]["kernel"][0, 0].tolist(),
    ... )
    ([0.0, 0.5], 1.0)
    """
    rates = {group: np.asarray(values, np.float32) for group, values in _by_group(rates).items()}
    for group, values in rates.items():
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise InputError(
                f"the rates of {group} are {values.tolist()}; a rate is finite and at least 0"
            )
    return _by_layer(rates, part, lambda update, rate: update * rate.astype(update.dtype))


def layer_mask(mask: Any, part: Partition | None = None) -> optax.GradientTransformation:
    """Lets the updates of some layers through and stops those of the others.

    Parameters of the others keep every bit.

    Args:
      mask: `{group: [L] or one boolean}`, or `[L]` booleans for the blocks as a whole. A parameter
        in several groups is updated if all of them let it; one in no group is updated.
      part: as for `layer_rates`.

    Raises:
      InputError: a mask of anything but booleans; and as `layer_rates`.

    >>> updates = {"blocks": {"mlp": {"up": {"kernel": jnp.ones([2, 1, 3])}}}}
    >>> masked, _ = layer_mask([True, False]).update(updates, optax.EmptyState())
    >>> masked["blocks"]["mlp"]["up"]["kernel"][:, 0, 0].tolist()
    [1.0, -0.0]
    """
    mask = {group: np.asarray(values) for group, values in _by_group(mask).items()}
    for group, values in mask.items():
        if values.dtype != bool:
            raise InputError(
                f"the mask of {group} is {values.tolist()}; a mask is True or False for each layer"
            )
    return _by_layer(mask, part, _let)


def localize(
    profile: Mapping[str, ArrayLike],
    mode: str = "freeze",
    groups: Iterable[str] = PROFILE_GROUPS,
    part: Partition | None = None,
) -> optax.GradientTransformation:
    """Restricts updates to where a relative profile is high, or scales them by it.

    `freeze` (the paper's frozen parameters): updates only what has `r > mean(r)`. Whatever else the
    model has (embedding, norms, head) is frozen, too. `scale` (adaptive rates): updates are
    multiplied by `r / mean(r)`; whatever else the model has is updated as usual, so that equal r
    change nothing. The mean is over all layers of all groups together.

    Args:
      profile: `{group: [L]}`, relative gradient norms r (`lmdyn.metrics.relative_gradients`); one
        number for a group outside the blocks.
      mode: `freeze` or `scale`.
      groups: which groups of the profile are read.
      part: as for `layer_rates`.

    Raises:
      InputError: an unknown mode; a group that the profile lacks; a profile with zeros, negative
        numbers, infinities or NaN; `freeze` with a profile that is equal everywhere; when the
        optimizer's state is made, a profile of another depth than the model.

    >>> profile = {"attention": [0.5, 0.75], "mlp": [1.25, 1.5]}  # mean 1
    >>> params = {
    ...     "blocks": {
    ...         "attention": {"key": {"kernel": jnp.ones([2, 1, 3])}},
    ...         "mlp": {"up": {"kernel": jnp.ones([2, 1, 3])}},
    ...     }
    ... }
    >>> optimizer = optax.chain(optax.sgd(1.0), localize(profile, mode="scale"))
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> updates["blocks"]["attention"]["key"]["kernel"][:, 0, 0].tolist()
    [-0.5, -0.75]
    """
    check_profile(profile, mode, groups)
    if mode == "freeze":
        return _by_layer(_above_mean(profile, groups), part, _let, elsewhere=False)
    profile = _of_groups(profile, groups)
    mean = _mean(profile)
    return layer_rates({group: r / mean for group, r in profile.items()}, part)


def trained(profile: Mapping[str, ArrayLike], groups: Iterable[str] = PROFILE_GROUPS) -> str:
    """The selector of what `localize(profile, mode="freeze")` updates.

    Give it to `partition`, and the rest costs nothing.

    Args:
      profile: as for `localize`.
      groups: as for `localize`.

    Raises:
      InputError: as `localize`.

    >>> trained({"attention": [0.5, 1.2, 0.9], "mlp": [1.1, 1.5, 0.6]})
    'blocks[1].attention+blocks[0,1].mlp'
    """
    check_profile(profile, "freeze", groups)
    chosen = []
    for group, high in _above_mean(profile, groups).items():
        layers = f"[{','.join(map(str, np.flatnonzero(high)))}]" if high.ndim else ""
        if high.any():
            chosen += [term.replace("blocks", "blocks" + layers, 1) for term in _terms(group)]
    return "+".join(chosen)


@dataclasses.dataclass(frozen=True, eq=False)
class Localized:
    """What adapts, and how much, according to a profile. Made by `localized`.

    For `lmdyn.online.OnlineConfig(adapt=...)`.
    """

    profile: Mapping
    mode: str
    groups: tuple[str, ...]

    def partition(self, params: Params) -> Partition:
        """What is adapted: with `freeze` what is above the mean, with `scale` everything.

        What is left out costs nothing.
        """
        check_groups(params, _of_groups(self.profile, self.groups))
        selector = trained(self.profile, self.groups) if self.mode == "freeze" else "all"
        return partition(params, selector)

    def after(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """The optimizer with, for `scale`, the rates of layers at its end."""
        if self.mode == "freeze":
            return optimizer
        return optax.chain(optimizer, localize(self.profile, self.mode, self.groups))


def localized(
    profile: Mapping[str, ArrayLike], mode: str = "freeze", groups: Iterable[str] = PROFILE_GROUPS
) -> Localized:
    """What online adaptation changes, by a relative profile.

    For `OnlineConfig(adapt=localized(profile))`.

    Args:
      profile: as for `localize`.
      mode: `freeze`: only what has `r > mean(r)` adapts, at the price of that alone; `scale`:
        everything does, and the updates are multiplied by `r / mean(r)`.
      groups: as for `localize`.

    Raises:
      InputError: as `localize`; when a model is given, a profile of another depth, with both
        depths.

    >>> params = {
    ...     "blocks": {
    ...         "attention": {"key": {"kernel": np.ones([2, 1, 3])}},
    ...         "mlp": {"up": {"kernel": np.ones([2, 1, 3])}},
    ...     }
    ... }
    >>> localized({"attention": [0.5, 0.75], "mlp": [1.25, 1.5]}).partition(params).chosen
    {('blocks', 'mlp', 'up', 'kernel'): (0, 1)}
    """
    check_profile(profile, mode, groups)
    return Localized(profile, mode, tuple(groups))


def _terms(group: str) -> list[str]:
    """The terms of a group's selector; a group of single layers cannot be addressed by layer."""
    if "[" in group:
        raise InputError(
            f"group '{group}' names single layers; name all of them, such as 'mlp' or"
            " 'blocks.mlp.up', and give L numbers"
        )
    return GROUPS.get(group, group).split("+")


def _by_group(values) -> Mapping:
    return values if isinstance(values, Mapping) else {"blocks": values}


def _of_groups(profile, groups) -> dict[str, np.ndarray]:
    """The wanted groups of a profile, in float64."""
    profile = _by_group(profile)
    groups = ("blocks",) if tuple(profile) == ("blocks",) else tuple(groups)
    if not groups:
        raise InputError("groups=(): name at least one group of the profile")
    return {
        group: np.asarray(profile[choose("group of the profile", group, profile)], np.float64)
        for group in groups
    }


def check_profile(profile: Mapping[str, ArrayLike], mode: str, groups: Iterable[str]) -> None:
    """Checks what `localize` is given, before there is a model.

    Args:
      profile: as for `localize`.
      mode: as for `localize`.
      groups: as for `localize`.

    Raises:
      InputError: as `localize`.

    >>> check_profile({"mlp": [0.5, 1.5]}, "scale", ["mlp"])
    >>> check_profile({"mlp": [0.5, 0.5]}, "freeze", ["mlp"])
    Traceback (most recent call last):
    lmdyn.errors.InputError: the profile is 0.5 everywhere, so that nothing lies above its mean;
    freeze needs a profile that differs
    """
    choose("mode", mode, ("freeze", "scale"))
    found = _of_groups(profile, groups)
    for group, r in found.items():
        bad = np.flatnonzero(~(np.isfinite(r) & (r > 0)))
        if len(bad):
            where = f"layer {bad[0]}" if r.ndim else "all of it"
            raise InputError(
                f"the profile of {group} is {np.atleast_1d(r)[bad[0]]} at {where}; relative norms"
                " are finite and above 0"
            )
    if mode == "freeze" and not any(high.any() for high in _above_mean(profile, groups).values()):
        raise InputError(
            f"the profile is {_mean(found):.6g} everywhere, so that nothing lies above its mean;"
            " freeze needs a profile that differs"
        )


def _mean(profile) -> float:
    return float(np.concatenate([np.atleast_1d(r) for r in profile.values()]).mean())


def _above_mean(profile, groups) -> dict[str, np.ndarray]:
    """`{group: [L] booleans}`: `r > mean(r)`."""
    profile = _of_groups(profile, groups)
    mean = _mean(profile)
    return {group: np.asarray(r > mean) for group, r in profile.items()}


def _let(update, on):
    # Zero times infinity is no zero, so no product. And minus zero, because adding 0.0 would turn a
    # parameter of -0.0 into 0.0.
    return jnp.where(on, update, jnp.array(-0.0, update.dtype))


def placed(tree: Tree, values: Mapping[str, Any], part: Partition | None = None) -> dict:
    """`{path: values that broadcast to the leaf}`, one for each group that a leaf is in.

    Leaves of no group are left out.

    Args:
      tree: parameters, or anything shaped like them.
      values: `{group: [L] or one number}`, NumPy or JAX arrays.
      part: the partition, where the tree is that of its chosen parameters alone.

    Raises:
      InputError: a group that matches nothing, or values for another number of layers.

    >>> tree = {"blocks": {"mlp": {"up": {"kernel": np.ones([2, 1, 3])}}}}
    >>> [found] = placed(tree, {"mlp": np.array([0.5, 1.0])}).values()
    >>> found[0].shape
    (2, 1, 1)
    """
    check_groups(tree, values, part)
    leaves, found = flatten(tree), {}
    for group, value in values.items():
        for path in _members(leaves, group):
            shaped = value if part is None or not value.ndim else value[np.array(part.chosen[path])]
            if value.ndim:
                shaped = shaped.reshape(-1, *[1] * (leaves[path].ndim - 1))
            found.setdefault(path, []).append(shaped)
    return found


def _members(leaves, group: str) -> list:
    """The paths that begin with one of the group's terms."""
    names = [tuple(term.split(".")) for term in _terms(group)]
    return [path for path in leaves if any(path[: len(name)] == name for name in names)]


def check_groups(tree: Tree, values: Mapping[str, Any], part: Partition | None = None) -> None:
    """Checks that groups are there and have one value for each layer.

    Args:
      tree: as for `placed`.
      values: as for `placed`.
      part: as for `placed`.

    Raises:
      InputError: as `placed`.

    >>> check_groups({"head": {"kernel": np.ones([2, 3])}}, {"mlp": np.ones(2)})
    Traceback (most recent call last):
    lmdyn.errors.InputError: selector 'blocks.mlp' matches nothing: the model holds head
    """
    leaves = flatten(tree)
    for group, value in values.items():
        paths = _members(leaves, group)
        if not paths and part is None:
            check_selector(tree, GROUPS.get(group, group))
        for path in paths if value.ndim else ():
            _check_layers(value, group, path, leaves[path], part)


def _by_layer(values, part, function, elsewhere=None) -> optax.GradientTransformation:
    """`function(update, value)` with the value of every layer.

    `elsewhere` for what is in no group (None leaves it as it is).
    """

    def init(params):
        check_groups(params, values, part)
        return optax.EmptyState()

    def update(updates, state, params=None):
        # Each leaf in turn: its groups' values, or `elsewhere` where it is in none.
        leaves = flatten(updates)
        default = [] if elsewhere is None else [np.asarray(elsewhere)]
        for path, found in (dict.fromkeys(leaves, default) | placed(updates, values, part)).items():
            for value in found:
                leaves[path] = function(leaves[path], value)
        return unflatten(leaves), state

    return optax.GradientTransformation(init, update)


def _check_layers(value, group, path, leaf, part):
    """Refuses `[L]` values for what is not a block, or has another depth."""
    if path[0] != "blocks":
        raise InputError(
            f"{group} has {len(value)} values, and {'.'.join(path)} has no layers; give it one"
            " number"
        )
    depth = leaf.shape[0] if part is None else part.depth
    if value.shape != (depth,):
        many = f"{len(value)} layers" if value.ndim == 1 else f"the shape {list(value.shape)}"
        hint = "" if part else "; if only some layers are trained, give their partition as part="
        raise InputError(
            f"{group} has values for {many}, and the parameters have {depth} blocks; give one value"
            f" for each{hint}"
        )
