"""Restrictions of training to some layers, and the parts of a model that they leave.

Shape letters: L layers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lmdyn import models, transforms
from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig
from lmdyn.params import Partition, low_rank, partition
from lmdyn.params.adapters import Adapters
from lmdyn.studies.gradient_localization.config import Method
from lmdyn.transforms.localization import PROFILE_GROUPS
from lmdyn.types import Tree

MODES = ("plain", "freeze", "scale", "random", "complement", "blocks")
RUNNING = ("running freeze", "running scale")


class Rates(NamedTuple):
    """What updates are multiplied by.

    Attributes:
      groups: `{group: [L]}`.
      elsewhere: one number for what is in none of the groups.
    """

    groups: dict[str, np.ndarray]
    elsewhere: float

    def put(self, state: Tree, factor: float) -> Tree:
        """An optimizer's state with these rates in it, times a factor."""
        return transforms.with_rates(
            state,
            {group: factor * values for group, values in self.groups.items()},
            factor * self.elsewhere,
        )

    def of_rest(self) -> "Rates":
        """The rates of what remains when all that has a rate of 0 is left out."""
        return Rates({}, 1.0)


def restriction(mode: str, r: Mapping[str, Sequence[float]], seed: int) -> Rates:
    """The rates of a mode, for a profile.

    `freeze`: 1 where `r > mean(r)`, nothing else. `scale`: `r / mean(r)`, and all else as usual.
    `random`: as many groups and layers as freeze has, drawn by seed. `complement`: those that
    freeze has not. `blocks`: all groups and layers, nothing else. `plain`: everything.

    >>> restriction("freeze", {"attention": [1.0, 2.0], "mlp": [1.0, 4.0]}, seed=0)
    Rates(groups={'attention': array([0., 0.]), 'mlp': array([0., 1.])}, elsewhere=0.0)
    """
    flat = np.concatenate([np.asarray(r[group], float) for group in PROFILE_GROUPS])
    high = flat > flat.mean()
    drawn = np.random.default_rng([seed, 7]).permutation(len(flat)) < high.sum()
    values = {
        "plain": np.ones(len(flat)),
        "freeze": high,
        "scale": flat / flat.mean(),
        "random": drawn,
        "complement": ~high,
        "blocks": np.ones(len(flat)),
    }[mode]
    cut = np.split(
        values.astype(float), np.cumsum([len(r[group]) for group in PROFILE_GROUPS])[:-1]
    )
    return Rates(
        dict(zip(PROFILE_GROUPS, cut, strict=True)), 1.0 if mode in ("plain", "scale") else 0.0
    )


def selector(rates: Rates) -> str:
    """What has a rate above 0, for a partition that costs as little as it can.

    >>> selector(Rates({"attention": np.array([0.0, 1.0]), "mlp": np.array([0.0, 0.0])}, 0.0))
    'blocks[1].attention'
    """
    if rates.elsewhere:
        return "all"
    named = (
        (group, ",".join(map(str, np.flatnonzero(values))))
        for group, values in rates.groups.items()
    )
    return "+".join(f"blocks[{layers}].{group}" for group, layers in named if layers)


def trained_part(
    method: Method, architecture: ModelConfig, rates: Rates | None = None
) -> Partition | Adapters:
    """What a method trains, as a partition or adapters, with what has a rate of 0 left out.

    Args:
      method: the method.
      architecture: of the model.
      rates: None leaves nothing out.
    """
    form = models.shapes(architecture)
    kept = partition(form, "all" if rates is None else selector(rates))
    if method.adapters is None:
        return kept
    where = method.adapters
    whole = low_rank(where.where, rank=where.rank, scale=where.scale).partition(form)
    chosen: dict[Any, tuple[int, ...] | None] = {
        path: tuple(sorted(set(layers or ()) & set(kept.chosen.get(path) or ())))
        for path, layers in whole.chosen.items()
    }
    chosen = {path: layers for path, layers in chosen.items() if layers}
    if not chosen:
        raise InputError(
            f"method {method.name}: no adapter at {where.where} stands beside what is trained; give"
            " adapters at blocks"
        )
    return dataclasses.replace(whole, part=Partition(chosen, whole.part.depth))


def check_method(method: Method, architecture: ModelConfig) -> None:
    """Raises an `InputError` for adapters that do not fit the model."""
    trained_part(method, architecture)
