"""Continual pretraining by a line of the config: low-rank adapters, MixReview, RecAdam."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from lmdyn import checkpoints, training, transforms
from lmdyn.checkpoints import exporting
from lmdyn.data import tokenizers
from lmdyn.errors import InputError
from lmdyn.models import Compute, LanguageModel, ModelConfig, init
from lmdyn.params import flatten
from lmdyn.training import (
    CheckpointPolicy,
    Data,
    LoRA,
    Optimizer,
    Recall,
    Review,
    Source,
    TrainConfig,
    make_optimizer,
)

MODEL = ModelConfig(vocab=257, width=12, depth=3, heads=2, head_width=6, mlp_width=20, positions=64)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start") / "model"
    model = LanguageModel(MODEL)
    exporting.export(model, init(model, seed=5), tokenizers.byte_tokenizer(), folder)
    return f"dir:{folder}"


def run(out, start, steps=4, **options):
    given = dict(
        data=Data(sources=(Source("builtin:docs:test"),), length=24, batch=2),
        steps=steps,
        out=str(out),
        start=start,
        optimizer=Optimizer(learning_rate=1e-2, schedule="constant", weight_decay=0.0),
        checkpoints=CheckpointPolicy(save=2, last=2, powers_of_two=False),
        compute=Compute(dtype="float32"),
        mesh=(1, 1, 1),
    )
    return TrainConfig(**{**given, **options})


def params(out, step=None):
    found = checkpoints.load(f"run:{out}" + ("" if step is None else f"@{step}")).params
    return {path: np.asarray(leaf) for path, leaf in flatten(found).items()}


def test_adapters_change_their_matrices_by_low_rank_and_nothing_else(start, tmp_path):
    training.train(
        run(tmp_path / "a", start, adapters=LoRA("blocks[1:].mlp", rank=2)), say=lambda text: None
    )
    before, after = flatten(checkpoints.load(start).params), params(tmp_path / "a")
    for path, leaf in after.items():
        change = leaf - np.asarray(before[path])
        if path[:2] == ("blocks", "mlp") and path[-1] == "kernel":
            assert not change[0].any()
            for layer in (1, 2):
                values = np.linalg.svd(change[layer], compute_uv=False)
                assert values[1] > 0 and values[2] < 1e-5 * values[0]
        else:
            assert not change.any(), path


@pytest.mark.parametrize(
    "options",
    [
        dict(adapters=LoRA("blocks", rank=2)),
        dict(
            optimizer=Optimizer(
                learning_rate=1e-2,
                schedule="constant",
                weight_decay=0.1,
                recall=Recall(5.0, 0.5, 2.0),
            )
        ),
    ],
)
def test_a_stopped_run_goes_on_with_the_same_bits(start, tmp_path, options):
    training.train(run(tmp_path / "whole", start, **options), say=lambda text: None)
    training.train(run(tmp_path / "parts", start, **options), say=lambda text: None)
    (last,) = (tmp_path / "parts" / "checkpoints").glob("*4")
    for file in sorted(last.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    last.rmdir()
    said = []
    training.train(run(tmp_path / "parts", start, **options), say=said.append)
    assert any("resuming at step 2" in line for line in said)
    whole, parts = params(tmp_path / "whole"), params(tmp_path / "parts")
    assert all((whole[path].view(np.uint32) == parts[path].view(np.uint32)).all() for path in whole)


def test_recall_in_a_config_is_rec_adam():
    rule = Optimizer(
        learning_rate=1e-2,
        schedule="constant",
        b1=0.9,
        b2=0.999,
        weight_decay=0.0,
        clip=None,
        recall=Recall(5.0, 0.5, 2.0),
    )
    one, other = make_optimizer(rule, 10), transforms.rec_adam(1e-2, 5.0, 0.5, 2.0)
    tree = {"head": {"kernel": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}}
    found, states = [tree, tree], [one.init(tree), other.init(tree)]
    for step in range(4):
        gradient = jax.tree.map(lambda leaf, step=step: np.cos(leaf * (step + 2)), tree)
        for i, optimizer in enumerate((one, other)):
            updates, states[i] = optimizer.update(gradient, states[i], found[i])
            found[i] = optax.apply_updates(found[i], updates)
    np.testing.assert_allclose(found[0]["head"]["kernel"], found[1]["head"]["kernel"], rtol=1e-6)


def test_a_review_is_read_and_recorded(start, tmp_path):
    review = Review("builtin:code:test", ratio=1.0, decay=0.5)
    base = run(tmp_path / "r", start, steps=2)
    config = dataclasses.replace(base, data=dataclasses.replace(base.data, review=review))
    training.train(config, say=lambda text: None)
    plain = dataclasses.replace(base, out=str(tmp_path / "p"))
    training.train(plain, say=lambda text: None)
    one, other = params(tmp_path / "r"), params(tmp_path / "p")
    assert any((one[path] != other[path]).any() for path in one)
    with pytest.raises(InputError, match=r"data.review: \{.*\} -> None"):
        training.train(dataclasses.replace(base), say=lambda text: None)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(adapters=LoRA(), train="head"), "adapters stand beside"),
        (dict(adapters=LoRA(), start=None, model=MODEL), "adapters stand beside"),
        (
            dict(optimizer=Optimizer(name="sgd", recall=Recall(1.0, 1.0, 1.0))),
            "optimizer.recall needs optimizer.name=adamw",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path, **{"start": "dir:x", **options})


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(adapters=LoRA(rank=40)), "rank=40 exceeds the smaller side"),
        (dict(adapters=LoRA("head")), "holds no matrix that an adapter can stand beside"),
        (
            dict(
                data=Data(
                    sources=(Source("builtin:docs:test"),),
                    length=24,
                    batch=2,
                    review=Review("builtin:dogs"),
                )
            ),
            "dogs",
        ),
        (
            dict(
                data=Data(
                    sources=(Source("builtin:docs:test"),),
                    length=24,
                    batch=2,
                    review=Review("builtin:docs", ratio=0.0),
                )
            ),
            "ratio=0.0",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(start, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        training.train(run(tmp_path / "new", start, **options), say=lambda text: None)
    assert not (tmp_path / "new").exists()


def test_a_plan_counts_adapters(start):
    """The adapters alone have gradients and optimizer state: R (in + out) numbers for each matrix
    and layer.
    """
    from lmdyn.training import step_plan

    found = step_plan.plan_step(run("x", start, adapters=LoRA("blocks.mlp", rank=2)))
    assert found.trained == 3 * 3 * 2 * (12 + 20)
    assert found.gradients == 4 * found.trained
    assert 0 <= found.optimizer - 4 * (2 * found.trained) <= 16  # two moments, and counts of steps


def test_adapters_are_divided_over_devices_with_the_same_numbers(start, tmp_path):
    for name, mesh in (("one", (1, 1, 1)), ("four", (1, 2, 2))):
        training.train(
            run(tmp_path / name, start, steps=2, adapters=LoRA("blocks", rank=2), mesh=mesh),
            say=lambda text: None,
        )
    one, four = params(tmp_path / "one"), params(tmp_path / "four")
    for path, leaf in one.items():
        np.testing.assert_allclose(four[path], leaf, rtol=1e-4, atol=1e-5)
