"""Gradient localization and targeted updates (Fernandez et al. 2024), on tiny models that the study
trains itself.

Shows: what the paper claims of pretrained models of a billion parameters, tried on models of 0.4
million: which layers updated, new and unchanged facts light up; continual pretraining by four
methods, each restricted or scaled by that, beside controls; the same online.
Expect: spans of facts have 1.3 to 3.7 times the gradient of random spans in every layer, most for
updated facts, so that no subset of layers stands out as in the paper. Updating only the layers
above the mean learns less than updating everything at equal forgetting; scaled rates change
nothing.
Takes: 12 minutes on 2 cores.
Run: lmdyn study --config configs/gradient_localization.py --out out/gradient_localization
"""

from lmdyn.models import Compute, ModelConfig
from lmdyn.studies import GradientLocalization, Method, OnlineStream
from lmdyn.training import (
    CheckpointPolicy,
    Data,
    LoRA,
    Optimizer,
    Recall,
    Review,
    Source,
    TrainConfig,
)

WORLD = "tfds:synthetic_world/people=64,places=16,new=0.25,updated=0.3,seed={seed}"
STEPS = 768
COMPUTE = Compute(unroll=6)


def config():
    return GradientLocalization(
        out="out/gradient_localization",
        probes=(f"{WORLD}:probes",),
        text="builtin:docs:test",
        reference="builtin:docs:train",
        pretrain=TrainConfig(
            model=ModelConfig(
                vocab=1024,
                width=64,
                depth=6,
                heads=4,
                head_width=16,
                positions=256,
                mlp_width=176,
                query_key_norm="head",
            ),
            data=Data(
                sources=(Source("builtin:docs:train", 2.0), Source(f"{WORLD}:time0#text", 1.0)),
                tokenizer="bpe:1024",
                length=256,
                batch=8,
            ),
            steps=STEPS,
            optimizer=Optimizer(learning_rate=4e-3, warmup=20, schedule="cosine"),
            checkpoints=CheckpointPolicy(powers_of_two=False, save=STEPS, last=1),
            compute=COMPUTE,
            out="set by the study",
        ),
        data=Data(
            sources=(Source(f"{WORLD}:time1#text", 1.0), Source("builtin:code:train", 1.0)),
            length=128,
            batch=8,
        ),
        methods=(
            Method("plain"),
            Method("low-rank adapters", adapters=LoRA(rank=8, scale=2.0), learning_rate_factor=2.0),
            Method("MixReview", review=Review("builtin:docs:train", ratio=1.0, decay=0.7)),
            Method("RecAdam", recall=Recall(strength=50.0, steepness=0.1, middle=24.0)),
        ),
        steps=56,
        optimizer=Optimizer(
            learning_rate=1e-3, schedule="constant", warmup=5, weight_decay=0.0, clip=None
        ),
        learning_rate_factors=(0.25, 1.0, 4.0),
        online=OnlineStream(
            f"{WORLD}:time1#text", tokens=8192, chunk=64, learning_rates=(1e-4, 3e-4, 1e-3, 3e-3)
        ),
        compute=COMPUTE,
    )
