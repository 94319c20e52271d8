"""Injected facts: where they stand in the batches, and what is asked."""

import dataclasses
import json

import numpy as np
import pytest

from lmdyn import data, metrics, models
from lmdyn.errors import InputError
from lmdyn.studies.injected_facts import (
    ContinualTraining,
    FactInjection,
    fact_stream,
    total_updates,
)
from lmdyn.studies.injection_scores import Controls, forgetting, make_injection, score_rows
from lmdyn.training import Optimizer
from tests.studies.cases import WORLD

TOKENIZER = data.tokenizers.byte_tokenizer()
CONTINUAL = ContinualTraining(
    "builtin:code:test",
    length=640,
    batch=4,
    steps_after=2,
    optimizer=Optimizer(learning_rate=1e-2, schedule="constant"),
)
INJECTION = FactInjection(WORLD, count=3, rounds=3, every=2, ask_every=2, share=0.5)


def stream_of(injection, continual, tokenizer, seed):
    return fact_stream(injection.read(seed), injection, continual, tokenizer, seed)


def rows_with_facts(stream):
    """{(update, row): text} of rows that begin with the end-of-text token and are one document."""
    found = {}
    for update, batch in enumerate(stream.batches):
        for row in range(len(batch.inputs)):
            n = int(batch.mask[row].sum())
            if n < batch.inputs.shape[1]:
                assert batch.inputs[row, 0] == TOKENIZER.end_of_text
                assert (batch.inputs[row, 1:n] == batch.targets[row, : n - 1]).all()
                assert not batch.mask[row, n:].any()
                found[update, row] = TOKENIZER.decode(batch.targets[row, :n])
    return found


@pytest.mark.parametrize("wordings, rounds", [("paraphrases", 3), ("same", 3), ("once", 1)])
def test_facts_stand_in_their_rounds(wordings, rounds):
    facts = data.read_facts(WORLD.replace("{seed}", "4"))[:3]
    stream = stream_of(
        dataclasses.replace(INJECTION, wordings=wordings), CONTINUAL, TOKENIZER, seed=4
    )
    found = rows_with_facts(stream)
    wanted = {}
    for number in range(rounds):
        for k, fact in enumerate(
            facts
        ):  # two rows of four hold facts, so a round takes two updates
            wording = number % len(fact.texts) if wordings == "paraphrases" else 0
            wanted[2 * number + k // 2, k % 2] = fact.texts[wording]
    assert found == wanted
    assert len(stream.batches) == total_updates(INJECTION, CONTINUAL) == 8


def test_the_rest_is_the_domain_and_seeds_differ():
    stream, again, other = (stream_of(INJECTION, CONTINUAL, TOKENIZER, seed) for seed in (4, 4, 5))
    for one, two in zip(stream.batches, again.batches, strict=True):
        np.testing.assert_array_equal(one.inputs, two.inputs)
    assert (stream.batches[-1].inputs != other.batches[-1].inputs).any()
    text = TOKENIZER.decode(stream.batches[-1].targets[3])
    assert any(text[100:200] in document for document in data.documents("builtin:code:test"))


def test_probes_are_asked_in_their_rounds():
    stream = stream_of(INJECTION, CONTINUAL, TOKENIZER, seed=0)
    assert (stream.ask_at, stream.rounds) == ((0, 4, 8), (0, 2, 3))
    assert set(stream.depth) <= {"memorisation", "paraphrase", "composition"}
    assert set(stream.fact) == {0, 1, 2}


@pytest.fixture(scope="module")
def injected():
    config = models.ModelConfig(
        vocab=257, width=12, depth=2, heads=2, head_width=6, mlp_width=20, positions=640
    )
    model = models.LanguageModel(config)
    params = models.init(model)
    stream = stream_of(INJECTION, CONTINUAL, TOKENIZER, seed=0)
    old, new = (
        list(data.batches(ref, TOKENIZER, 640, 2, 1280))
        for ref in ("builtin:docs:test", "builtin:code:test")
    )
    inject = make_injection(model, CONTINUAL, INJECTION)
    return (
        model,
        params,
        stream,
        inject(params, stream, Controls(stream.probes, old, new)),
        old,
        inject,
    )


def test_before_is_the_model_as_it_was(injected):
    model, params, stream, asked, old, _ = injected
    wanted = metrics.span_log_probability(model, params, *stream.probes[:3])
    np.testing.assert_allclose(asked[0].new.log_probability, wanted, atol=1e-5)
    assert (
        abs(asked[0].old_nll - metrics.measure(metrics.likelihood(), model, params, old).nll) < 1e-6
    )
    assert asked[1].known is None and asked[1].old_nll is None


def test_it_learns_the_domain_and_leaves_the_parameters_alone(injected):
    _, params, stream, asked, _, inject = injected
    assert asked[-1].new_nll < asked[0].new_nll - 0.5
    assert abs(asked[0].new_nll - np.log(257)) < 0.1
    again = inject(params, stream, Controls(None, None, None))  # the same parameters, not used up
    np.testing.assert_array_equal(again[-1].new.log_probability, asked[-1].new.log_probability)


def test_rows_say_what_was_asked(injected):
    *_, stream, asked, _, _ = injected
    rows = score_rows("m", 3, asked, stream, {"seed": 0})
    of = lambda metric, **more: [
        r for r in rows if r["metric"] == metric and all(r.get(k) == v for k, v in more.items())
    ]
    gained = asked[-1].new.log_probability - asked[0].new.log_probability
    (whole,) = of("acquisition", depth=None)
    assert abs(whole["value"] - gained.mean()) < 1e-6
    assert (
        whole["low"] < np.mean([gained[stream.fact == i].mean() for i in range(3)]) < whole["high"]
    )
    assert abs(whole["relative"] - (gained / np.abs(asked[0].new.log_probability)).mean()) < 1e-6
    for depth in set(stream.depth):
        (row,) = of("acquisition", depth=depth)
        assert abs(row["value"] - gained[stream.depth == depth].mean()) < 1e-6
        assert [r["update"] for r in of("span_log_probability", depth=depth)] == [0, 4, 8]
    (lost,) = of("forgetting", of="text")
    assert abs(lost["value"] - (asked[-1].old_nll - asked[0].old_nll) / asked[0].old_nll) < 1e-6
    found = forgetting(asked[0], asked[-1])
    assert abs(found["all"] - (found["text"] + found["facts"]) / 2) < 1e-9
    json.dumps(rows)


@pytest.mark.parametrize(
    "injection, continual, message",
    [
        (
            dict(count=None),
            dict(length=200),
            "tokens, and a window holds 200; give a length of at least",
        ),
        (
            dict(every=1),
            {},
            (
                "3 facts, 2 rows of a batch at most, take 2 updates a round; use injection.every of"
                " at least 2"
            ),
        ),
        (dict(facts="no/such/file.json"), {}, "no/such/file.json"),
        (dict(rounds=0), {}, "injection.rounds=0; it must be at least 1"),
        (dict(share=0.0), {}, "injection.share=0.0; it is a share"),
        ({}, dict(steps_after=-1), "continual.steps_after=-1; it must be at least 0"),
    ],
)
def test_bad_input_is_one_line(injection, continual, message):
    with pytest.raises(InputError, match=message) as caught:
        stream_of(
            dataclasses.replace(INJECTION, **injection),
            dataclasses.replace(CONTINUAL, **continual),
            TOKENIZER,
            seed=0,
        )
    assert "\n" not in str(caught.value)
