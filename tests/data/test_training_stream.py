"""The training stream: everything is read once an epoch, in an order that depends on the seed
alone.
"""

import collections
import itertools
import json

import numpy as np
import pytest

from lmdyn import data
from lmdyn.data.packing import PackedWindows, Packing
from lmdyn.errors import InputError

END = 999


def tokens(sizes, name="text", first=0):
    """Documents whose every token is unique."""
    ids = np.arange(first, first + sum(sizes), dtype=np.uint16)
    return data.Tokens(name, f"digest of {name}", ids, np.cumsum(sizes))


def take(stream, count):
    return list(itertools.islice(iter(stream), count))


def test_one_epoch_reads_every_window_once():
    text = tokens([5, 1, 13, 2, 30])
    stream = data.mix([(text, 1.0)], data.Packing(4, 3, END), seed=5)
    assert stream.epoch == {"text": (51 + 5 - 1) // 4 * 4}
    windows = [
        row for batch in take(stream, 13) for row in zip(batch.inputs, batch.targets, strict=True)
    ]
    epochs = [{tuple(inputs) for inputs, _ in windows[i : i + 13]} for i in (0, 13, 26)]
    assert len(epochs[0]) == 13
    assert epochs[0] == epochs[1] == epochs[2]
    order = [[tuple(inputs) for inputs, _ in windows[i : i + 13]] for i in (0, 13)]
    assert order[0] != order[1]
    # put together, the windows are whole documents, each with its end
    following = {
        a: b
        for inputs, targets in windows
        for a, b in zip(inputs, targets, strict=True)
        if a != END
    }
    for start, stop in zip([0, 5, 6, 19, 21], [5, 6, 19, 21, 51], strict=True):
        for token in range(start, stop):
            if token in following:
                assert following[token] == (token + 1 if token + 1 < stop else END)


def test_targets_follow_inputs_and_documents_are_told_apart():
    packed = PackedWindows(tokens([3, 2, 9]), Packing(5, 1, END, predict_across=False), seed=0)
    for i in range(len(packed)):
        inputs, targets, mask, documents = packed[i]
        assert inputs[1:].tolist() == targets[:-1].tolist()
        # a new document begins after each end
        wanted = np.concatenate([[0], np.cumsum(inputs[:-1] == END)])
        assert documents.tolist() == wanted.tolist()
        assert mask.tolist() == (inputs != END).tolist()


def test_crossing_is_told_by_the_batch():
    text = [(tokens([3, 2, 9]), 1.0)]
    across = take(data.mix(text, data.Packing(5, 2, END)), 1)[0]
    assert across.documents is None
    assert across.mask.all()
    inside = take(data.mix(text, data.Packing(5, 2, END, False, False)), 1)[0]
    assert inside.documents.shape == (2, 5)
    assert not inside.mask.all()


@pytest.mark.parametrize("hosts", [2, 3])
def test_hosts_share_each_batch(hosts):
    text = [(tokens([50, 30]), 1.0), (tokens([40], "other", 500), 2.0)]
    alone = take(data.mix(text, data.Packing(3, 6, END), seed=2), 9)
    shared = [
        take(data.mix(text, data.Packing(3, 6, END), seed=2, host=h, hosts=hosts), 9)
        for h in range(hosts)
    ]
    for number, batch in enumerate(alone):
        rows = np.concatenate([host[number].inputs for host in shared])
        assert rows.shape == batch.inputs.shape
        assert sorted(map(tuple, rows)) == sorted(map(tuple, batch.inputs))


def test_a_position_goes_on_exactly():
    make = lambda: data.mix(
        [(tokens([50, 30]), 1.0), (tokens([40], "other", 500), 2.0)],
        data.Packing(3, 4, END),
        seed=2,
    )
    wanted = take(make(), 40)
    batches = iter(make())
    for _ in range(17):
        next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    again = iter(make())
    again.set_state(state)
    for batch in wanted[17:]:
        assert next(again).inputs.tolist() == batch.inputs.tolist()


@pytest.mark.parametrize("sources", [1, 2])
def test_a_batch_may_be_one_window(sources):
    text = [(tokens([50, 30]), 1.0), (tokens([40], "other", 500), 2.0)][:sources]
    batches = take(data.mix(text, data.Packing(3, 1, END)), 50)
    assert {batch.inputs.shape for batch in batches} == {(1, 3)}


def test_the_seed_decides_the_order():
    text = [(tokens([50, 30]), 1.0)]
    orders = [
        np.concatenate(
            [b.inputs for b in take(data.mix(text, data.Packing(3, 4, END), seed=s), 5)]
        ).tolist()
        for s in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("weights", [(1.0, 3.0), (0.2, 0.05)])
def test_sources_are_mixed_by_weight(weights):
    text = [(tokens([400]), weights[0]), (tokens([300], "other", 500), weights[1])]
    rows = np.concatenate(
        [batch.inputs[:, 0] for batch in take(data.mix(text, data.Packing(2, 10, END)), 100)]
    )
    counts = collections.Counter((rows[rows != END] >= 500).tolist())
    share = counts[False] / sum(counts.values())
    assert abs(share - weights[0] / sum(weights)) < 0.01


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(length=0), "length=0"),
        (dict(batch=0), "batch=0"),
        (dict(hosts=4), "batch=6 is not a multiple of the 4 hosts; use one, such as 8"),
        (dict(length=60), "48 tokens, and one window of length 60 needs 61"),
        (dict(weight=0.0), "weights 0"),
        (dict(weight=float("nan")), "weights nan"),
    ],
)
def test_bad_input(options, message):
    weight, hosts = options.pop("weight", 1.0), options.pop("hosts", 1)
    given = {"length": 4, "batch": 6, "end_of_text": END} | options
    with pytest.raises(InputError, match=message):
        data.mix([(tokens([40, 6]), weight)], data.Packing(**given), hosts=hosts)


def test_no_source_is_an_error():
    with pytest.raises(InputError, match="no text"):
        data.mix([], data.Packing(4, 6, END))
