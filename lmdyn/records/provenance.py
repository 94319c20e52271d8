"""What made a number: command, configuration, versions, device, time and memory."""

import datetime
import os
import platform
import resource
import shlex
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

STUDY_FREE = ("out", "workers", "cache", "states", "small_version_of")
"""Fields of a study's config that its numbers do not depend on: they may change when it is resumed,
and do not distinguish two runs of it."""
PACKAGES = ("lmdyn", "jax", "jaxlib", "flax", "optax", "numpy")


def collect(
    command: list[str],
    config: Mapping[str, Any],
    started: float,
    tokens: int,
    seed: int | None = None,
) -> dict[str, Any]:
    """The content of `FILE.meta.json`.

    Args:
      command: the words of the command line.
      config: every option's value.
      started: `time.time()` at the start.
      tokens: predictions made, over all models.
      seed: None where nothing is random.

    Returns:
      A dict that JSON can hold; wall time in seconds, peak memory of the largest process in MiB.

    >>> meta = collect(["lmdyn", "measure"], {"batch": 8}, time.time() - 2.0, tokens=512)
    >>> meta["command"], meta["config"], 200 < meta["tokens_per_second"] <= 256
    ('lmdyn measure', {'batch': 8}, True)
    """
    seconds = time.time() - started
    return {
        "command": shlex.join(command),
        "config": dict(config),
        "versions": (
            {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
        ),
        "device": device(),
        "xla_flags": os.environ.get("XLA_FLAGS", "").split(),
        "seed": seed,
        "started": (
            datetime.datetime.fromtimestamp(started, datetime.UTC).isoformat(timespec="seconds")
        ),
        "wall_seconds": round(seconds, 3),
        "tokens": tokens,
        "tokens_per_second": round(tokens / max(seconds, 1e-9), 1),
        "peak_memory_mib": round(peak_memory(), 1),
    }


def version(package: str) -> str:
    """The installed version of a package, "unknown" for a source tree that is not installed.

    >>> version("no-such-package")
    'unknown'
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        module = sys.modules.get(package)
        return getattr(module, "__version__", "unknown")


def device() -> str:
    """The devices of this process, such as "8 x TPU v4" or "1 x cpu (x86_64, 2 cores)".

    >>> device()
    '... x cpu (...)'
    """
    import jax

    devices = jax.devices()
    name = f"{len(devices)} x {devices[0].device_kind}"
    return name + (
        f" ({platform.machine()}, {os.cpu_count()} cores)" if devices[0].platform == "cpu" else ""
    )


def peak_memory() -> float:
    """Peak memory in MiB, of this process or the largest that it started and that has ended.

    It is the host's memory; a GPU's own is not in it.

    >>> peak_memory() > 1
    True
    """
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
