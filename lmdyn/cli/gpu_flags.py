"""Flags of XLA that help on NVIDIA GPUs, set where a GPU will be used and nobody set others.

XLA ends a process that has a flag it does not know, so each is first looked for in the installed
library. Short kernels are recorded into CUDA graphs (command buffers) by XLA's own defaults.
"""

import importlib.util
import mmap
from collections.abc import MutableMapping
from pathlib import Path

FLAGS = {"xla_gpu_enable_latency_hiding_scheduler": "true", "xla_gpu_triton_gemm_any": "true"}
"""Products and what devices exchange overlap; products that the compiler can fuse with what comes
before and after are compiled by Triton where that is faster. Both are in JAX 0.6 to 0.12."""

LIBRARIES = ("libjax_common.so", "xla_extension.so")


def set_gpu_flags(environment: MutableMapping[str, str]) -> bool:
    """Adds the flags to `XLA_FLAGS`, if a GPU will be used and no flag of GPUs is there.

    To be called before JAX is imported.

    Args:
      environment: such as `os.environ`; changed.

    Returns:
      Whether any was added.
    """
    given = environment.get("XLA_FLAGS", "")
    if "--xla_gpu" in given or not uses_gpu(environment):
        return False
    known = [f"--{name}={value}" for name, value in FLAGS.items() if _knows(name)]
    environment["XLA_FLAGS"] = " ".join([*given.split(), *known])
    return bool(known)


def uses_gpu(environment: MutableMapping[str, str]) -> bool:
    """Whether JAX will run on an NVIDIA GPU: its plugin and a device are here, and are asked for.

    Args:
      environment: such as `os.environ`.
    """
    asked = environment.get("JAX_PLATFORMS", "").lower()
    if asked and not {"cuda", "gpu"} & set(asked.split(",")):
        return False
    if environment.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return False
    return _has_plugin() and _has_device()


def _has_plugin() -> bool:
    names = ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13")
    return importlib.util.find_spec("jax_plugins") is not None and any(
        importlib.util.find_spec(name) is not None for name in names
    )


def _has_device() -> bool:
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"))


def _knows(flag: str) -> bool:
    """Whether the installed XLA has a flag of that name."""
    found = importlib.util.find_spec("jaxlib")
    for folder in (found.submodule_search_locations or ()) if found else ():
        for path in (Path(folder) / name for name in LIBRARIES):
            if path.exists():
                with (
                    path.open("rb") as file,
                    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
                ):
                    return content.find(flag.encode() + b"\0") >= 0
    return False
