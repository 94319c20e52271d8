"""A function of many rows, computed a tile of rows at a time, so that no large array is ever whole.

Logits `[N, V]` are the largest array of a language model. Whatever needs them goes through the N
rows in tiles, and every device goes through its own rows.

Shape letters: N rows (tokens of a batch, all in one axis).
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lmdyn.models import ops
from lmdyn.types import Array

TILE_BYTES = 2**27
"""What a tile of rows becomes takes at most this much on a CPU, which is fastest in its caches."""

SHARE, MOST_BYTES = 40, 3 * 2**29
"""On an accelerator it may take one part in so many of the memory, and no more than so many bytes:
8,192 rows of a vocabulary of 49,152. Larger tiles gain nothing; the gradient's are as large."""


_ASSUMED: list[int] = []


@functools.cache
def _device_memory() -> int:
    """Bytes that JAX may use of an accelerator's memory; 0 on a CPU, which does not say."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)


@contextlib.contextmanager
def assume_memory(count: int) -> Iterator[None]:
    """A context in which programs are made for a device that is not here.

    Args:
      count: bytes of its memory.

    >>> with assume_memory(80 * 2**30):
    ...     tile_rows(10**6, numbers=49152)
    8192
    """
    _ASSUMED.append(count)
    try:
        yield
    finally:
        _ASSUMED.pop()


def tile_rows(rows: int, numbers: int) -> int:
    """How many rows make a tile.

    Args:
      rows: N.
      numbers: float32 numbers that are held for each row, such as V.

    Returns:
      1 to N.

    >>> tile_rows(10, numbers=2**15)
    10
    """
    memory = _ASSUMED[-1] if _ASSUMED else _device_memory()
    most = max(TILE_BYTES, min(memory // SHARE, MOST_BYTES))
    return max(1, min(rows, most // (4 * numbers)))


def scan_tiles(function: Callable, carry: Any, arrays: Sequence[Array], rows: int) -> Any:
    """`carry, out = function(carry, arrays[i : i + rows])` over all rows.

    Args:
      function: as for `jax.lax.scan`; a tile that is not full is padded with zeros.
      carry: what goes from tile to tile.
      arrays: each `[N, ...]`.
      rows: of a tile; tiles are made equal, so it may be a little less.

    Returns:
      The last carry, and the `out`s, joined and cut to N rows.

    >>> scan_tiles(lambda c, x: (c + x[0].sum(), 2 * x[0]), 0, [jnp.arange(5)], rows=2)[
    ...     1
    ... ].tolist()
    [0, 2, 4, 6, 8]
    """
    length = arrays[0].shape[0]
    count = -(-length // rows)
    if count == 1:
        return function(carry, arrays)
    rows = -(-length // count)
    padded = [jnp.pad(a, [(0, rows * count - length)] + [(0, 0)] * (a.ndim - 1)) for a in arrays]
    carry, out = jax.lax.scan(
        function, carry, [a.reshape(count, rows, *a.shape[1:]) for a in padded]
    )
    return carry, jax.tree.map(lambda o: o.reshape(rows * count, *o.shape[2:])[:length], out)


def per_device(
    function: Callable, arrays: Sequence[Array], sharding: jax.sharding.NamedSharding | None
) -> Any:
    """`function(*arrays)` on each run of rows that lies on devices of its own.

    Every device then goes through its own rows tile by tile, and nothing is exchanged between
    tiles.

    Args:
      function: of arrays with N / devices rows.
      arrays: each `[N, ...]`.
      sharding: what divides the N rows.

    Returns:
      What the function returns, with a leading axis for the runs.

    >>> per_device(jnp.sum, [jnp.ones([4, 2])], None).tolist()
    [8.0]
    """
    count = ops.runs(sharding)
    return jax.vmap(function)(
        *[ops.constrain_rows(a.reshape(count, -1, *a.shape[1:]), sharding) for a in arrays]
    )
