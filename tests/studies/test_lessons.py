"""Lessons: what stands in their batches, and what is asked."""

import dataclasses
import json

import numpy as np
import pytest

from lmdyn import data, metrics, models
from lmdyn.errors import InputError
from lmdyn.studies.lessons import (
    Exam,
    Further,
    Tell,
    answers,
    forgetting,
    make_lesson,
    steps,
    teacher,
)
from lmdyn.training import Optimizer
from tests.studies.cases import WORLD

TOKENIZER = data.tokenizers.byte_tokenizer()
FURTHER = Further(
    "builtin:code:test",
    length=640,
    batch=4,
    rest=2,
    optimizer=Optimizer(learning_rate=1e-2, schedule="constant"),
)
TELL = Tell(WORLD, count=3, times=3, every=2, ask=2, share=0.5)


def rows_that_tell(lesson):
    """{(update, row): text} of rows that begin with the end-of-text token and are one document."""
    found = {}
    for update, batch in enumerate(lesson.batches):
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
    lesson = make_lesson(dataclasses.replace(TELL, wordings=wordings), FURTHER, TOKENIZER, seed=4)
    told = rows_that_tell(lesson)
    wanted = {}
    for number in range(rounds):
        for k, fact in enumerate(facts):  # two rows of four tell, so a round takes two updates
            wording = number % len(fact.texts) if wordings == "paraphrases" else 0
            wanted[2 * number + k // 2, k % 2] = fact.texts[wording]
    assert told == wanted
    assert len(lesson.batches) == steps(TELL, FURTHER) == 8


def test_the_rest_is_the_domain_and_seeds_differ():
    lesson, again, other = (make_lesson(TELL, FURTHER, TOKENIZER, seed) for seed in (4, 4, 5))
    for one, two in zip(lesson.batches, again.batches, strict=True):
        np.testing.assert_array_equal(one.inputs, two.inputs)
    assert (lesson.batches[-1].inputs != other.batches[-1].inputs).any()
    text = TOKENIZER.decode(lesson.batches[-1].targets[3])
    assert any(text[100:200] in document for document in data.documents("builtin:code:test"))


def test_probes_are_asked_in_their_rounds():
    lesson = make_lesson(TELL, FURTHER, TOKENIZER, seed=0)
    assert (lesson.moments, lesson.told) == ((0, 4, 8), (0, 2, 3))
    assert set(lesson.depth) <= {"memorisation", "paraphrase", "composition"}
    assert set(lesson.owner) == {0, 1, 2}


@pytest.fixture(scope="module")
def taught():
    config = models.ModelConfig(
        vocab=257, width=12, depth=2, heads=2, head_width=6, mlp_width=20, positions=640
    )
    model = models.LanguageModel(config)
    params = models.init(model)
    lesson = make_lesson(TELL, FURTHER, TOKENIZER, seed=0)
    old, new = (
        list(data.batches(ref, TOKENIZER, 640, 2, 1280))
        for ref in ("builtin:docs:test", "builtin:code:test")
    )
    teach = teacher(model, FURTHER, TELL)
    return model, params, lesson, teach(params, lesson, Exam(lesson.asked, old, new)), old, teach


def test_before_is_the_model_as_it_was(taught):
    model, params, lesson, asked, old, _ = taught
    wanted = metrics.span_log_probability(model, params, *lesson.asked[:3])
    np.testing.assert_allclose(asked[0].new.log_probability, wanted, atol=1e-5)
    assert (
        abs(asked[0].old_nll - metrics.measure(metrics.likelihood(), model, params, old).nll) < 1e-6
    )
    assert asked[1].old is None and asked[1].old_nll is None


def test_it_learns_the_domain_and_leaves_the_parameters_alone(taught):
    _, params, lesson, asked, _, teach = taught
    assert asked[-1].new_nll < asked[0].new_nll - 0.5
    assert abs(asked[0].new_nll - np.log(257)) < 0.1
    again = teach(params, lesson, Exam(None, None, None))  # the same parameters, not used up
    np.testing.assert_array_equal(again[-1].new.log_probability, asked[-1].new.log_probability)


def test_rows_say_what_was_asked(taught):
    *_, lesson, asked, _, _ = taught
    rows = answers("m", 3, asked, lesson, {"seed": 0})
    of = lambda metric, **more: [
        r for r in rows if r["metric"] == metric and all(r.get(k) == v for k, v in more.items())
    ]
    gained = asked[-1].new.log_probability - asked[0].new.log_probability
    (whole,) = of("acquisition", depth=None)
    assert abs(whole["value"] - gained.mean()) < 1e-6
    assert (
        whole["low"] < np.mean([gained[lesson.owner == i].mean() for i in range(3)]) < whole["high"]
    )
    assert abs(whole["relative"] - (gained / np.abs(asked[0].new.log_probability)).mean()) < 1e-6
    for depth in set(lesson.depth):
        (row,) = of("acquisition", depth=depth)
        assert abs(row["value"] - gained[lesson.depth == depth].mean()) < 1e-6
        assert [r["moment"] for r in of("span_log_probability", depth=depth)] == [0, 4, 8]
    (lost,) = of("forgetting", of="text")
    assert abs(lost["value"] - (asked[-1].old_nll - asked[0].old_nll) / asked[0].old_nll) < 1e-6
    found = forgetting(asked[0], asked[-1])
    assert abs(found["all"] - (found["text"] + found["facts"]) / 2) < 1e-9
    json.dumps(rows)


@pytest.mark.parametrize(
    "tell, further, message",
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
                "3 facts, 2 rows of a batch at most, take 2 updates a round; use tell.every of at"
                " least 2"
            ),
        ),
        (dict(facts="no/such/file.json"), {}, "no/such/file.json"),
        (dict(times=0), {}, "tell.times=0; it must be at least 1"),
        (dict(share=0.0), {}, "tell.share=0.0; it is a share"),
        ({}, dict(rest=-1), "further.rest=-1; it must be at least 0"),
    ],
)
def test_bad_input_is_one_line(tell, further, message):
    with pytest.raises(InputError, match=message) as caught:
        make_lesson(
            dataclasses.replace(TELL, **tell),
            dataclasses.replace(FURTHER, **further),
            TOKENIZER,
            seed=0,
        )
    assert "\n" not in str(caught.value)
