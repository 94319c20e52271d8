"""configs/tiny.py learns more than counting does."""

import collections
import math
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from lmdyn import checkpoints, data, metrics
from lmdyn.training import train

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.py"


def counting(train: bytes, test: bytes, order: int) -> float:
    """Nats a byte of an interpolated n-gram model: Witten and Bell's estimate (1991), each order
    falling back on the one below.
    """
    counts = [collections.defaultdict(collections.Counter) for _ in range(order)]
    for n in range(order):
        for i in range(n, len(train)):
            counts[n][train[i - n : i]][train[i]] += 1
    sums = [{context: sum(found.values()) for context, found in one.items()} for one in counts]
    total = 0.0
    for i in range(order, len(test)):
        p = 1 / 256
        for n in range(order):
            context = test[i - n : i]
            if context not in counts[n]:
                break
            found = counts[n][context]
            p = (found[test[i]] + len(found) * p) / (sums[n][context] + len(found))
        total -= math.log(p)
    return total / (len(test) - order)


@pytest.mark.optimized
@pytest.mark.release
@pytest.mark.slow
def test_tiny_beats_counting(tmp_path):
    config = replace(
        runpy.run_path(str(CONFIG))["config"](),
        out=str(tmp_path / "tiny"),
        evaluation=None,
        mesh=(1, 1, 1),
    )
    assert train(config).step == config.steps
    loaded = checkpoints.load(f"run:{config.out}")
    batches = data.batches("builtin:docs:test", loaded.tokenizer, 256, 16)
    found = metrics.measure(metrics.build("nll"), loaded.model, loaded.params, batches)["nll"].nll
    texts = [
        "".join(data.documents(f"builtin:docs:{split}")).encode() for split in ("train", "test")
    ]
    baselines = {order: counting(*texts, order) for order in (1, 2, 3, 4, 5)}
    print(f"model {found:.4f} nats a byte; n-grams {baselines}")
    assert found < min(baselines.values())
