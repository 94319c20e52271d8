"""Which attention kernel runs: the fastest of the device that fits, tried once before it is used.

| device | kernels, fastest first |
| --- | --- |
| NVIDIA GPU | `cudnn` (16 bits; causal order or a window), `flash` (anything), `blocked` |
| TPU | `splash` (128 queries or more), `blocked` |
| CPU | `blocked` |

None of them stores an array `[T, S]`. Who reads probabilities (a tap) gets them from `blocked`, a
block of queries at a time. Shape letters: B batch, T queries, S keys, H heads, G key-value heads, K
head width.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lmdyn.models.attention.blocked import blocked_attention
from lmdyn.models.attention.cudnn import cudnn_attention
from lmdyn.models.attention.flash import flash_attention
from lmdyn.models.attention.reach import CAUSAL, Reach
from lmdyn.models.attention.splash import TILE, splash_attention
from lmdyn.types import Array

KERNELS: dict[str, Callable] = {
    "blocked": lambda query, key, value, reach: blocked_attention(query, key, value, reach)[0],
    "cudnn": cudnn_attention,
    "flash": flash_attention,
    "splash": splash_attention,
}
FASTEST = {"gpu": ("cudnn", "flash"), "tpu": ("splash",)}
"""By device, fastest first; `blocked` comes after them, and runs everywhere."""

LOG = logging.getLogger("lmdyn.models.attention")


class Call(NamedTuple):
    """What the choice depends on.

    >>> Call("gpu", "bfloat16", width=64, share=3, queries=512).segmented
    False
    """

    platform: str
    """`cpu`, `gpu` or `tpu`."""
    dtype: str
    width: int
    """K."""
    share: int
    """H / G."""
    queries: int
    """T."""
    past: int = 0
    """S - T."""
    window: int | None = None
    segmented: bool = False
    tapped: bool = False


def choose_kernel(setting: str, call: Call) -> str:
    """The kernel that runs; the log is told once, and why where a faster one does not.

    Args:
      setting: `auto`, or a kernel that is asked for, which is taken where it fits.
      call: what is computed, and where.

    Returns:
      A name of `KERNELS`.

    >>> choose_kernel("auto", Call("cpu", "float32", width=64, share=3, queries=512))
    'blocked'
    """
    asked = () if setting in ("auto", "blocked") else (setting,)
    faster = () if setting == "blocked" else (*asked, *FASTEST.get(call.platform, ()))
    reasons, failed = [], False
    for name in dict.fromkeys(faster):
        why = _misfit(name, call)
        if why is None and (why := _failure(name, call)) is not None:
            failed = True
        if why is None:
            break
        reasons.append(f"not {name}: {why}")
    else:
        name = "blocked"
    # Slower than it could be is worth a warning; probabilities were asked for, and cost that.
    slower = failed or (name == "blocked" and bool(reasons) and not call.tapped)
    _say(logging.WARNING if slower else logging.INFO, name, call, reasons)
    return name


def _say(level, name, call, reasons):
    has = {"documents": call.segmented, "a window": call.window, "a cache": call.past}
    kind = " and ".join(what for what, there in has.items() if there) or "causal order"
    what = f"attention on {call.platform}, {call.dtype}, heads of {call.width}, {kind}: {name}"
    _log_once(level, "; ".join([what, *reasons]))


@functools.cache
def _log_once(level, line):
    LOG.log(level, "%s", line)


def _misfit(name: str, call: Call) -> str | None:
    """Why a kernel cannot do this; None if it can."""
    if name not in FASTEST.get(call.platform, ()):
        return f"it does not run on a {call.platform}"
    if call.tapped:
        return "a tap reads probabilities"
    if name == "splash" and call.queries < TILE:
        return f"{call.queries} queries are less than its tile of {TILE}"
    if name != "cudnn":
        return None
    if call.dtype not in ("bfloat16", "float16"):
        return f"it has no {call.dtype}"
    return (
        "it knows no documents"
        if call.segmented
        else "it has no keys before the queries"
        if call.past
        else None
    )


def _failure(name: str, call: Call) -> str | None:
    """Why a kernel that should fit does not work here; None if it works, or cannot be tried.

    A kernel rests on the device, its driver and libraries, so it is tried rather than looked up.
    Programs for devices that are not here (`lmdyn plan`) are compiled on trust.
    """
    if call.platform != jax.default_backend():
        return None
    past, window = (64 if call.past else 0), call.window and 64
    return _trial(name, call._replace(queries=256, past=past, window=window))


@functools.cache
def _trial(name, call):
    """Runs a small case forward and backward, against the plain implementation."""
    rng, (length, past) = np.random.default_rng(0), (call.queries, call.past)
    draw = lambda tokens, heads: rng.normal(size=(2, tokens, heads, call.width))
    arrays = (draw(length, 2 * call.share) * call.width**-0.5, draw(length + past, 2))
    arrays = [jnp.asarray(a, call.dtype) for a in (*arrays, draw(length + past, 2))]
    weights, segments = draw(length, 2 * call.share), np.arange(length + past) // 100
    both = np.stack([segments, segments // 2]) if call.segmented else None
    reach = Reach(None if both is None else both[:, past:], both, call.window)

    def run(kernel):
        def objective(*arrays):
            output = KERNELS[kernel](*arrays, reach).astype(jnp.float32)
            return jnp.sum(output * weights), output

        program = jax.jit(jax.grad(objective, (0, 1, 2), has_aux=True)).lower(*arrays).compile()
        return jax.tree.map(lambda x: np.asarray(x, np.float32), program(*arrays))

    try:
        found = run(name)
    except Exception as error:  # whatever a driver or a compiler may say
        return f"it failed in a trial ({str(error).strip().splitlines()[0][:200]})"
    bound = 1e-4 if call.dtype == "float32" else 0.03
    for mine, plain in zip(jax.tree.leaves(found), jax.tree.leaves(run("blocked")), strict=True):
        gap = np.abs(mine - plain).max() / np.abs(plain).max()
        if not gap < bound:
            return f"it was off by {gap:.2g} of the largest value in a trial"
    return None


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    reach: Reach = CAUSAL,
    *,
    kernel: str = "auto",
    tap: Callable | None = None,
    mask: Array | None = None,
    sharding: NamedSharding | None = None,
) -> tuple[jax.Array, Any]:
    """Softmax attention of scaled queries, by the fastest kernel that fits.

    Args:
      query: `[B, T, H, K]`, already multiplied by `1 / sqrt(K)`.
      key: `[B, S, G, K]`, S >= T.
      value: `[B, S, G, K]`.
      reach: what a query may see.
      kernel: `auto`, or a name of `KERNELS`, see `choose_kernel`.
      tap: None, or a reducer of probabilities, see `blocked_attention`.
      mask: `[B, T]` booleans for `tap`: which queries count.
      sharding: what divides the B rows over devices, or None.

    Returns:
      `[B, T, H, K]`, and what `tap` gathered (None without it).

    >>> x = jnp.ones([1, 3, 2, 4])
    >>> attend(x, x, x)[0].shape
    (1, 3, 2, 4)
    """
    (_, length, heads, width), (_, keys, groups, _) = query.shape, key.shape
    call = Call(
        platform=_platform(sharding),
        dtype=query.dtype.name,
        width=width,
        share=heads // groups,
        queries=length,
        past=keys - length,
        window=reach.window,
        segmented=reach.query_segment is not None,
        tapped=tap is not None,
    )
    chosen = choose_kernel(kernel, call)
    if chosen == "blocked":
        return blocked_attention(query, key, value, reach, tap, mask)
    if chosen == "cudnn" or sharding is None or sharding.mesh.size == 1:
        return KERNELS[chosen](query, key, value, reach), None
    return _divided(KERNELS[chosen], (query, key, value), reach, sharding), None


def _platform(sharding):
    """Of the devices that the program is for, which may not be here."""
    devices = getattr(getattr(sharding, "mesh", None), "devices", None)
    platform = jax.default_backend() if devices is None else devices.flat[0].platform
    return "gpu" if platform in ("cuda", "rocm") else platform


def _divided(kernel, arrays, reach, sharding):
    """The kernel on each device's own rows, and its own heads where they are divided evenly.

    The compiler cannot divide a kernel that it does not see into.
    """
    mesh, rows = sharding.mesh, sharding.spec[0]
    taken = rows if isinstance(rows, tuple) else (rows,)
    others = tuple(name for name in mesh.axis_names if name not in taken)
    count = int(np.prod([mesh.shape[name] for name in others], dtype=int))
    by_head = PartitionSpec(rows, None, others if arrays[1].shape[2] % count == 0 else None)
    by_row = jax.tree.map(lambda _: PartitionSpec(rows), reach)
    return jax.shard_map(
        lambda arrays, reach: kernel(*arrays, reach),
        mesh=mesh,
        in_specs=((by_head,) * 3, by_row),
        out_specs=by_head,
        check_vma=False,
    )(arrays, reach)
