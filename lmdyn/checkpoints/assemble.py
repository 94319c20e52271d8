"""Tensors of a file, one at a time, into our stacked float32 parameters.

Peak memory is one copy of the model plus a piece of one tensor: every leaf is allocated once,
filled layer by layer, and handed to JAX without a copy.
"""

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from flax import traverse_util

from lmdyn import models
from lmdyn.checkpoints.families import Rule
from lmdyn.checkpoints.layouts import LAYOUTS
from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig
from lmdyn.types import Params

BLOCK_NUMBERS = 2**18


class Checkpoint(NamedTuple):
    """The architecture and the parameters of a file.

    >>> config = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> checkpoint = Checkpoint(config, models.init(models.LanguageModel(config)))
    >>> checkpoint.params["embed"]["embedding"].shape
    (257, 6)
    """

    config: ModelConfig
    params: Params
    """a nested dict of float32 JAX arrays"""


class TensorSource(NamedTuple):
    """The tensors of a checkpoint, unread.

    >>> W = np.arange(6.0).reshape(3, 2)
    >>> source = TensorSource("a file", {"w": W.shape}, lambda name, start, stop: W[start:stop])
    >>> source.read("w", 1, 2)
    array([[2., 3.]])
    """

    label: str
    """for messages"""
    shapes: dict[str, tuple[int, ...]]
    """by name"""
    read: Callable[[str, int, int], np.ndarray]
    """`(name, start, stop)`: those rows (of the first axis) of a tensor, as floats"""


class Place(NamedTuple):
    """Where one leaf of our tree comes from."""

    rule: Rule
    shape: tuple[int, ...]
    """without the layer axis"""
    layers: int | None
    """how many; None for a leaf that is not stacked"""

    def sources(self) -> list[str]:
        """Names of the file's tensors, in the order of layers.

        >>> Place(Rule("blocks/mlp_norm/scale", "h.{layer}.ln_2.weight"), (6,), 2).sources()
        ['h.0.ln_2.weight', 'h.1.ln_2.weight']
        """
        if self.layers is None:
            return [self.rule.source]
        return [self.rule.source.format(layer=i) for i in range(self.layers)]


def places(config: ModelConfig, rules: Iterable[Rule]) -> list[Place]:
    """The place of every leaf of the parameters of `config`.

    Args:
      config: of the model.
      rules: of its family.

    Raises:
      InputError: the table of this family has no place for a leaf.

    >>> from lmdyn.checkpoints.families import family
    >>> config = models.ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> places(config, family("llama").rules)[0].rule.source
    'layers.{layer}.self_attn.k_proj.weight'
    """
    by_path = {rule.path: rule for rule in rules}
    found = []
    for path, shape in _shapes(config).items():
        if path not in by_path:
            raise InputError(f"this family of checkpoints has no tensor for {path}")
        stacked = "{layer}" in by_path[path].source
        found.append(
            Place(by_path[path], shape[1:] if stacked else shape, config.depth if stacked else None)
        )
    return found


@functools.lru_cache
def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every leaf, by its path."""
    return {
        path: leaf.shape
        for path, leaf in cast(
            dict, traverse_util.flatten_dict(models.shapes(config), sep="/")
        ).items()
    }


def assemble(
    config: ModelConfig,
    rules: Iterable[Rule],
    source: TensorSource,
    ignored: Iterable[str] = (),
    keep: Callable[[Any], Any] | None = None,
) -> Params:
    """The parameters of `config`, read from `source`.

    Args:
      config: of the model.
      rules: of its family.
      source: the tensors of the checkpoint.
      ignored: regular expressions of tensors that may be there and mean nothing.
      keep: None, or `Place -> leaf or None`: what it gives is taken as it is, without becoming
        float32.

    Raises:
      InputError: names a tensor that is missing, unknown, of another shape, or not finite.

    >>> from lmdyn.checkpoints.families import family
    >>> config = models.ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model, rules = models.LanguageModel(config), family("llama").rules
    >>> files = {one.name: one for one in disassemble(config, rules, models.init(model))}
    >>> shapes = {name: one.shape for name, one in files.items()}
    >>> source = TensorSource(
    ...     "memory", shapes, lambda name, *rows: files[name].make()[slice(*rows)]
    ... )
    >>> assemble(config, rules, source)["embed"]["embedding"].shape
    (257, 6)
    """
    wanted = places(config, rules)
    _check_names(wanted, source, ignored)
    leaves = {}
    for place in wanted:
        _check_shapes(config, place, source)
        kept = keep(place) if keep else None
        leaves[place.rule.path] = (
            jax.device_put(_fill(config, place, source)) if kept is None else kept
        )
    return traverse_util.unflatten_dict(leaves, sep="/")


def _check_names(wanted: list[Place], source: TensorSource, ignored: Iterable[str]):
    needed = {name for place in wanted for name in place.sources()}
    if missing := sorted(needed - source.shapes.keys(), key=_natural):
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(
            f"{source.label}: tensor {missing[0]} is missing{more}; the file is not whole, or"
            " config.json is of another model: fetch both again"
        )
    skip = re.compile("|".join(f"(?:{pattern})" for pattern in ignored) or r"(?!)")
    extra = (name for name in source.shapes.keys() - needed if not skip.fullmatch(name))
    if extra := sorted(extra, key=_natural):
        more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
        why = next(
            (why for part, why in FOREIGN.items() if any(part in name for name in extra)),
            "its config describes another one",
        )
        raise InputError(
            f"{source.label}: tensor {extra[0]} has no place in this model{more}; {why}"
        )


FOREIGN = {
    "lora_": "merge the adapter first: merge_and_unload() of the peft library",
    "qweight": "the checkpoint is quantised: take one in float32, float16 or bfloat16",
    "scales": "the checkpoint is quantised: take one in float32, float16 or bfloat16",
    "weight_scale": "the checkpoint is quantised: take one in float32, float16 or bfloat16",
    "experts.": "it is of a mixture of experts, which is not supported",
    "vision": "it is of a model that reads images, too, which is not supported",
}
"""Parts of tensors' names that say what a model is instead; and the remedy."""


def _natural(name: str):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _check_shapes(config: ModelConfig, place: Place, source: TensorSource):
    expected = tuple(LAYOUTS[place.rule.layout].shape(place.shape, config))
    for name in place.sources():
        if tuple(source.shapes[name]) != expected:
            got = list(source.shapes[name])
            raise InputError(
                f"{source.label}: tensor {name} has shape {got}; its config wants {list(expected)}:"
                " fetch both again"
            )


def _fill(config: ModelConfig, place: Place, source: TensorSource) -> np.ndarray:
    layout = LAYOUTS[place.rule.layout]
    expected = tuple(layout.shape(place.shape, config))
    out = _aligned((place.layers, *place.shape) if place.layers is not None else place.shape)
    for layer, name in enumerate(place.sources()):
        target = out if place.layers is None else out[layer]
        for start, stop in _rows(expected, place.rule.layout):
            part = layout.take(source.read(name, start, stop), place.rule.part, config)
            rows = (
                target[..., start:stop] if place.rule.layout == "transposed" else target[start:stop]
            )
            np.copyto(rows if stop - start < expected[0] else target, part, casting="same_kind")
            if not np.isfinite(part).all():
                raise InputError(
                    f"{source.label}: tensor {name} holds NaN or infinity; the checkpoint is"
                    " damaged or diverged: fetch it again, or take an earlier one"
                )
    return out


def _rows(shape: tuple[int, ...], layout: str):
    """Rows to read at a time: about a megabyte, so that a transposition stays in the CPU's cache.

    Layouts that mix rows are read whole.
    """
    step = (
        max(1, BLOCK_NUMBERS * shape[0] // max(1, int(np.prod(shape))))
        if layout in ("plain", "transposed")
        else shape[0]
    )
    return [(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An empty float32 array at a multiple of 64 bytes: JAX on a CPU takes it without a copy."""
    size = int(np.prod(shape))
    buffer = np.empty(size + 16, np.float32)
    start = (-buffer.ctypes.data % 64) // 4
    return buffer[start : start + size].reshape(shape)


class Stored(NamedTuple):
    """A tensor of a file to be written.

    >>> Stored("w", (2, 3), lambda: np.zeros([2, 3], np.float32)).make().shape
    (2, 3)
    """

    name: str
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]
    """gives it as a contiguous float32 array of that shape"""


def disassemble(config: ModelConfig, rules: Iterable[Rule], params: Params) -> list[Stored]:
    """The inverse of `assemble`; nothing is copied before `make` is called.

    Args:
      config: of the model.
      rules: of its family.
      params: our tree, as numpy or JAX arrays.

    Raises:
      InputError: a parameter is missing or has another shape than `config` wants.

    >>> from lmdyn.checkpoints.families import family
    >>> config = models.ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> params = models.init(models.LanguageModel(config))
    >>> disassemble(config, family("llama").rules, params)[-1].shape
    (257, 6)
    """
    leaves: dict[str, Any] = cast(dict, traverse_util.flatten_dict(params, sep="/"))
    together: dict[str, list[Place]] = {}
    for place in places(config, rules):
        _check_leaf(leaves, place)
        together.setdefault(place.rule.source, []).append(place)
    stored = []
    for group in together.values():
        group.sort(key=lambda place: place.rule.part)
        layout, paths = LAYOUTS[group[0].rule.layout], [place.rule.path for place in group]
        for layer, name in enumerate(group[0].sources()):
            index: Any = () if group[0].layers is None else layer

            def make(paths=paths, index=index, layout=layout):
                parts = [np.asarray(leaves[path][index], np.float32) for path in paths]
                return np.ascontiguousarray(layout.give(parts, config))

            stored.append(Stored(name, tuple(layout.shape(group[0].shape, config)), make))
    return stored


def _check_leaf(leaves: dict, place: Place):
    full = place.shape if place.layers is None else (place.layers, *place.shape)
    if place.rule.path not in leaves:
        raise InputError(f"parameters have no {place.rule.path}; they are of another model")
    if (shape := tuple(leaves[place.rule.path].shape)) != full:
        raise InputError(
            f"parameter {place.rule.path} has shape {list(shape)}; the model's config wants"
            f" {list(full)}"
        )
