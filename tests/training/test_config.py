"""A config says what is wrong with it at once."""

import pytest

from lmdyn.errors import InputError
from lmdyn.models import Compute, ModelConfig
from lmdyn.training import CheckpointPolicy, Data, Evaluation, Optimizer, Source, TrainConfig

MODEL = ModelConfig(
    vocab=257, width=24, depth=2, heads=2, head_width=12, mlp_width=20, positions=32
)
DATA = Data(sources=(Source("builtin:docs"),))


def make(**changes):
    return TrainConfig(**{"data": DATA, "steps": 10, "out": "run", "model": MODEL} | changes)


def test_a_field_that_does_not_exist_is_an_error():
    with pytest.raises(TypeError, match="rate"):
        Optimizer(rate=1e-3)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(steps="10"), "TrainConfig.steps='10' is of type str, not int"),
        (dict(steps=10.5), "TrainConfig.steps=10.5 is of type float, not int"),
        (dict(steps=True), "TrainConfig.steps=True is of type bool, not int"),
        (
            dict(optimizer=Optimizer(learning_rate="high")),
            "Optimizer.learning_rate='high' is of type str, not float",
        ),
        (
            dict(optimizer=Optimizer(name="adam")),
            "Optimizer.name='adam' is of type str, not Literal",
        ),
        (dict(optimizer=Optimizer(schedule="cosin")), "Optimizer.schedule='cosin'"),
        (
            dict(data=Data(sources=("builtin:docs",))),
            "Data.sources=.* is of type tuple, not tuple\\[Source",
        ),
        (dict(data=Data(sources=(Source(5),))), "Source.ref=5 is of type int, not str"),
        (dict(mesh=(1, 2)), "TrainConfig.mesh=\\(1, 2\\)"),
        (
            dict(evaluation="builtin:docs"),
            "TrainConfig.evaluation='builtin:docs' is of type str, not Evaluation | None",
        ),
        (dict(compute=Compute(remat=True)), "Compute.remat=True"),
        (dict(steps=0), "steps=0; it must be at least 1"),
        (dict(data=Data(sources=())), "data.sources is empty"),
        (dict(data=Data(sources=DATA.sources, batch=0)), "data.batch=0; it must be at least 1"),
        (dict(accumulate=3), "data.batch=32 does not divide into accumulate=3 parts"),
        (dict(checkpoints=CheckpointPolicy(every=0)), "checkpoints.every=0"),
        (dict(evaluation=Evaluation("builtin:docs", every=0)), "evaluation.every=0"),
        (
            dict(optimizer=Optimizer(learning_rate=-1.0)),
            "optimizer.learning_rate=-1.0; it must be 0 or a positive number",
        ),
        (dict(optimizer=Optimizer(learning_rate=float("nan"))), "optimizer.learning_rate=nan"),
        (dict(optimizer=Optimizer(clip=0.0)), "optimizer.clip=0.0"),
        (
            dict(optimizer=Optimizer(warmup=11)),
            "optimizer.warmup=11 is not within the run's 10 steps; use 0 to 10",
        ),
        (dict(model=None), "give either model= .* or start="),
        (dict(start="hf:a/b"), "give either model= .* or start="),
    ],
)
def test_a_bad_value_is_an_error_that_names_it(changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)


def test_a_whole_number_will_do_for_a_float():
    assert make(optimizer=Optimizer(learning_rate=1)).optimizer.learning_rate == 1
