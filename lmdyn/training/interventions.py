"""Changes of the parameters inside a run that rest on a measurement.

Such as reactivation; see `lmdyn.transforms.Measured`.
"""

import functools
from typing import Any

import jax

from lmdyn import data, names
from lmdyn.errors import InputError
from lmdyn.training import evaluation, sharding, train_step
from lmdyn.training.config import Intervention
from lmdyn.transforms import Measured


def due(change: Intervention, step: int, last: int) -> bool:
    """Whether a change belongs to this step.

    >>> [
    ...     step
    ...     for step in range(11)
    ...     if due(Intervention("f", "text:x", every=3, until=6), step, last=10)
    ... ]
    [3, 6]
    """
    return (
        0 < step < last
        and step % change.every == 0
        and (change.until is None or step <= change.until)
    )


def make(change: Intervention) -> Measured:
    """The intervention that a config names.

    Raises:
      InputError: there is no such function, it failed, or it did not return a `Measured`.

    >>> make(
    ...     Intervention("lmdyn.transforms.reactivation.reactivation", "text:x", every=3)
    ... ).metric
    Metric(...)
    """
    made = names.make(change.name, change.arguments, {}, "interventions")
    if not isinstance(made, Measured):
        raise InputError(
            f"interventions: {change.name} returned {type(made).__name__}, not a"
            " lmdyn.transforms.Measured"
        )
    return made


class Interventions:
    """The interventions of a run and their texts. Part of `lmdyn.training.train`.

    Args:
      prepared: a `lmdyn.training.prepare.Prepared`.
    """

    def __init__(self, prepared: Any) -> None:
        config = prepared.config
        self.prepared, self.last = prepared, config.steps
        self.changes = list(zip(config.interventions, prepared.changes, strict=True))
        self.batches: dict[int, list] = {}
        where = jax.tree.map(lambda leaf: leaf.sharding, prepared.state)
        part = prepared.part
        self.whole = jax.jit(functools.partial(train_step.whole, part=part))
        split = (lambda params: (params, None)) if part is None else part.split
        self.split = jax.jit(split, out_shardings=(where.params, where.frozen))

    def __call__(self, state: train_step.TrainState, step: int) -> train_step.TrainState:
        """The state after the interventions that are due after `step`.

        It is the same object where none is.
        """
        for number, (change, made) in enumerate(self.changes):
            if not due(change, step, self.last):
                continue
            params = self.whole(state)
            found = evaluation.measure(
                made.metric,
                self.prepared.model,
                params,
                self._batches(number, change),
                self.prepared.mesh,
            )
            chosen, rest = self.split(made.change(params, found))
            state = state._replace(params=chosen, frozen=rest)
        return state

    def _batches(self, number: int, change: Intervention) -> list:
        if number not in self.batches:  # they stay on the devices
            prepared, length = self.prepared, self.prepared.config.data.length
            place = sharding.batch_sharding(prepared.mesh)
            texts = data.documents(change.data)
            found = data.batches(
                texts, prepared.tokenizer, length, prepared.config.data.batch, change.tokens
            )
            self.batches[number] = [
                sharding.put(batch, jax.tree.map(lambda _: place, batch)) for batch in found
            ]
        return self.batches[number]
