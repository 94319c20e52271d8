"""MixReview: old windows come back, fewer from epoch to epoch of the new text; positions, hosts and
seeds hold as without it.
"""

import numpy as np
import pytest

from lmdyn import data
from lmdyn.data.mix_review import review_rows
from lmdyn.data.token_store import Tokens
from lmdyn.errors import InputError

NEW = Tokens("new", "n", np.arange(100, 161).astype(np.uint16), np.array([20, 61]))
OLD = Tokens("old", "o", np.arange(300, 381).astype(np.uint16), np.array([81]))


def stream(steps=12, batch=5, review=(1.0, 0.5), **options):
    again = None if review is None else data.MixReview(OLD, *review)
    return data.mix(
        [(NEW, 1.0)],
        data.Packing(length=4, batch=batch, end_of_text=7),
        seed=3,
        review=again,
        steps=steps,
        **options,
    )


def taken(source, count):
    batches = iter(source)
    return [next(batches) for _ in range(count)]


def old_rows(batch):
    return (batch.inputs >= 300).any(1)


def test_the_share_of_old_rows_falls_by_epochs_of_the_new_text():
    """He et al. 2021: `ratio * decay^e` old windows to each new one in epoch e."""
    rows = review_rows(4000, batch=5, epoch=2000, ratio=1.0, decay=0.5)
    seen = np.cumsum(5 - rows)
    for epoch in range(4):
        inside = (seen > 2000 * epoch + 5) & (seen <= 2000 * (epoch + 1))
        assert abs(rows[inside].sum() / (5 - rows[inside]).sum() - 0.5**epoch) < 0.02


def test_batches_hold_as_many_old_rows_as_said_and_every_window_of_the_new_text():
    epoch = (61 + 2 - 1) // 4
    rows = review_rows(12, 5, epoch, 1.0, 0.5)
    batches = taken(stream(), 12)
    assert [int(old_rows(b).sum()) for b in batches] == rows.tolist()
    fresh = np.concatenate([b.inputs[~old_rows(b)] for b in batches])[:epoch]
    plain = np.concatenate([b.inputs for b in taken(stream(review=None), 4)])[:epoch]
    np.testing.assert_array_equal(fresh, plain)  # the new text comes as it would without a review
    again = np.concatenate([b.inputs[old_rows(b)] for b in batches])
    assert len({tuple(row) for row in again[:20].tolist()}) == min(
        20, len(again)
    )  # windows of the old text, each once an epoch


def test_after_the_last_step_nothing_is_old():
    assert not any(old_rows(b).any() for b in taken(stream(steps=3), 8)[3:])


def test_a_position_goes_on_exactly():
    whole = taken(stream(), 9)
    batches = iter(stream())
    for _ in range(4):
        next(batches)
    state, again = batches.get_state(), iter(stream())
    again.set_state(state)
    for wanted in whole[4:]:
        np.testing.assert_array_equal(next(again).inputs, wanted.inputs)


def test_hosts_share_the_batches():
    whole = taken(stream(batch=6), 5)
    parts = [taken(stream(batch=6, host=host, hosts=3), 5) for host in range(3)]
    for number, wanted in enumerate(whole):
        for host in range(3):
            np.testing.assert_array_equal(parts[host][number].inputs, wanted.inputs[host::3])


def test_what_is_reviewed_is_part_of_what_the_stream_is():
    told = stream().fingerprint["review"]
    assert (told["name"], told["ratio"], told["decay"], told["steps"]) == ("old", 1.0, 0.5, 12)
    assert "review" not in stream(review=None).fingerprint


@pytest.mark.parametrize(
    "ratio, decay", [(0.0, 0.5), (-1.0, 0.5), (float("nan"), 0.5), (1.0, 1.5), (1.0, -0.1)]
)
def test_bad_settings_are_errors(ratio, decay):
    with pytest.raises(InputError, match="a review with ratio="):
        data.MixReview(OLD, ratio, decay)
