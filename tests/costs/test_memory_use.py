"""The memory formula against what the compiler reserves for the scan, and against bytes counted on
the arrays themselves.
"""

import dataclasses

import jax
import optax
import pytest

from lmdyn import costs, models, online
from lmdyn.params import LowRank, low_rank, partition
from tests.helpers import KINDS, tokens

CHUNK = 256


def both(context, selector, optimizer, **changes):
    """`(formula, bytes that the compiled program holds, arrays that go in)`."""
    config = dataclasses.replace(
        KINDS["gated"],
        **{**dict(width=512, head_width=64, mlp_width=1024, vocab=2048, positions=512), **changes},
    )
    model, shapes = models.LanguageModel(config), models.shapes(config)
    adapters = isinstance(selector, LowRank)
    part = selector.partition(shapes) if adapters else selector and partition(shapes, selector)
    chosen, rest = jax.eval_shape(part.split, shapes) if part else (None, shapes)
    adaptation = online.Adaptation(model, part, optimizer, context)
    carry = jax.eval_shape(lambda c: online.start(adaptation, c), chosen)
    settings = online.OnlineConfig(chunk=CHUNK, context=context)
    chunks = online.chunk_stream(tokens(3 * CHUNK + 1, vocab=2048), settings)
    run = jax.jit(
        lambda rest, carry: online.adapt(adaptation, None, rest, carry, chunks), donate_argnums=1
    )
    found = run.lower(rest, carry).compile().memory_analysis()
    taken = (
        found.argument_size_in_bytes
        + found.temp_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
    )
    given = sum(leaf.size * 4 for leaf in jax.tree.leaves((rest, carry)))
    return costs.evaluation_memory(config, chunks.sizes(context), part, optimizer), taken, given


@pytest.mark.parametrize(
    "context, selector, optimizer, changes",
    [
        (online.none(), None, None, {}),
        (online.none(), "all", optax.adam(0.1), {}),
        (online.overlap(384), "blocks", optax.sgd(0.1), dict(mlp_width=1536)),
        (online.cache(128), "blocks[1:].mlp", optax.sgd(0.1), {}),
        (online.none(), low_rank("blocks.mlp", rank=32), optax.sgd(0.1), {}),
    ],
    ids=["static", "all", "overlap", "cache", "low-rank"],
)
def test_memory_is_what_the_compiler_reserves(context, selector, optimizer, changes):
    formula, taken, given = both(context, selector, optimizer, **changes)
    assert abs(formula.total / taken - 1) < 0.05, (formula, taken)
    assert (
        abs(formula.held / given - 1) < 1e-3
    )  # counters and the positions of a cache are left out
