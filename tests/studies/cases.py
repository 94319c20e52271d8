"""A study of knowledge entropy that takes seconds: what it finds means nothing."""

from lmdyn.models import Compute, ModelConfig
from lmdyn.studies import (
    ContinualTraining,
    FactInjection,
    GradientLocalization,
    KnowledgeEntropy,
    Method,
    OnlineStream,
    Variant,
)
from lmdyn.training import (
    CheckpointPolicy,
    Data,
    Evaluation,
    Intervention,
    LoRA,
    Objective,
    Optimizer,
    Review,
    Source,
    TrainConfig,
)

WORLD = "tfds:synthetic_world/people=10,places=5,new=0.4,updated=0.0,seed={seed}"


def small(out, **options):
    """The study, of 2 seeds, each with checkpoints 2, 4, 8 and 12."""
    model = ModelConfig(
        vocab=257, width=12, depth=2, heads=2, head_width=6, mlp_width=20, positions=640
    )
    run = TrainConfig(
        model=model,
        data=Data(
            sources=(Source("builtin:docs:test", 3.0), Source(f"{WORLD}:time0#text")),
            length=96,
            batch=4,
        ),
        steps=12,
        optimizer=Optimizer(learning_rate=2e-2, schedule="constant"),
        evaluation=Evaluation(
            "builtin:docs:test", metrics="nll,knowledge_entropy", every=4, tokens=384
        ),
        checkpoints=CheckpointPolicy(powers_of_two=True, save=12, last=1),
        compute=Compute(dtype="float32"),
        mesh=(1, 1, 1),
        out="set by the study",
    )
    given = dict(
        out=str(out),
        text="builtin:docs:test",
        pretrain=run,
        compare_steps=(2, 4, 8, 12),
        variants=(
            Variant(
                "entropy bonus",
                objective=Objective("lmdyn.training.objectives.entropy_bonus", {"weight": 1.0}),
            ),
            Variant(
                "periodic reactivation",
                interventions=(
                    Intervention(
                        "lmdyn.transforms.reactivation",
                        "builtin:docs:test",
                        every=4,
                        arguments={"ratio": 0.5},
                        tokens=384,
                    ),
                ),
            ),
        ),
        known_probes=f"{WORLD}:probes_time0",
        known_limit=10,
        injection=FactInjection(facts=WORLD, count=3, rounds=2, every=3, ask_every=1),
        continual=ContinualTraining(
            text="builtin:code:test",
            held_out="builtin:code:test",
            length=640,
            batch=2,
            steps_after=1,
            optimizer=Optimizer(learning_rate=1e-2, schedule="constant"),
        ),
        tokens=640,
        seeds=2,
        gains=(1.0,),
        ratios=(0.25, 0.5),
        workers=1,
    )
    return KnowledgeEntropy(**{**given, **options})


LOCAL_WORLD = "tfds:synthetic_world/people=24,places=8,new=0.4,updated=0.4,seed={seed}"


def localization(out, **options):
    """The study of gradient localization, of 2 seeds, with every method; it takes seconds, and what
    it finds means nothing.
    """
    model = ModelConfig(
        vocab=257, width=12, depth=3, heads=2, head_width=6, mlp_width=20, positions=640
    )
    run = TrainConfig(
        model=model,
        data=Data(
            sources=(Source("builtin:docs:test", 1.0), Source(f"{LOCAL_WORLD}:time0#text")),
            length=96,
            batch=4,
        ),
        steps=8,
        optimizer=Optimizer(learning_rate=2e-2, schedule="constant"),
        checkpoints=CheckpointPolicy(powers_of_two=False, save=8, last=1),
        compute=Compute(dtype="float32"),
        mesh=(1, 1, 1),
        out="set by the study",
    )
    given = dict(
        out=str(out),
        probes=(f"{LOCAL_WORLD}:probes",),
        data=Data(sources=(Source(f"{LOCAL_WORLD}:time1#text"),), length=48, batch=3),
        text="builtin:docs:test",
        reference="builtin:docs:test",
        pretrain=run,
        methods=(
            Method("plain"),
            Method(
                "adapters",
                adapters=LoRA(rank=2),
                review=Review("builtin:docs:test", ratio=1.0, decay=0.5),
                learning_rate_factor=2.0,
            ),
        ),
        steps=4,
        optimizer=Optimizer(learning_rate=1e-2, schedule="constant", weight_decay=0.0, clip=None),
        learning_rate_factors=(1.0, 4.0),
        online=OnlineStream(
            f"{LOCAL_WORLD}:time1#text", tokens=90, chunk=20, learning_rates=(1e-3, 1e-2)
        ),
        profile_limit=60,
        ask_limit=10,
        spans=12,
        tokens=144,
        seeds=2,
        workers=1,
    )
    return GradientLocalization(**{**given, **options})
