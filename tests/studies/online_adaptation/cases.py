"""A study of online adaptation that takes seconds: what it finds means nothing."""

from lmdyn.models import Compute, ModelConfig
from lmdyn.studies import Grid, Meta, OnlineAdaptation, Size
from lmdyn.training import CheckpointPolicy, Data, Optimizer, Source, TrainConfig

SHAPE = dict(vocab=257, depth=4, heads=2, head_width=6, positions=64)
GRID = Grid(
    home="builtin:docs:test",
    streams=("builtin:docs:test", "builtin:code:test"),
    tokens=320,
    prefix=64,
    chunk=16,
    learning_rates={"SGD": (0.1, 1.0), "AdamW": (1e-3, 1e-2), "RMS rule": (1e-3, 1e-2)},
    low_rank_learning_rates=(1e-2,),
    rules=("SGD", "RMS rule"),
    rank=2,
    ranks=(1, 3),
    rms_batches=4,
)


def small(out, **options):
    """The study, of 2 seeds."""
    run = TrainConfig(
        model=ModelConfig(width=12, mlp_width=20, **SHAPE),
        data=Data(sources=(Source("builtin:docs:test"),), length=48, batch=4),
        steps=12,
        optimizer=Optimizer(learning_rate=2e-2, schedule="constant"),
        checkpoints=CheckpointPolicy(every=4, powers_of_two=False, save=12, last=1),
        compute=Compute(dtype="float32"),
        mesh=(1, 1, 1),
        out="set by the study",
    )
    tune = TrainConfig(
        data=Data(sources=(Source("builtin:code:test"),), length=48, batch=4),
        steps=4,
        optimizer=run.optimizer,
        checkpoints=CheckpointPolicy(save=4, last=1),
        compute=run.compute,
        mesh=(1, 1, 1),
        start="set by the study",
        out="set by the study",
    )
    given = dict(
        out=str(out),
        grid=GRID,
        given=GRID,
        pretrain=run,
        sizes=(Size(ModelConfig(width=6, mlp_width=10, **SHAPE), learning_rate=1e-2),),
        fine_tune=tune,
        windows=(("none", 0, 16), ("none", 0, 32), ("cache", 24, 16), ("overlap", 32, 16)),
        keep=2,
        document_tokens=64,
        segment_tokens=64,
        meta=Meta("builtin:docs:test", chunks=2, episodes=2, updates=2),
        seeds=2,
        workers=1,
    )
    return OnlineAdaptation(**{**given, **options})
