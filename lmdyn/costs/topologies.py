"""TPU devices that are not here, whose compiler is: libtpu compiles for any topology by its name.

A process that asks for one must not look for a TPU of its own: `ENVIRONMENT` says so, and is meant
for a child process, so that nothing of it reaches the program that asks.
"""

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

from lmdyn.errors import InputError
from lmdyn.types import Device

TPUS = {"v5e": 2, "v5p": 3, "v6e": 2}
"""The dimensions of a slice, by the name of the chip."""

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
}
"""Of a process that compiles for TPUs and has none: no metadata server is asked, nothing logged."""


def has_libtpu() -> bool:
    """Whether libtpu is installed (`pip install lmdyn[tpu]`).

    >>> has_libtpu() in (True, False)
    True
    """
    return importlib.util.find_spec("libtpu") is not None


def parse_topology(chip: str, text: str) -> tuple[int, ...]:
    """The sides of a slice, such as (4, 8) of `4x8`.

    Args:
      chip: a name of `TPUS`.
      text: as Google Cloud writes it.

    Raises:
      InputError: there is no such slice.

    >>> parse_topology("v5e", "4x8"), parse_topology("v5p", "2x2x1")
    ((4, 8), (2, 2, 1))
    """
    sides = tuple(int(n) if n.isdecimal() else 0 for n in text.split("x"))
    one = all(side == 1 for side in sides)
    whole = all(side and side % 2 == 0 for side in sides[:2])
    if len(sides) != TPUS[chip] or min(sides) < 1 or not (one or whole):
        example = "4x8" if TPUS[chip] == 2 else "2x2x4"
        raise InputError(
            f"topology {text}: a slice of {chip} has {TPUS[chip]} sides, the first two even, such"
            f" as {example}; or it is one chip, {'x'.join('1' * TPUS[chip])}"
        )
    return sides


def smallest_topology(chip: str, count: int) -> str:
    """The smallest slice that Google Cloud offers with at least so many chips.

    Args:
      chip: a name of `TPUS`.
      count: chips.

    >>> [smallest_topology("v5e", n) for n in (1, 3, 32)], smallest_topology("v5p", 8)
    (['1x1', '2x2', '4x8'], '2x2x2')
    """
    if count == 1:
        return "x".join("1" * TPUS[chip])
    sides = [2, 2] if TPUS[chip] == 2 else [1, 2, 2]
    while math.prod(sides) < count:  # the shortest side doubles
        sides = sorted([sides[0] * 2, *sides[1:]])
    if TPUS[chip] == 3 and sides[0] == 1:  # the side of one chip stands last
        sides = [*sides[1:], 1]
    return "x".join(map(str, sides))


def topology_devices(chip: str, topology: str) -> Sequence[Device]:
    """The devices of a slice, for `jax.sharding.Mesh`: programs are compiled for them, not run.

    Args:
      chip: a name of `TPUS`.
      topology: such as `4x8`.

    Raises:
      InputError: there is no such slice, or libtpu is not installed.

    >>> topology_devices("v5e", "3x3")
    Traceback (most recent call last):
    lmdyn.errors.InputError: topology 3x3: a slice of v5e has 2 sides, the first two even, such as
    4x8; or it is one chip, 1x1
    """
    sides = parse_topology(chip, topology)
    if not has_libtpu():
        raise InputError(
            f"compiling for {chip} needs libtpu, which is not installed; pip install 'lmdyn[tpu]'"
        )
    from jax.experimental import topologies

    options: dict[str, Any] = {"chips_per_host_bounds": [1, 1, 1]} if math.prod(sides) == 1 else {}
    found = topologies.get_topology_desc(
        platform="tpu", topology_name=f"{chip}:{topology}", **options
    )
    return found.devices
