"""Costs read from a compiled program: FLOPs of its matrix products, bytes its devices exchange.

XLA's own cost analysis counts the body of a loop once, however often it runs. Here every loop is
multiplied out by the trip count that XLA wrote into the program.
"""

import collections
import dataclasses
import functools
import math
import re
from typing import Any

import numpy as np

SIZES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "f16": 2,
    "bf16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program: its result's type, what it does, and the rest of the line.

    >>> Instruction("dot", "f32[2,3]", "(%a, %b), lhs_contracting_dims={1}").kind
    'dot'
    """

    kind: str
    type: str
    rest: str


def program_costs(
    text: str, mesh: tuple[int, ...], axes: tuple[str, ...]
) -> tuple[float, dict[tuple[str, str], float]]:
    """What one device does in one run of a compiled program.

    Args:
      text: the program (`compiled.as_text()`), partitioned for a mesh.
      mesh: the mesh's shape; devices are numbered in its order.
      axes: their names.

    Returns:
      FLOPs of matrix products (a multiply-add counted as 2), and bytes received by (kind, axes), as
      a ring of devices would exchange them.

    >>> import jax, jax.numpy as jnp
    >>> repeat = lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, length=5)[0]
    >>> text = jax.jit(repeat).lower(jnp.ones([7, 7])).compile().as_text()
    >>> program_costs(text, (1,), ("data",))[0] == 5 * 2 * 7**3
    True
    """
    computations, entry = _parse(text)

    @functools.cache
    def inside(name: str) -> collections.Counter:
        found: Any = collections.Counter()  # of floats, which it can count as well
        body = computations.get(name, {})
        for one in body.values():
            if one.kind == "dot":
                found["dot"] += _dot(one, body)
            elif one.kind.removesuffix("-start") in COLLECTIVES:
                kind = one.kind.removesuffix("-start")
                group = _group(one.rest, math.prod(mesh))
                found[kind, _along(group, mesh, axes)] += _received(
                    kind, _bytes(one.type), len(group)
                )
            else:  # what a loop's body or a fusion holds, times the loop's trip count
                times = (
                    int(m[1])
                    if (m := re.search(r'"known_trip_count":\{"n":"(\d+)"', one.rest))
                    else 1
                )
                for called in re.findall(r"(?:calls|body|to_apply)=%?([\w.\-]+)", one.rest):
                    for key, value in inside(called).items():
                        found[key] += times * value
        return found

    found: dict[Any, float] = dict(inside(entry))
    return float(found.pop("dot", 0.0)), found


def _parse(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """`{computation: {name: instruction}}`, and the name of the one that is run."""
    computations, entry, body = {}, "", {}
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            body = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif one := re.match(
            r"\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$", line
        ):
            body[one[1]] = Instruction(one[3], one[2], one[4])
    return computations, entry


def _shapes(text: str) -> list[tuple[str, list[int]]]:
    return [
        (kind, [int(n) for n in dims.split(",") if n])
        for kind, dims in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", text)
    ]


def _bytes(text: str) -> int:
    return sum(SIZES.get(kind, 0) * math.prod(dims) for kind, dims in _shapes(text))


def _dot(one: Instruction, body: dict[str, Instruction]) -> float:
    name, over = (
        re.match(r"(?:[a-z]+\d*\[\S* )?%?([\w.\-]+)", one.rest),
        re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.rest),
    )
    assert name and over, f"a product that cannot be read: {one}"
    left, contracted = body[name[1]], over[1]
    dims = _shapes(left.type)[0][1]
    return (
        2.0
        * math.prod(_shapes(one.type)[0][1])
        * math.prod(dims[int(n)] for n in contracted.split(",") if n)
    )


def _received(kind: str, size: int, devices: int) -> float:
    """Bytes that one of a ring of devices receives, for a result of `size` bytes."""
    share = (devices - 1) / devices
    return size * {
        "all-reduce": 2 * share,
        "reduce-scatter": devices - 1,
        "collective-permute": 1,
    }.get(kind, share)


def _group(rest: str, devices: int) -> list[int]:
    """The devices that the first device exchanges with, itself among them."""
    if m := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return [int(n) for n in m[1].split(",")]
    if m := re.search(r"replica_groups=\[\d+,(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest):
        grid = np.arange(devices).reshape([int(n) for n in m[2].split(",")])
        grid = grid.transpose([int(n) for n in m[3].split(",")]) if m[3] else grid
        return grid.reshape(-1, int(m[1]))[0].tolist()
    if m := re.search(
        r"replica_groups=mesh\[([^\]]+)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}", rest
    ):
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", m[1])}
        ids = _ids(m[2], devices).reshape(list(sizes.values()))
        chosen = re.findall(r"'(\w+)'", m[3])
        return (
            ids[tuple(slice(None) if name in chosen else 0 for name in sizes)].reshape(-1).tolist()
        )
    if m := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", rest):
        return [int(m[1]), int(m[2])]
    return list(range(devices))


def _ids(text: str | None, devices: int) -> np.ndarray:
    """The order of a group's mesh: by number, or `[8,4]T(1,0)`-like, or a list."""
    ids = np.arange(devices)
    if not text:
        return ids
    if m := re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        grid = ids.reshape([int(n) for n in m[1].split(",")])
        return grid.transpose([int(n) for n in m[2].split(",")]).reshape(-1) if m[2] else ids
    return np.array([int(n) for n in re.findall(r"\d+", text)])


def _along(group: list[int], mesh: tuple[int, ...], axes: tuple[str, ...]) -> str:
    """The axes of the mesh along which a group's devices differ."""
    places = np.array(np.unravel_index(group, mesh))
    return (
        "+".join(
            axis for axis, place in zip(axes, places, strict=True) if len(set(place.tolist())) > 1
        )
        or "none"
    )
