"""Parameters cut in two: the chosen ones, which are trained, and the rest, which costs nothing.

Only the chosen part is differentiated, carried and given optimizer state. Put together again, the
blocks come as several stacks, cut where the chosen set changes, so that the backward pass stops
below the lowest chosen layer and computes no gradient for the weights of a layer that is not
trained.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn.models.matrices import check_array, concatenate
from lmdyn.params.selectors import Path, flatten, select, unflatten
from lmdyn.types import Array, Params, Tree


def _take(leaf, layers):
    """Layers of a stacked parameter, as a slice (no gather) where they are consecutive."""
    if len(layers) == leaf.shape[0]:
        return leaf
    if len(layers) and layers[-1] - layers[0] + 1 == len(layers):
        return leaf[layers[0] : layers[-1] + 1]
    return leaf[np.asarray(layers, int)]


def joined(stacks: Sequence[Mapping[Path, Any]]) -> dict:
    """Concatenates stacks of blocks along their layer axis.

    A parameter that is quantised in only some of the stacks is dequantised.

    Args:
      stacks: each as `{path: leaf}`.

    >>> stack = {("blocks", "mlp", "up", "kernel"): np.ones([2, 6, 10])}
    >>> joined([stack, stack])["blocks"]["mlp"]["up"]["kernel"].shape
    (4, 6, 10)
    """
    return unflatten({path: concatenate([stack[path] for stack in stacks]) for path in stacks[0]})


@dataclasses.dataclass(frozen=True)
class Partition:
    """Which parameters are chosen. Made by `partition`.

    Attributes:
      chosen: `{path: layers}`, as `lmdyn.params.select` returns it.
      depth: L, the number of blocks.
    """

    chosen: dict[Path, tuple[int, ...] | None]
    depth: int

    def __hash__(self) -> int:
        return hash((tuple(self.chosen.items()), self.depth))

    @property
    def lowest(self) -> int:
        """The lowest block that the backward pass reaches.

        It is 0 with the embedding, and L with only what is above the blocks.
        """
        layers = [min(layers) for layers in self.chosen.values() if layers]
        if any(path[0] in ("embed", "positions") for path in self.chosen):
            return 0
        return min(layers, default=self.depth)

    @property
    def cuts(self) -> tuple[int, ...]:
        """Where one stack of blocks ends and the next begins: from 0 to L."""
        edges = {0, self.depth}
        # An edge is where a layer is chosen and its neighbour is not.
        for layers in self.chosen.values():
            for layer in layers or ():
                edges |= {
                    edge
                    for edge, other in ((layer, layer - 1), (layer + 1, layer + 1))
                    if other not in layers
                }
        return tuple(sorted(edges))

    def split(self, params: Params) -> tuple[Tree, Tree]:
        """`(chosen, rest)`.

        `chosen` is a nested dict of the chosen parameters alone; those of blocks have their chosen
        layers on the leading axis. `rest` is everything else, its blocks already cut into a tuple
        of stacks.
        """
        chosen: dict[Path, Any] = {}
        rest: dict[Any, Any] = {}
        stacks: list[dict[Path, Any]] = [{} for _ in self.cuts[1:]]
        for path, leaf in flatten(params).items():
            layers = self.chosen.get(path, ())
            if path[0] != "blocks":
                (chosen if layers is None else rest)[path] = leaf
                continue
            if layers:
                chosen[path] = _take(leaf, layers)
            # Of a stack's layers all are chosen or none: the first one tells.
            for stack, (start, stop) in zip(stacks, itertools.pairwise(self.cuts), strict=True):
                if start not in (layers or ()):
                    stack[path[1:]] = self._layers(leaf, start, stop)
        rest = unflatten(rest)
        rest["blocks"] = tuple(unflatten(stack) for stack in stacks)
        return unflatten(chosen), rest

    def merge(self, chosen: Tree, rest: Tree) -> Params:
        """Parameters for `lmdyn.models.forward`, the blocks a tuple of stacks."""
        outer = {path: leaf for path, leaf in flatten(rest).items() if path[0] != "blocks"}
        stacks = [flatten(stack) for stack in rest["blocks"]]
        for path, leaf in flatten(chosen).items():
            layers = self.chosen[path]
            if layers is None:
                outer[path] = leaf
                continue
            for number, part in self.pieces(leaf, layers):
                stacks[number][path[1:]] = part
        params = unflatten(outer)
        params["blocks"] = tuple(unflatten(stack) for stack in stacks)
        return params

    def pieces(self, leaf: Array, layers: Sequence[int]) -> list[tuple[int, jax.Array]]:
        """Chosen layers of a parameter, cut where stacks of blocks are.

        A gradient comes back by one concatenation; were they slices, each would come back as a
        whole array of zeros about it.

        Args:
          leaf: `[l, ...]`, the chosen layers alone.
          layers: which l they are.

        Returns:
          `[(number of the stack, its layers of leaf), ...]`.

        >>> import numpy as np
        >>> part = Partition({("blocks", "bias"): (0, 2, 3)}, depth=4)
        >>> [
        ...     (number, piece.tolist())
        ...     for number, piece in part.pieces(np.array([5.0, 6.0, 7.0]), (0, 2, 3))
        ... ]
        [(0, [5.0]), (2, [6.0, 7.0])]
        """
        numbers, sizes = zip(*self.stacks(layers), strict=True)
        parts = (
            [jnp.asarray(leaf)] if len(sizes) == 1 else jax.lax.split(jnp.asarray(leaf), sizes)
        )  # one piece is not a copy
        return list(zip(numbers, parts, strict=True))

    def stacks(self, layers: Sequence[int]) -> list[tuple[int, int]]:
        """The stacks of blocks that hold chosen layers: `[(number, how many layers), ...]`."""
        return [
            (number, stop - start)
            for number, (start, stop) in enumerate(itertools.pairwise(self.cuts))
            if start in layers
        ]

    def join(self, chosen: Tree, rest: Tree) -> Params:
        """Ordinary parameters again: one stack of blocks."""
        params = self.merge(chosen, rest)
        stacks = [flatten(stack) for stack in params.pop("blocks")]
        params["blocks"] = joined(stacks)
        return params

    def cut(self, blocks: Params) -> tuple[Params, ...]:
        """The blocks as a tuple of stacks, nothing taken out."""
        leaves = flatten(blocks)
        return tuple(
            unflatten({path: self._layers(leaf, *ends) for path, leaf in leaves.items()})
            for ends in itertools.pairwise(self.cuts)
        )

    def _layers(self, leaf, start, stop):
        """Layers of a stack; all of them are the stack itself, uncopied."""
        return leaf[start:stop] if stop - start < self.depth else leaf


def partition(params: Params, selector: str) -> Partition:
    """The partition of `params` that a selector describes.

    Args:
      params: the nested dict of parameters (or of their shapes).
      selector: see `lmdyn.params.select`.

    Raises:
      InputError: the selector matches nothing, or quantised parameters.

    >>> import jax, numpy as np
    >>> params = {
    ...     "embed": {"embedding": np.ones([5, 2])},
    ...     "blocks": {"mlp": {"up": {"kernel": np.ones([4, 2, 3])}}},
    ... }
    >>> part = partition(params, "blocks[1:3].mlp")
    >>> chosen, rest = part.split(params)
    >>> part.cuts, part.lowest, chosen["blocks"]["mlp"]["up"]["kernel"].shape
    ((0, 1, 3, 4), 1, (2, 2, 3))
    >>> part.join(chosen, rest)["blocks"]["mlp"]["up"]["kernel"].shape
    (4, 2, 3)
    """
    chosen = select(params, selector)
    leaves = flatten(params)
    for path in chosen:
        check_array(".".join(path), leaves[path], "trained")
    depth = next(leaf.shape[0] for path, leaf in leaves.items() if path[0] == "blocks")
    return Partition(chosen, depth)
