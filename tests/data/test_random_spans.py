"""Random spans: pieces of the text, in the shapes of the probes, anywhere in it."""

import numpy as np
import pytest

from lmdyn.data import ProbeBatch, random_spans
from lmdyn.errors import InputError

LENGTHS, SPANS = (7, 3, 5), ((4, 5), (2,), (1, 3))


def probes():
    span = np.zeros([3, 7], bool)
    for row, places in enumerate(SPANS):
        span[row, list(places)] = True
    ids = np.ones([3, 7], np.int32)
    return ProbeBatch(ids, ids, span, np.arange(7) < np.array(LENGTHS)[:, None])


def test_they_are_pieces_of_the_text_shaped_like_the_probes():
    stream = np.arange(1000, 1400)
    found = random_spans(stream, probes(), count=3000, seed=2)
    shapes = {
        (tuple(np.flatnonzero(span)), mask.sum()): 0
        for span, mask in zip(probes().span, probes().mask, strict=True)
    }
    for span, mask in zip(found.span, found.mask, strict=True):
        shapes[tuple(np.flatnonzero(span)), mask.sum()] += 1
    assert sorted(shapes.values()) == [1000] * 3
    assert found.inputs.shape == (3000, 7) and found.inputs.dtype == np.int32
    assert not found.inputs[~found.mask].any() and not found.targets[~found.mask].any()
    assert np.all((found.targets == found.inputs + 1)[found.mask])  # this text counts
    steps = np.diff(found.inputs, axis=1)[found.mask[:, 1:]]
    assert np.all(steps == 1)
    first = (
        found.inputs[:, 0] - 1000
    )  # uniform over all places: mean 196.5 to 198.5, with a standard error of 2.1
    assert first.min() == 0 and abs(first.mean() - 197.5) < 9
    assert found.targets.max() == 1399


def test_a_seed_gives_one_draw_and_by_default_one_for_each_probe():
    stream = np.arange(1000, 1400)
    first, again, other = (random_spans(stream, probes(), seed=seed) for seed in (4, 4, 5))
    assert len(first.inputs) == 3
    np.testing.assert_array_equal(first.inputs, again.inputs)
    assert not np.array_equal(first.inputs, other.inputs)


@pytest.mark.parametrize(
    "size, count, message",
    [(7, 3, "the text has 7 tokens and the longest probe needs 8"), (80, 0, "count=0")],
)
def test_what_cannot_be_drawn_is_an_error(size, count, message):
    with pytest.raises(InputError, match=message):
        random_spans(np.arange(size), probes(), count)


def test_the_shortest_text_has_one_place():
    found = random_spans(np.arange(50, 58), probes(), count=9)
    longest = found.mask.all(1)
    assert (
        longest.sum() == 3
        and np.all(found.inputs[longest] == np.arange(50, 57))
        and np.all(found.targets[longest] == np.arange(51, 58))
    )
