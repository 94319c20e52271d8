"""All tests run on the CPU, as 8 devices, so that sharding is tested on any machine.

Compiling is most of what they take, so the compiler optimises little, but for tests marked
`optimized`, which look at speed, memory or the last bit: those run with LMDYN_TEST_OPTIMIZED=1, and
then alone. scripts/test.sh does both. Tests marked `release` train for minutes to check a number
of the documentation; they run with LMDYN_TEST_RELEASE=1, before a release. `pytest -m gpu` runs
what is to be seen on a GPU, on that GPU.

These flags change rounding: rows of a small study made under them differ from those of the same
study made by the command line by about 1e-6, and by up to 0.4% where a value is a small difference.
"""

import itertools
import os
import sys

OPTIMIZED = bool(os.environ.get("LMDYN_TEST_OPTIMIZED"))
RELEASE = bool(os.environ.get("LMDYN_TEST_RELEASE"))
FLAGS = ["--xla_force_host_platform_device_count=8"] + (
    [] if OPTIMIZED else ["--xla_backend_optimization_level=0"]
)

if ("-m", "gpu") not in itertools.pairwise(sys.argv):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()


def pytest_collection_modifyitems(config, items):
    """Only what belongs to these flags; and files with slow tests first, so that no worker is left
    alone with one at the end.
    """
    chosen = [
        item
        for item in items
        if bool(item.get_closest_marker("optimized")) == OPTIMIZED
        and (RELEASE or not item.get_closest_marker("release"))
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items[:] = sorted(chosen, key=lambda item: item.path not in slow)
