"""What each notebook's prose says of its numbers. Run in a process of its own, after the notebook,
on the names that its cells left:

python -m tests.notebooks.claims NOTEBOOK
"""

import sys

import numpy as np

from scripts import notebooks


def own_transform(names):
    turn = lambda block: (
        (names["config"].depth - 1 - block) * names["EVERY"]
    )  # steps that a block sleeps
    for name, (distances, losses) in names["runs"].items():
        distances = np.array(distances)  # [steps, L]
        assert losses[-1] < losses[0] - 1, (name, losses)
        for block in range(names["config"].depth):
            asleep, awake = distances[: turn(block), block], distances[turn(block) :, block]
            assert (awake > 0).all(), (name, block, awake)
            if name == "adamw, then thaw":
                assert (asleep == 0).all(), (block, asleep)
            else:  # weight decay moves what gradients do not
                assert (asleep > 0).all(), (block, asleep)
    assert (np.asarray(names["online_moved"]) > 0).tolist() == [False, False, True, True], names[
        "online_moved"
    ]


def knowledge_entropy(names):
    entropy, untrained, width = names["entropy"], names["untrained"], names["width"]
    share = entropy.coefficients / entropy.coefficients.sum(
        1, keepdims=True
    )  # the definition, written out
    np.testing.assert_allclose(entropy.per_layer, -(share * np.log(share)).sum(1), rtol=1e-12)
    assert len(entropy.per_layer) == names["model"].config.depth
    assert (untrained.normalized > 0.97).all() and np.ptp(untrained.normalized) < 0.02, (
        untrained.normalized
    )  # evenly, alike in every layer
    assert entropy.normalized.min() < untrained.normalized.min(), (
        entropy.normalized,
        untrained.normalized,
    )
    if "SmolLM2-135M" in names["reference"]:  # what is said of it alone
        third = len(entropy.per_layer) // 3
        assert entropy.normalized[:third].mean() > untrained.normalized[:third].mean()
        assert np.exp(entropy.per_layer[-1]) < 0.35 * width
        assert max(share for q, share in names["curve"](entropy, -1) if q < 0.105) > 0.6
    assert entropy.per_layer[names["low"]] == entropy.per_layer.min()
    lines = {
        name: dict(names["curve"](found, layer)) for name, (found, layer) in names["shown"].items()
    }
    lowest, _, random = (
        min(line.items(), key=lambda point: abs(point[0] - 0.2))[1] for line in lines.values()
    )
    assert lowest > random > 0.2, lines  # it bends further to the upper left
    assert width == entropy.coefficients.shape[1]


def localize_then_update(names):
    before, table = names["before"], {row["trained on the news"]: row for row in names["table"]}
    assert before["unchanged"] > before["new"] > before["updated"], (
        before
    )  # known, unheard of, confidently wrong
    for name in ("everything", "chosen layers"):
        assert all(table[name][kind] > before[kind] + 0.25 for kind in ("updated", "new")), (
            table
        )  # both teach the news
        assert table[name]["old text"] > table["nothing yet"]["old text"], table
    assert table["chosen layers"]["updated"] < table["everything"]["updated"], table  # learns less
    assert table["chosen layers"]["old text"] < table["everything"]["old text"], (
        table
    )  # and forgets less
    profile, mean = names["profile"], names["mean"]
    assert all((profile.low[group] > 1).all() for group in names["groups"]), profile.low
    crossing = [
        low < mean < high
        for group in names["groups"]
        for low, high in zip(profile.low[group], profile.high[group], strict=True)
    ]
    assert any(crossing), (profile.low, profile.high)
    flat = names["flatten"]
    after, params = flat(names["updated"]["chosen layers"]), flat(names["params"])
    for path, then in params.items():
        now, then = np.asarray(after[path]), np.asarray(then)
        group = path[1] if path[0] == "blocks" else None
        high = (
            profile[group] > mean
            if group in names["groups"]
            else np.zeros(len(then) if path[0] == "blocks" else 1, bool)
        )
        changed = (
            (now != then).reshape(len(then), -1).any(1)
            if path[0] == "blocks"
            else np.array([(now != then).any()])
        )
        assert changed.tolist() == high.tolist(), (path, changed, high)


def adapt_online(names):
    static, adapted, chosen, size = (
        names["static"],
        names["adapted"],
        names["chosen"],
        names["CHUNK"],
    )
    assert len(static.nll) == len(adapted.nll) == names["TOKENS"]
    assert chosen.rest < names["frozen_rest"] - 0.02, (chosen.rest, names["frozen_rest"])
    assert chosen.learning_rate == min(chosen.tried, key=chosen.tried.get), chosen.tried
    assert np.array_equal(static.nll[:size], adapted.nll[:size])  # nothing has been learned yet
    assert not np.array_equal(static.nll[size : 2 * size], adapted.nll[size : 2 * size])
    np.testing.assert_allclose(
        sum(sum(found) for found in names["gains"].values()),
        (static.nll - adapted.nll)[chosen.prefix :].sum(dtype=np.float64),
        rtol=1e-3,
    )
    assert 1 < adapted.flops / static.flops < 3
    best, worst = sum(names["ranked"][0][1]), sum(names["ranked"][-1][1])
    assert best > 0 > worst, (best, worst)  # what it learned, and the price


def own_metric(names):
    steps = sorted({r["step"] for r in names["seen"]})
    assert steps == list(range(0, names["run"].steps + 1, names["run"].evaluation.every)), steps
    table = {(r["step"], r["depth"]): r["kurtosis"] for r in names["seen"]}
    depths = range(names["model"].config.depth + 1)
    assert all(abs(table[0, depth] - 3) < 0.35 for depth in depths), table
    assert table[10, depths[-1]] < 2, table  # the dip
    assert all(table[steps[-1], depth] < 3.2 for depth in depths), table  # no outlier features
    assert names["nll"][-1]["value"] < names["nll"][0]["value"] - 2
    np.testing.assert_allclose(names["measured"], np.mean(names["by_hand"]), rtol=1e-5)
    assert len(names["by_hand"]) == 300  # padding did not count
    np.testing.assert_allclose(names["merged"], names["whole"], rtol=1e-6)
    # What training wrote down is what a measurement of its last checkpoint gives.
    run, data, metrics = names["run"], names["data"], names["metrics"]
    windows = data.batches(
        run.evaluation.data,
        names["tokenizer"],
        run.data.length,
        run.data.batch,
        run.evaluation.tokens,
    )
    again = metrics.measure(names["kurtosis"](), names["model"], names["params"], windows)
    np.testing.assert_allclose(again, [table[steps[-1], depth] for depth in depths], rtol=1e-5)


def sharding(names):
    np.testing.assert_allclose(names["together"], names["alone"], rtol=2e-6)
    assert names["alone"][-1] < names["alone"][0] - 0.2, names["alone"]
    np.testing.assert_allclose(names["divided"], names["entropy"], rtol=1e-6)
    up = names["placed"]["blocks"]["mlp"]["up"]["kernel"]
    assert len({shard.device for shard in up.addressable_shards}) == 8
    assert {shard.data.shape for shard in up.addressable_shards} == {
        (3, 32, 96)
    }  # [L, D / fsdp, F / tensor]
    for one, eight in names["held"].values():
        whole = sum(leaf.size * leaf.dtype.itemsize for leaf in names["jax"].tree.leaves(one))
        assert (
            0.25 <= max(names["sharding"].bytes_per_device(eight).values()) / whole < 0.26
        )  # a quarter; norms lie whole
    received = names["received"]
    assert {"data", "fsdp", "tensor"} <= {axes for _, axes in received}, received
    assert received["all-gather", "fsdp"] > 0 and received["all-reduce", "tensor"] == max(
        received.values()
    ), received


if __name__ == "__main__":
    path = notebooks.Path(sys.argv[1])
    check = globals()[path.stem]
    names, _ = notebooks.run(path)
    check(names)
