"""Documents side by side: the numbers of one by one, and little idle work."""

import itertools

import jax
import numpy as np
import optax
import pytest

from lmdyn import models, online
from lmdyn.errors import InputError
from lmdyn.online import lanes
from lmdyn.params import low_rank
from tests.helpers import assert_close, small, tokens
from tests.online.helpers import chunked, evaluate

DOCUMENTS = [tokens(length, seed) for seed, length in enumerate([23, 9, 58, 2, 17, 31, 6])]
LOW = low_rank("blocks[1:].mlp", rank=3)


@pytest.mark.parametrize(
    "kind, context, adapt, optimizer",
    [
        ("gated", online.none(), LOW, optax.adamw(0.01)),
        ("gated", online.cache(8, keep=2), LOW, optax.sgd(1.0)),
        (
            "gated",
            online.overlap(9),
            "blocks[1].mlp.down+blocks[2].attention_norm",
            optax.sgd(0.3, momentum=0.9),
        ),
        ("gated", online.none(), "head", optax.sgd(0.3)),
        ("learned", online.none(), "embed+blocks.mlp", optax.adam(0.003)),
        ("parallel", online.cache(8), "all", None),
    ],
    ids=["adamw", "sgd-cache", "momentum-overlap", "head", "tied", "static"],
)
def test_the_same_numbers_as_one_by_one(kind, context, adapt, optimizer):
    model, params = small(kind)
    options = dict(optimizer=optimizer, chunk=5, context=context, adapt=adapt, reset="document")
    alone = evaluate(model, params, DOCUMENTS, **options)
    together = evaluate(model, params, DOCUMENTS, parallel=3, **options)
    if optimizer is not None:
        still = evaluate(model, params, DOCUMENTS, **options | {"optimizer": None})
        assert np.abs(alone.nll - still.nll).max() > 0.05
    assert_close(together.nll, alone.nll, 1e-5)


def test_lanes_that_end_are_left_out(monkeypatch):
    """With the cuts that a long document would make worth while, and with a progress bar."""
    model, params = small()
    used, cut = (
        online.evaluate.__globals__["lanes"],
        lanes.segments,
    )  # a doctest, run before, imports the module a second time
    monkeypatch.setattr(used, "segments", lambda order, worth: cut(order, 1))
    options = dict(
        optimizer=optax.sgd(1.0), chunk=5, context=online.cache(8), adapt=LOW, reset="document"
    )
    alone = evaluate(model, params, DOCUMENTS, **options)
    together = evaluate(model, params, DOCUMENTS, parallel=4, progress=True, **options)
    assert_close(together.nll, alone.nll, 1e-5)
    assert (
        abs(together.flops / alone.flops - 1) < 1e-9
    )  # lanes of 12, 7, 6 and 6 chunks: none computed for nothing


@pytest.mark.parametrize("count, width", [(1, 1), (1, 5), (7, 3), (40, 8), (200, 16)])
def test_every_chunk_has_one_place_in_order(count, width):
    rng = np.random.default_rng(count)
    lengths = np.maximum(1, rng.lognormal(2, 1.2, count).astype(int))
    first = np.concatenate([np.arange(length) == 0 for length in lengths])
    order = lanes.schedule(first, width)
    assert sorted(order[order >= 0]) == list(range(len(first)))
    for lane in order.T:
        chunks = lane[lane >= 0]
        assert (lane[: len(chunks)] >= 0).all()
        assert first[chunks[0]]
        follows = np.diff(chunks) == 1
        assert (follows | first[chunks[1:]]).all()
        assert (first[chunks[1:]] | follows).all()
    least = max(lengths.max(), -(-len(first) // order.shape[1]))
    assert len(order) <= 4 / 3 * least + 1  # Graham's bound for longest first
    parts = lanes.segments(order, 1)
    kept = np.concatenate([part[part >= 0] for part in parts])
    assert sorted(kept) == sorted(order[order >= 0])
    widths = [part.shape[1] for part in parts]
    assert all(b <= a / 2 + 0.5 for a, b in itertools.pairwise(widths))
    assert len(lanes.segments(order, 1e9)) == 1


@pytest.mark.optimized
def test_the_body_is_there_once():
    """The program of 8 lanes needs little more memory than that of 1: nothing of the body is copied
    a lane.
    """
    config = models.ModelConfig(
        vocab=61, width=128, depth=2, heads=4, head_width=32, mlp_width=512, positions=64
    )
    model = models.LanguageModel(config)
    part = low_rank("blocks.mlp", rank=1).partition(models.shapes(config))
    chosen, rest = jax.eval_shape(part.split, models.shapes(config))
    adaptation = online.Adaptation(model, part, optax.sgd(0.1))
    fresh = jax.eval_shape(lambda c: online.start(adaptation, c), chosen)
    chunks = chunked([tokens(9, seed) for seed in range(8)], chunk=4, reset="document")

    def memory(count):
        placed = lanes.place_chunks(chunks, lanes.schedule(chunks.first, count))
        carry = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), fresh
        )
        run = lanes.compiled_lanes(adaptation)
        return run.lower(fresh, rest, carry, placed).compile().memory_analysis().temp_size_in_bytes

    body = sum(leaf.size * 4 for leaf in jax.tree.leaves(rest["blocks"]))
    assert memory(8) - memory(1) < body


@pytest.mark.parametrize(
    "options, message",
    [(dict(parallel=0), "parallel=0"), (dict(parallel=2), "parallel=2 with reset='never'")],
)
def test_bad_input_is_one_clear_line(options, message):
    with pytest.raises(InputError, match=message) as error:
        evaluate(*small(), DOCUMENTS, optimizer=optax.sgd(0.1), chunk=5, end_of_text=0, **options)
    assert "\n" not in str(error.value)
