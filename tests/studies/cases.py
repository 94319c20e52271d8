"""A study of knowledge entropy that takes seconds: what it finds means nothing."""

from lmdyn.models import Compute, ModelConfig
from lmdyn.studies import Further, KnowledgeEntropy, Tell, Variant
from lmdyn.training import Change, Data, Keep, Objective, Optimizer, Source, Train, Watch

WORLD = "tfds:synthetic_world/people=10,places=5,new=0.4,updated=0.0,seed={seed}"


def small(out, **options):
    """The study, of 2 seeds, each with checkpoints 2, 4, 8 and 12."""
    model = ModelConfig(vocab=257, width=12, depth=2, heads=2, head_width=6, mlp_width=20, positions=640)
    run = Train(
        model=model,
        data=Data(sources=(Source("builtin:docs:test", 3.0), Source(f"{WORLD}:time0#text")), length=96, batch=4),
        steps=12,
        optimizer=Optimizer(rate=2e-2, schedule="constant"),
        watch=Watch("builtin:docs:test", metrics="nll,knowledge_entropy", every=4, tokens=384),
        keep=Keep(powers_of_two=True, save=12, last=1),
        compute=Compute(dtype="float32"),
        mesh=(1, 1, 1),
        out="set by the study",
    )
    given = dict(
        out=str(out),
        text="builtin:docs:test",
        pretrain=run,
        at=(2, 4, 8, 12),
        variants=(
            Variant("entropy bonus", objective=Objective("lmdyn.training.objectives.entropy_bonus", {"weight": 1.0})),
            Variant("periodic reactivation", changes=(
                Change("lmdyn.transforms.reactivation", "builtin:docs:test", every=4, arguments={"ratio": 0.5}, tokens=384),
            )),
        ),
        known=f"{WORLD}:probes_time0",
        probes=10,
        tell=Tell(facts=WORLD, count=3, times=2, every=3, ask=1),
        further=Further(text="builtin:code:test", held_out="builtin:code:test", length=640, batch=2, rest=1,
                        optimizer=Optimizer(rate=1e-2, schedule="constant")),
        tokens=640,
        seeds=2,
        gains=(1.0,),
        ratios=(0.25, 0.5),
        workers=1,
    )
    return KnowledgeEntropy(**{**given, **options})
