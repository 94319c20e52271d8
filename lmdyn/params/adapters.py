"""Low-rank adapters at a selector (Hu et al. 2022, arXiv 2106.09685).

Every chosen matrix W becomes `W + s A B`, and only A and B are trained.

`low_rank(...)` says where and of which rank; for a given model it makes `Adapters`, which stand
wherever a `Partition` can: in `lmdyn.online.evaluate` and in `lmdyn.training.make_step`. Shape
letters: L layers, R rank.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lmdyn.errors import InputError
from lmdyn.models.matrices import LoRAMatrix, dense, sides
from lmdyn.params.partitions import Partition, joined
from lmdyn.params.selectors import Path, flatten, select, unflatten
from lmdyn.types import Params, Tree, present


@dataclasses.dataclass(frozen=True)
class Adapters:
    """Adapters beside the chosen matrices of a model. Made by `low_rank(...).partition(params)`.

    The adapters themselves are a nested dict like that of the parameters, with `{"a": [l, in, R],
    "b": [l, R, out]}` in place of `{"kernel": [L, in, out]}`, for the l layers that are chosen.

    Attributes:
      part: the matrices that have one.
      rank, scale, seed: see `low_rank`.
    """

    part: Partition
    rank: int
    scale: float
    seed: int

    @property
    def chosen(self) -> dict[Path, tuple[int, ...]]:
        """`{path: layers}` of the matrices, as `lmdyn.params.select` returns it."""
        return {path: present(layers) for path, layers in self.part.chosen.items()}

    @property
    def lowest(self) -> int:
        """The lowest block that the backward pass reaches."""
        return self.part.lowest

    def init(self, params: Params) -> Params:
        """Fresh adapters: A is normal(0, 1 / in), from `seed`; B is zero.

        Nothing changes at first, as `A B` is zero. A layer's A does not depend on which other
        layers have one.
        """
        leaves, found = flatten(params), {}
        for number, path in enumerate(path for path in leaves if _is_matrix(path)):
            if path not in self.chosen:
                continue
            rows, columns = sides(leaves[path])
            key = jax.random.fold_in(jax.random.key(self.seed), number)
            draw = lambda layer, key=key, rows=rows: jax.random.normal(
                jax.random.fold_in(key, layer), (rows, self.rank)
            )
            layers = self.chosen[path]
            found[(*path[:-1], "a")] = jax.vmap(draw)(jnp.asarray(layers)) / rows**0.5
            found[(*path[:-1], "b")] = jnp.zeros((len(layers), self.rank, columns), jnp.float32)
        return unflatten(found)

    def split(self, params: Params) -> tuple[Tree, Params]:
        """`(adapters, rest)`: fresh adapters, and all parameters, their blocks cut into stacks."""
        rest = {name: tree for name, tree in params.items() if name != "blocks"}
        return self.init(params), rest | {"blocks": self.part.cut(params["blocks"])}

    def merge(self, adapters: Tree, rest: Tree) -> Params:
        """Parameters for `lmdyn.models.forward`, with the adapters kept apart.

        A chosen matrix is a `lmdyn.models.LoRAMatrix`.
        """
        beside, stacks = flatten(adapters), [flatten(stack) for stack in rest["blocks"]]
        for path, layers in self.chosen.items():
            factors = [self.part.pieces(beside[(*path[:-1], side)], layers) for side in "ab"]
            for (number, a), (_, b) in zip(*factors, strict=True):
                stacks[number][path[1:]] = LoRAMatrix(stacks[number][path[1:]], a, b, self.scale)
        return {**rest, "blocks": tuple(unflatten(stack) for stack in stacks)}

    def join(self, adapters: Tree, rest: Tree) -> Params:
        """Ordinary parameters again: one stack of blocks.

        Every adapter is added to its matrix, which is decoded if it was quantised.
        """
        params = self.merge(adapters, rest)
        stacks = [flatten(stack) for stack in params["blocks"]]
        for path, layers in self.chosen.items():
            for number, _ in self.part.stacks(layers):
                stacks[number][path[1:]] = dense(stacks[number][path[1:]])
        return {**params, "blocks": joined(stacks)}


@dataclasses.dataclass(frozen=True)
class LowRank:
    """Where adapters go, for any model. Made by `low_rank`, whose arguments are its attributes."""

    selector: str
    rank: int
    scale: float
    seed: int

    def partition(self, params: Params) -> Adapters:
        """The adapters of one model.

        Args:
          params: the nested dict of parameters, or of their shapes; matrices may be quantised.

        Raises:
          InputError: the selector matches nothing or no matrix of a block, or the rank exceeds a
            matrix's smaller side.
        """
        leaves = flatten(params)
        chosen = {
            path: layers
            for path, layers in select(params, self.selector).items()
            if _is_matrix(path)
        }
        if not chosen:
            names = sorted({".".join(path[:-1]) for path in leaves if _is_matrix(path)})
            raise InputError(
                f"selector '{self.selector}' holds no matrix that an adapter can stand beside; "
                f"there are {', '.join(names)}"
            )
        for path in chosen:
            rows, columns = sides(leaves[path])
            if self.rank > min(rows, columns):
                raise InputError(
                    f"rank={self.rank} exceeds the smaller side of {'.'.join(path)}, {rows} by"
                    f" {columns}; use rank<={min(rows, columns)}"
                )
        depth = next(leaf.shape[0] for path, leaf in leaves.items() if path[0] == "blocks")
        return Adapters(Partition(chosen, depth), self.rank, self.scale, self.seed)


def low_rank(
    selector: str = "blocks.mlp", *, rank: int, scale: float = 1.0, seed: int = 0
) -> LowRank:
    """Low-rank adapters beside every matrix of the blocks that a selector reaches.

    Norms, biases, embedding and head have none.

    Args:
      selector: see `lmdyn.params.select`.
      rank: R.
      scale: s of `W + s A B`; the paper's `alpha / R`.
      seed: of A.

    Raises:
      InputError: a rank below 1.

    >>> from lmdyn import models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> params = models.init(models.LanguageModel(config))
    >>> part = low_rank("blocks[1].mlp", rank=2).partition(params)
    >>> adapters, rest = part.split(params)
    >>> jax.tree.map(jnp.shape, adapters["blocks"]["mlp"]["down"])
    {'a': (1, 10, 2), 'b': (1, 2, 6)}
    >>> models.logits(
    ...     models.LanguageModel(config),
    ...     part.merge(adapters, rest),
    ...     jnp.ones([1, 4], jnp.int32),
    ... ).shape
    (1, 4, 11)
    """
    if rank < 1:
        raise InputError(f"rank={rank}: an adapter needs a rank of at least 1")
    return LowRank(selector, rank, scale, seed)


def _is_matrix(path: Path) -> bool:
    return path[0] == "blocks" and path[-1] == "kernel"
