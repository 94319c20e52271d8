"""Keeping freed memory: the system is not asked again and again."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
if sys.argv[1] == "keep":
    from lmdyn.allocator import keep_memory
    assert keep_memory() is True
x = jnp.ones([4000, 500])
w = jnp.ones([500, 3000])
step = jax.jit(lambda x, w: jnp.sum(jnp.sin(x @ w) @ w.T, 0))
for _ in range(5):
    step(x, w).block_until_ready()
found = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step(x, w).block_until_ready()
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(found))  # the heap still grows now and then, where freed blocks do not fit
"""


@pytest.mark.optimized
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of the GNU C library")
def test_kept_memory_is_not_faulted_in_again():
    faults = {}
    for how in ("keep", "default"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
        )
        faults[how] = int(done.stdout)
    assert faults["default"] > 25_000  # 48 MB of temporaries in pages of 4 KiB, five times
    assert faults["keep"] < faults["default"] / 5
