"""A profile that is estimated while a model trains, inside the optimizer's state.

And rates of layers that are kept in a state.

The profile of Fernandez et al. 2024 is measured once, before training, on probes. Here it follows
the gradients that training makes anyway: a running mean of their norms by group and layer, over the
norms that batches of pretraining text have. Shape letter: L layers.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmdyn.errors import InputError, choose
from lmdyn.params import group_layers, group_members
from lmdyn.params.selectors import flatten, unflatten
from lmdyn.transforms.localization import PROFILE_GROUPS, check_groups, placed
from lmdyn.types import Tree

DECAY = 0.95
"""Of the running mean, unless another is given: it forgets in about 20 updates."""


class AdjustableRates(NamedTuple):
    """float32 multipliers of updates. Made by `adjustable_rates`."""

    rates: dict[str, jax.Array]
    """`{group: [L]}`"""
    elsewhere: jax.Array
    """scalar, of what is in no group"""


def adjustable_rates(groups: Iterable[str] = PROFILE_GROUPS) -> optax.GradientTransformation:
    """`layer_rates` whose rates are in the optimizer's state, all 1 at first.

    One compiled step serves every choice of them.

    Put other rates into the state with `with_rates`. A rate of 0 keeps every bit of a parameter, as
    `layer_mask` does. It belongs at the end of a chain. (What is frozen from first to last costs
    less when it is left out by a partition; what is chosen anew for each of many small runs costs
    less when nothing is compiled again.)

    Args:
      groups: of the blocks, each with a rate a layer.

    >>> params = {
    ...     "blocks": {"mlp": {"up": {"kernel": jnp.ones([2, 1, 3])}}},
    ...     "head": {"kernel": jnp.ones([1, 3])},
    ... }
    >>> optimizer = optax.chain(optax.sgd(1.0), adjustable_rates(["mlp"]))
    >>> state = with_rates(optimizer.init(params), {"mlp": [0.0, 0.5]}, elsewhere=2.0)
    >>> updates, _ = optimizer.update(params, state, params)
    >>> (
    ...     updates["blocks"]["mlp"]["up"]["kernel"][:, 0, 0].tolist(),
    ...     updates["head"]["kernel"][0, 0].tolist(),
    ... )
    ([-0.0, -0.5], -2.0)
    """
    groups = tuple(groups)

    def init(params):
        depth = next(leaf.shape[0] for path, leaf in flatten(params).items() if path[0] == "blocks")
        state = AdjustableRates({group: jnp.ones([depth]) for group in groups}, jnp.ones([]))
        check_groups(params, state.rates)
        return state

    def update(updates, state, params=None):
        return _multiplied(updates, state.rates, state.elsewhere), state

    return optax.GradientTransformation(init, update)


def with_rates(state: Tree, rates: Mapping, elsewhere: float = 1.0) -> Tree:
    """An optimizer's state with the rates of its `adjustable_rates` replaced.

    Args:
      state: of a chain that has one.
      rates: `{group: [L]}`, at least 0.
      elsewhere: the rate of what is in no group.

    Raises:
      InputError: no such state in it, other groups or another number of layers, or a rate that is
        negative or not finite.

    >>> rule = optax.chain(optax.sgd(1.0), adjustable_rates(["mlp"]))
    >>> params = {
    ...     "blocks": {"mlp": {"up": {"kernel": jnp.ones([2, 1, 1])}}},
    ...     "head": {"kernel": jnp.ones([1, 1])},
    ... }
    >>> state = with_rates(rule.init(params), {"mlp": [0.0, 0.5]}, elsewhere=0.25)
    >>> updates, _ = rule.update(params, state)
    >>> (
    ...     updates["blocks"]["mlp"]["up"]["kernel"].ravel().tolist(),
    ...     updates["head"]["kernel"].item(),
    ... )
    ([-0.0, -0.5], -0.25)
    """
    is_ours = lambda node: isinstance(node, AdjustableRates)
    found = [node for node in jax.tree.leaves(state, is_leaf=is_ours) if is_ours(node)]
    if not found:
        raise InputError(
            "the optimizer has no adjustable_rates whose rates could be set; put one at the end of"
            " its chain"
        )
    given = {group: np.asarray(values, np.float32) for group, values in rates.items()}
    for group, values in {**given, "elsewhere": np.asarray(elsewhere, np.float32)}.items():
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise InputError(
                f"the rates of {group} are {values.tolist()}; a rate is finite and at least 0"
            )
    wanted = {group: old.shape for group, old in found[0].rates.items()}
    if {group: values.shape for group, values in given.items()} != wanted:
        raise InputError(
            f"rates of {', '.join(f'{g} {list(v.shape)}' for g, v in given.items())} do not fit;"
            f" the state has {', '.join(f'{g} {list(shape)}' for g, shape in wanted.items())}"
        )
    made = AdjustableRates(jax.tree.map(jnp.asarray, given), jnp.float32(elsewhere))
    return jax.tree.map(lambda node: made if is_ours(node) else node, state, is_leaf=is_ours)


def _multiplied(updates, rates, elsewhere):
    """`updates * rate` for every group that a leaf is in; `elsewhere` for leaves of no group."""
    leaves = flatten(updates)
    for path, found in ({path: [elsewhere] for path in leaves} | placed(updates, rates)).items():
        for rate in found:
            leaf = leaves[path]
            # Minus zero where nothing may move: adding 0.0 would turn a parameter of -0.0 into 0.0.
            stopped = jnp.array(-0.0, leaf.dtype)
            leaves[path] = jnp.where(rate == 0, stopped, leaf * rate.astype(leaf.dtype))
    return unflatten(leaves)


def group_norms(tree: Tree, groups: Iterable[str] = PROFILE_GROUPS) -> dict[str, jax.Array]:
    """Norms of a gradient by group and layer.

    `{group: [L]}`, or a scalar for a group outside the blocks.

    Args:
      tree: a gradient, shaped like the whole parameters.
      groups: names of `lmdyn.params.GROUPS`, or selectors without layers.

    Raises:
      InputError: a group that matches nothing.

    >>> gradient = {
    ...     "blocks": {"mlp": {"up": {"kernel": jnp.array([[[3.0, 4.0]], [[0.0, 2.0]]])}}}
    ... }
    >>> group_norms(gradient, ["mlp"])["mlp"].tolist()
    [5.0, 2.0]
    """
    leaves, found = flatten(tree), {}
    for group in groups:
        # |g|^2 is the sum over the group's leaves; inside the blocks, layer by layer.
        members = group_members(tree, group)
        inside = group_layers(members) is not None
        square = lambda path, inside=inside: jnp.sum(
            jnp.square(leaves[path].astype(jnp.float32)),
            tuple(range(int(inside), leaves[path].ndim)),
        )
        found[group] = jnp.sqrt(sum(square(path) for path in members))
    return found


class RunningProfile(NamedTuple):
    """The running gradient profile. Made by `relocalize`."""

    count: jax.Array
    """int32 scalar, updates done"""
    norms: dict[str, jax.Array]
    """`{group: [L]}`: running sum of the gradient's norms, with weights `(1 - decay) decay^age`"""
    reference: dict[str, jax.Array]
    """`{group: [L]}`: the norms of the reference"""
    rule: Any
    """the state of the rule"""


def relative(state: RunningProfile, decay: float) -> dict[str, jax.Array]:
    """The relative profile that a state holds: `{group: [L]}`.

    Before the first update it has no meaning.

    >>> state = RunningProfile(
    ...     jnp.int32(1), {"mlp": jnp.array([0.1, 0.3])}, {"mlp": jnp.array([1.0, 2.0])}, None
    ... )
    >>> [
    ...     round(float(r), 3) for r in relative(state, decay=0.9)["mlp"]
    ... ]  # after one update of norms 1 and 3
    [1.0, 1.5]
    """
    seen = 1 - decay ** state.count.astype(jnp.float32)
    return {
        group: norms / jnp.maximum(seen, 1e-12) / state.reference[group]
        for group, norms in state.norms.items()
    }


def relocalize(
    rule: optax.GradientTransformation,
    reference: Mapping,
    mode: str = "freeze",
    *,
    groups: Iterable[str] = PROFILE_GROUPS,
    decay: float = DECAY,
) -> optax.GradientTransformation:
    """A rule whose updates are restricted to where the training's own gradients are large.

    Large compared with those of pretraining text.

    `localize` with a profile that is estimated anew at every update: `r = mean of |g| / reference`,
    where the mean is an exponential one over the batches so far (corrected for its start, as Adam's
    is). `freeze` lets through what has `r > mean(r)` at this update, and nothing else of the model;
    `scale` multiplies by `r / mean(r)`, and the rest of the model is updated as usual. The estimate
    costs a reduction over the gradients, which are there anyway; what is frozen now may be let go
    later, so nothing can be left out.

    The norms are those of a batch's gradient, in which single sequences' gradients cancel in part;
    so the reference must be measured likewise: `group_norms` of the gradients of batches of
    pretraining text, of the same size, averaged.

    Args:
      rule: what makes updates of gradients, with its weight decay and learning rate.
      reference: `{group: [L]}`, norms above 0.
      mode: `freeze` or `scale`.
      groups: which groups are read.
      decay: of the mean; it forgets in about `1 / (1 - decay)` updates.

    Raises:
      InputError: an unknown mode, a decay outside 0 to 1, a group that the reference lacks or a
        norm that is not a positive number; when the state is made, a reference of another depth
        than the model.

    >>> params = {"blocks": {"mlp": {"up": {"kernel": jnp.ones([2, 1, 3])}}}}
    >>> optimizer = relocalize(optax.sgd(1.0), {"mlp": [1.0, 0.5]}, "scale", groups=["mlp"])
    >>> updates, state = optimizer.update(
    ...     params, optimizer.init(params), params
    ... )  # r is twice as large in layer 1
    >>> [round(x, 3) for x in updates["blocks"]["mlp"]["up"]["kernel"][:, 0, 0].tolist()]
    [-0.667, -1.333]
    """
    choose("mode", mode, ("freeze", "scale"))
    if not 0 <= decay < 1:
        raise InputError(f"decay={decay} of a running profile; it must be at least 0 and below 1")
    groups, kept = tuple(groups), {}
    for group in groups:
        choose("group of the reference", group, reference)
        kept[group] = norms = np.asarray(reference[group], np.float32)
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise InputError(
                f"the reference of {group} is {norms.tolist()}; norms are finite and above 0"
            )

    def init(params):
        check_groups(params, kept)
        norms = {group: jnp.zeros(values.shape) for group, values in kept.items()}
        return RunningProfile(
            jnp.zeros([], jnp.int32), norms, jax.tree.map(jnp.asarray, kept), rule.init(params)
        )

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        # n <- decay n + (1 - decay) |g|, per group and layer, from this batch's gradient
        now = group_norms(updates, groups)
        norms = {group: decay * state.norms[group] + (1 - decay) * now[group] for group in groups}
        updates, inner = rule.update(updates, state.rule, params)
        state = RunningProfile(state.count + 1, norms, state.reference, inner)

        # r = (n / (1 - decay^t)) / reference; `freeze` keeps r > mean(r), `scale` takes r / mean(r)
        r = relative(state, decay)
        mean = jnp.mean(jnp.concatenate([jnp.atleast_1d(values) for values in r.values()]))
        if mode == "freeze":
            rates = {group: (values > mean).astype(jnp.float32) for group, values in r.items()}
            elsewhere = jnp.float32(0)
        else:
            rates = {group: values / mean for group, values in r.items()}
            elsewhere = jnp.float32(1)
        return _multiplied(updates, rates, elsewhere), state

    return optax.GradientTransformation(init, update)
