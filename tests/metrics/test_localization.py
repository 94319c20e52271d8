"""From probes and a text to profiles by kind: each number is that of its parts, and bad input is
one line.
"""

import numpy as np
import pytest

from lmdyn import data, metrics
from lmdyn.data import Probe
from lmdyn.data.tokenizers import byte_tokenizer
from lmdyn.errors import InputError
from lmdyn.metrics import localization
from tests.helpers import small

TEXT = ["The quick brown fox jumps over the lazy dog. " * 3]


class Narrow:
    """Bytes folded into the small model's vocabulary."""

    end_of_text = 0
    first_token = document_token = None

    def encode(self, text):
        return byte_tokenizer().encode(text) % 61

    def encode_with_offsets(self, text):
        ids, offsets = byte_tokenizer().encode_with_offsets(text)
        return ids % 61, offsets


def kinds():
    words = ["ada", "grace", "alan", "edsger", "barbara"]
    return localization.by_kind(
        [
            Probe(f"{w} lives in x{i}", len(w) + 10, len(w) + 12, kind)
            for i, w in enumerate(words)
            for kind in ("new", "updated")
        ]
    )


def test_what_is_located_is_what_its_parts_give():
    model, params = small()
    measured = localization.sequences(kinds(), TEXT, Narrow(), spans=7, seed=3)
    encoded, random = measured
    found = localization.locate(
        model, params, measured, groups=("mlp",), batch=4, resamples=50, seed=3
    )
    assert random.inputs.shape[0] == 7 and set(found.norms) == {"new", "updated"}
    norms = np.asarray(metrics.gradient_norms(model, params, *encoded["new"][:3], ["mlp"])["mlp"])
    np.testing.assert_allclose(found.norms["new"].norms["mlp"], norms, rtol=1e-5)
    reference = np.asarray(metrics.gradient_norms(model, params, *random[:3], ["mlp"])["mlp"])
    np.testing.assert_allclose(
        found.relative["new"]["mlp"], norms.mean(1) / reference.mean(1), rtol=1e-5
    )
    rows = found.rows()
    count = lambda metric, **more: sum(
        r["metric"] == metric and all(r.get(k) == v for k, v in more.items()) for r in rows
    )
    assert (
        count("gradient_norm", set="probe", kind="new")
        == count("gradient_norm", set="reference")
        == 3
    )
    assert (
        count("relative_gradient_norm", kind="updated") == 3
        and count("profile_difference", kinds=["new", "updated"]) == 1 + 3
    )


def test_probes_of_a_kind_are_spread_evenly_and_those_without_one_are_one():
    many = [Probe(f"a b{i}", 2, 4, None) for i in range(9)]
    assert [p.target for p in localization.by_kind(many, limit=3)["all"]] == ["b0", "b4", "b8"]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: localization.by_kind([]), "there are no probes"),
        (lambda: localization.by_kind([Probe("a b", 2, 3, "new")]), "1 probe of kind new"),
        (
            lambda: localization.by_kind([Probe("a b", 2, 3, "new")] * 3, limit=1),
            "1 probe of kind new",
        ),
        (
            lambda: localization.sequences(kinds(), TEXT, Narrow(), spans=3, length=5),
            "beyond length=5",
        ),
        (
            lambda: localization.sequences(kinds(), ["short"], Narrow(), spans=3),
            "the text has 5 tokens and the longest probe needs",
        ),
        (lambda: data.read_probes("no/such.jsonl"), "no/such.jsonl"),
    ],
)
def test_bad_input_is_one_line(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)
