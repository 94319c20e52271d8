"""Every token but the first is predicted exactly once, by the inputs just before it."""

import numpy as np
import pytest

from lmdyn import online
from lmdyn.errors import InputError
from tests.online.helpers import chunked


@pytest.mark.parametrize("length", [2, 3, 7, 8, 29])
@pytest.mark.parametrize(
    "chunk, context",
    [(1, online.none()), (3, online.none()), (7, online.cache(5)), (3, online.overlap(7))],
)
def test_every_token_but_the_first_is_predicted_once(length, chunk, context):
    text = np.arange(100, 100 + length)
    found = chunked(text, chunk=chunk, context=context)
    assert found.targets[found.mask].tolist() == text[1:].tolist()
    own = found.inputs[:, -chunk:]
    assert own[found.mask].tolist() == text[:-1].tolist()
    assert found.tokens == length - 1
    assert found.first.tolist() == [True] + [False] * (len(found.first) - 1)
    if context.kind == "overlap":
        for inputs, positions in zip(found.inputs, found.positions, strict=True):
            seen = inputs[positions >= 0]
            real = seen[seen > 0]
            assert real.tolist() == list(range(real[0], real[0] + len(real)))  # consecutive text
            assert positions[positions >= 0].tolist() == list(range((positions >= 0).sum()))


def test_documents_are_joined_or_kept_apart():
    documents = [np.array([1, 2, 3]), np.array([4, 5])]
    joined = chunked(documents, chunk=4, context=online.none(), end_of_text=9)
    assert joined.targets[joined.mask].tolist() == [2, 3, 9, 4, 5]
    apart = chunked(documents, chunk=4, context=online.none(), reset="document")
    assert apart.targets[apart.mask].tolist() == [2, 3, 5]
    assert apart.first.tolist() == [True, True]
    cut = chunked(documents, chunk=4, context=online.none(), end_of_text=9, tokens=3)
    assert cut.targets[cut.mask].tolist() == [2, 3, 9]


def test_texts_without_a_prediction_are_refused():
    with pytest.raises(InputError, match="fewer than 2 tokens"):
        chunked(np.array([1]), chunk=4, context=online.none())
    with pytest.raises(InputError, match="end-of-text"):
        chunked([np.array([1]), np.array([2])], chunk=4, context=online.none())
