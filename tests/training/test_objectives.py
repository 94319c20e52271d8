"""Objectives and changes inside a run."""

import dataclasses
import shutil

import jax
import numpy as np
import optax
import pytest

from lmdyn import checkpoints, data, metrics, models, transforms
from lmdyn.checkpoints import runs
from lmdyn.data import Batch
from lmdyn.errors import InputError
from lmdyn.training import Intervention, Objective, make_step, objectives, start, train
from lmdyn.training.config import differences, to_json
from tests.training import cases

BONUS = "lmdyn.training.objectives.entropy_bonus"
WAKE = "lmdyn.transforms.reactivation"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objectives")
    cases.write_texts(folder)
    return folder


@pytest.fixture(scope="module")
def small():
    config = models.ModelConfig(
        vocab=13, width=6, depth=3, heads=3, head_width=2, mlp_width=10, positions=16, init_std=0.5
    )
    model = models.LanguageModel(config)
    ids = np.random.default_rng(0).integers(0, 13, (4, 8)).astype(np.int32)
    mask = np.ones([4, 7], bool)
    mask[1, 3:] = False
    return model, models.init(model), Batch(ids[:, :-1], ids[:, 1:], mask)


def by_measuring(model, params, batch, weight):
    """The same number from the metrics, in float64 on the host."""
    found = metrics.measure(metrics.build("nll,knowledge_entropy"), model, params, [batch])
    return found["nll"].nll - weight * found["knowledge_entropy"].normalized.mean()


def test_the_bonus_is_the_entropy_that_is_measured(small):
    model, params, batch = small
    weights = batch.mask / batch.mask.sum()
    objective = jax.jit(lambda p: objectives.entropy_bonus(0.7)(model, p, batch, weights))
    total, logged = objective(params)
    assert abs(float(total) - by_measuring(model, params, batch, 0.7)) < 1e-5
    assert abs(float(logged["loss"]) - by_measuring(model, params, batch, 0.0)) < 1e-5


def test_its_gradient_is_the_slope_of_what_is_measured(small):
    model, params, batch = small
    weights = batch.mask / batch.mask.sum()
    gradient = jax.grad(lambda p: objectives.entropy_bonus(5.0)(model, p, batch, weights)[0])(
        params
    )
    slope = float(optax.tree.norm(gradient))
    direction = jax.tree.map(lambda g: g / slope, gradient)
    step = 2e-3
    ends = [
        by_measuring(
            model, jax.tree.map(lambda p, d, s=s: p + s * step * d, params, direction), batch, 5.0
        )
        for s in (1, -1)
    ]
    assert abs((ends[0] - ends[1]) / (2 * step) - slope) < 2e-3 * abs(
        slope
    )  # of central differences in float32


def test_parts_of_a_batch_add_up(small):
    model, params, batch = small
    found = []
    for parts in (1, 2):
        step = jax.jit(
            make_step(
                model, optax.sgd(0.1), accumulate=parts, objective=objectives.entropy_bonus(0.0)
            )
        )
        found.append(step(start(params, optax.sgd(0.1)), batch)[1])
    assert abs(float(found[0]["loss"]) - float(found[1]["loss"])) < 1e-6
    assert 0.5 < float(found[1]["knowledge_entropy_share"]) <= 1


def last_entropy(config):
    return [
        r["value"]
        for r in cases.lines(config.out, "rows.jsonl")
        if r["metric"] == "knowledge_entropy" and r["layer"] is None
    ][-1]


@pytest.mark.slow
def test_a_run_with_a_bonus_ends_with_more_entropy(folder):
    plain = cases.config(folder, out=str(folder / "plain"))
    bonus = cases.config(
        folder, out=str(folder / "bonus"), objective=Objective(BONUS, {"weight": 3.0})
    )
    for config in (plain, bonus):
        train(config)
    assert last_entropy(bonus) > last_entropy(plain)
    assert "knowledge_entropy_share" in cases.lines(bonus.out)[-1]


@pytest.mark.slow
def test_changes_are_made_after_their_steps_and_once(folder):
    text = f"text:{folder}/train.txt"
    plain = cases.config(folder, out=str(folder / "unchanged"), checkpoints__every=4)
    woken = dataclasses.replace(
        plain,
        out=str(folder / "woken"),
        interventions=(Intervention(WAKE, text, 4, {"ratio": 0.5}, until=4, tokens=64),),
    )
    for config in (plain, woken):
        train(config)
    before, after = (checkpoints.load(f"run:{config.out}@4") for config in (plain, woken))
    batches = data.batches(text, before.tokenizer, 16, 4, 64)
    coefficients = metrics.measure(
        metrics.knowledge_entropy(), before.model, before.params, batches
    ).coefficients
    wanted = transforms.reactivate(before.params, coefficients, 0.5)
    jax.tree.map(np.testing.assert_array_equal, after.params, wanted)
    assert cases.digests(plain.out)[2] == cases.digests(woken.out)[2]

    again = dataclasses.replace(
        woken, out=str(folder / "again")
    )  # going on after the change does not make it again
    shutil.copytree(woken.out, again.out)
    for step in runs.steps(again.out):
        if step > 4:
            shutil.rmtree(f"{again.out}/checkpoints/{step}")
    train(again, say=lambda text: None)
    assert cases.digests(woken.out)[12] == cases.digests(again.out)[12]


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"objective": Objective("lmdyn.training.objectives.entropy_bonos")},
            "has no attribute 'entropy_bonos'; did you mean .*entropy_bonus",
        ),
        (
            {"objective": Objective(BONUS, {"weight": float("nan")})},
            "weight=nan of an entropy bonus; it must be a finite number",
        ),
        (
            {"interventions": (Intervention("math.sqrt", "builtin:docs:test", 3, {}),)},
            "interventions: math.sqrt",
        ),
        (
            {
                "interventions": (
                    Intervention("lmdyn.params.flatten", "builtin:docs:test", 3, {"tree": {}}),
                )
            },
            "returned dict, not a",
        ),
        ({"interventions": (Intervention(WAKE, "builtin:docs:test", 3, {"ratio": 2.0}),)}, "ratio"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(folder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        train(cases.config(folder, out=str(tmp_path / "run"), **changes))
    assert not (tmp_path / "run" / "run.json").exists()


def test_numbers_below_one_are_refused(folder):
    with pytest.raises(InputError, match=r"interventions\[0\].every=0; it must be at least 1"):
        cases.config(folder, interventions=(Intervention(WAKE, "builtin:docs:test", 0),))


def test_a_run_older_than_a_field_goes_on(folder):
    old = to_json(cases.config(folder))
    del old["interventions"], old["objective"]
    assert differences(old, to_json(cases.config(folder))) == []
