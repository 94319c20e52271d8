"""What a metric is: four pure functions, as an optimizer is two; and what its rows hold, in words.

- `taps`: which sites of the network it reads, and the reducer that runs there
- `init`: the shapes of what its taps return -> an empty state
- `update`: (state, tapped, mask) -> state, once per batch; states hold sums, so that they merge by
  addition
- `finish`: (state, params) -> result, on the host

Metrics combine into one, so that any number of them costs one forward pass per batch.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn import records
from lmdyn.errors import InputError
from lmdyn.records import Quantity
from lmdyn.types import Tree


@dataclasses.dataclass(frozen=True, eq=False)
class Metric:
    """A measurement, as pure functions; see the top of this file. Made by `sums`, or by hand.

    Attributes:
      taps: `{site: reducer}`, see `lmdyn.models.forward`.
      init: `{site: shapes of what the reducer returns} -> state`, a pytree of `Sum`s.
      update: `(state, tapped, mask [B, T]) -> state`.
      finish: `(state, params) -> result`; a result has `rows()`, or is a number or `[L]` of them.
      quantities: what its rows hold, in words: title, unit, site, caption.
      parts: the metrics that a combined one is made of, by name.
    """

    taps: Mapping[str, Callable]
    init: Callable[[Any], Any]
    update: Callable[[Any, Mapping[str, Any], jax.Array], Any]
    finish: Callable[[Any, Any], Any]
    quantities: tuple[Quantity, ...] = ()
    parts: Mapping[str, "Metric"] = dataclasses.field(default_factory=dict)

    def rows(self, result: Any) -> list[dict[str, Any]]:
        """The rows of a result of `finish`: one for each layer, or one for the whole model.

        Raises:
          InputError: the result has no `rows()`, and is not a number or `[L]` of one quantity.

        >>> share = sums({}, lambda sums, count, params: [0.5, 0.25], Quantity("share", "Share"))
        >>> [(r["layer"], r["value"]) for r in share.rows(share.finish(share.init({}), None))]
        [(0, 0.5), (1, 0.25)]
        """
        if self.parts:
            return [r for name, part in self.parts.items() for r in part.rows(result[name])]
        if hasattr(result, "rows"):
            return [dict(r) for r in result.rows()]
        if len(self.quantities) != 1 or np.ndim(result) > 1:
            raise InputError(
                f"a metric's result, {type(result).__name__}, has no rows(); return a number or"
                " [L] of them and give sums() one Quantity, or a result with rows()"
            )
        [quantity] = self.quantities
        values = np.atleast_1d(np.asarray(result, np.float64))
        layers = range(len(values)) if np.ndim(result) else [None]
        return [
            records.row(quantity.name, value, quantity.unit, quantity.site, layer)
            for layer, value in zip(layers, values, strict=True)
        ]


class Sum(NamedTuple):
    """A float32 sum that carries its rounding error along (Knuth's two-sum).

    Renormalised after every addition.

    Good to about 47 bits, so a mean over 1e9 tokens keeps far more than six digits without float64.

    >>> total = add(
    ...     Sum(jnp.float32(1.0), jnp.float32(0.0)), 2.0**-30
    ... )  # float32 alone would lose it
    >>> float(total.value()) == 1 + 2.0**-30
    True
    """

    high: jax.Array
    low: jax.Array

    def value(self) -> np.ndarray:
        """The sum in float64, on the host."""
        return np.asarray(self.high, np.float64) + np.asarray(self.low, np.float64)


def zeros(shape: Sequence[int] = ()) -> Sum:
    """An empty sum.

    >>> zeros((2,)).value().tolist()
    [0.0, 0.0]
    """
    return Sum(jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))


def add(total: Sum, more: Any) -> Sum:
    """`total + more`, for a float32 array or another `Sum`.

    >>> add(add(zeros(), jnp.float32(2.0**24)), jnp.float32(1.0)).value().item() - 2.0**24
    1.0
    """
    high, low = more if isinstance(more, Sum) else (jnp.asarray(more, jnp.float32), 0.0)
    new, lost = _two_sum(total.high, high)
    return Sum(*_two_sum(new, total.low + lost + low))


def _two_sum(a, b):
    """`a + b` rounded, and exactly what the rounding lost."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def merge(first: Tree, second: Tree) -> Tree:
    """The state after both parts of the data, from the states after each.

    >>> merge({"n": add(zeros(), 1.0)}, {"n": add(zeros(), 2.0)})["n"].value().item()
    3.0
    """
    return jax.tree.map(add, first, second, is_leaf=lambda node: isinstance(node, Sum))


def token_sum(value: jax.Array, mask: jax.Array) -> jax.Array:
    """The sum over the tokens that count, in float32: what most reducers return.

    It is a reduction and no product with the mask, so that the compiler joins it to what computes
    `value`: no float32 copy of a `[B, T, F]` array of bfloat16 is made.

    Args:
      value: `[..., F]`, of tokens.
      mask: `[...]` booleans: which tokens count.

    Returns:
      `[F]` float32.

    >>> token_sum(jnp.array([[1.0, 2.0], [4.0, 8.0]]), jnp.array([True, False])).tolist()
    [1.0, 2.0]
    """
    counted = jnp.where(mask[..., None], value, 0).astype(jnp.float32)
    return counted.sum(tuple(range(mask.ndim)))


def sums(
    taps: Mapping[str, Callable], finish: Callable[[Any, float, Any], Any], *quantities: Quantity
) -> Metric:
    """A metric whose state is the sum of what its taps return, and the count of tokens.

    Args:
      taps: `{site: reducer}`; every reducer returns a pytree of sums over tokens.
      finish: `({site: float64 sums}, count: float, params) -> result`.
      *quantities: what the rows hold, in words. With one of them, a result that is a number or
        `[L]` of them needs no `rows()` of its own.

    >>> positive = sums(
    ...     {"nll": lambda nll, mask: jnp.sum((nll > 0) & mask)},
    ...     lambda sums, count, params: sums["nll"] / count,
    ... )
    >>> state = positive.init({"nll": jax.ShapeDtypeStruct((), jnp.float32)})
    >>> state = positive.update(state, {"nll": jnp.float32(3.0)}, jnp.ones([2, 2], bool))
    >>> float(positive.finish(state, None))
    0.75
    """
    is_sum = lambda node: isinstance(node, Sum)

    def init(tapped):
        return {
            "count": zeros(),
            "sums": {site: jax.tree.map(lambda x: zeros(x.shape), tapped[site]) for site in taps},
        }

    def update(state, tapped, mask):
        added = {
            site: jax.tree.map(add, state["sums"][site], tapped[site], is_leaf=is_sum)
            for site in taps
        }
        return {"count": add(state["count"], jnp.sum(mask)), "sums": added}

    def end(state, params):
        return finish(
            jax.tree.map(Sum.value, state["sums"], is_leaf=is_sum),
            float(state["count"].value()),
            params,
        )

    return Metric(taps, init, update, end, quantities)


def combine(**metrics: Metric) -> Metric:
    """One metric of many: one forward pass a batch, results by name.

    >>> from lmdyn import metrics
    >>> both = metrics.combine(nll=metrics.likelihood(), entropy=metrics.knowledge_entropy())
    >>> sorted(both.taps)
    ['mlp.coefficients', 'nll']
    """
    sites = dict.fromkeys(site for metric in metrics.values() for site in metric.taps)

    def reducer(site):
        parts = {name: metric.taps[site] for name, metric in metrics.items() if site in metric.taps}
        return lambda value, mask: {name: part(value, mask) for name, part in parts.items()}

    def seen(tapped, name):
        return {site: tapped[site][name] for site in metrics[name].taps}

    return Metric(
        taps={site: reducer(site) for site in sites},
        init=lambda tapped: {
            name: metric.init(seen(tapped, name)) for name, metric in metrics.items()
        },
        update=lambda state, tapped, mask: {
            name: metric.update(state[name], seen(tapped, name), mask)
            for name, metric in metrics.items()
        },
        finish=lambda state, params: {
            name: metric.finish(state[name], params) for name, metric in metrics.items()
        },
        quantities=tuple({q.name: q for m in metrics.values() for q in m.quantities}.values()),
        parts=metrics,
    )
