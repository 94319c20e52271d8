r"""Online adaptation, the whole trade (Rannen-Triki et al. 2024; Krause et al. 2018, 2019), on tiny
models that the study trains itself.

Shows: models of 0.1 to 0.8 million parameters, trained on prose, adapt to held-out prose and to
source code: rules, places, contexts, sizes, resets; where a gradient profile says, from the
checkpoint with the most knowledge entropy, from meta-learned starts.
Expect: adapting saves 2.0 of 4.8 nats on source code and 0.3 of 4.1 on prose by the best rule; Adam
is better without momentum, MLPs are a better place than attention, a cache beats an overlap;
resets, gradient profiles and meta-learned starts gain nothing here. The README has the numbers.
Takes: 16 minutes on 2 cores.
Run: lmdyn study --config configs/online_adaptation.py --out out/online_adaptation

A model of your own is adapted, by every rule, to the texts of `given`; rates are chosen on other
text:
  lmdyn study --config configs/online_adaptation.py --out out/smollm2_online \
    --model gguf:SmolLM2-135M-Instruct.Q4_1.gguf --given.streams text:play1.txt text:play2.txt
"""

from lmdyn.models import Compute, ModelConfig
from lmdyn.studies import Grid, Meta, OnlineAdaptation, Size
from lmdyn.training import CheckpointPolicy, Data, Evaluation, Optimizer, Source, TrainConfig

STEPS, TUNED = 384, 128
RULE = Optimizer(learning_rate=4e-3, warmup=20, schedule="constant")
ADAM = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def shape(width):
    return ModelConfig(
        vocab=1024,
        width=width,
        depth=6,
        heads=4,
        head_width=width // 4,
        mlp_width=3 * width,
        positions=256,
        query_key_norm="head",
    )


def config():
    return OnlineAdaptation(
        out="out/online_adaptation",
        grid=Grid(
            home="builtin:docs:train",
            rms_batches=64,
            streams=("builtin:docs:test", "builtin:code:test"),
            tokens=12288,
            prefix=1536,
            chunk=64,
            learning_rates={
                "SGD": (0.03, 0.1, 0.3, 1.0),
                "AdamW": ADAM,
                "Adam, no momentum": ADAM,
                "RMS rule": ADAM,
            },
            low_rank_learning_rates=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
            main_rule="Adam, no momentum",
        ),
        given=Grid(
            home="builtin:docs:train",
            streams=("builtin:docs:test", "builtin:code:test"),
            choose_on="builtin:code:train",
            tokens=2048,
            prefix=1024,
            chunk=512,
            adapt="blocks",
            main_rule="Adam, no momentum",
            learning_rates={
                "SGD": (0.01,),
                "AdamW": (3e-5, 1e-4),
                "Adam, no momentum": (5e-5, 1e-4),
                "RMS rule": (1e-5, 3e-5, 1e-4),
            },
            low_rank_learning_rates=(3e-4, 1e-3),
        ),
        pretrain=TrainConfig(
            model=shape(64),
            data=Data(
                sources=(Source("builtin:docs:train"),), tokenizer="bpe:1024", length=256, batch=8
            ),
            steps=STEPS,
            optimizer=RULE,
            evaluation=Evaluation("builtin:docs:test", metrics="nll", every=96, tokens=8192),
            checkpoints=CheckpointPolicy(every=96, powers_of_two=False, save=STEPS, last=1),
            compute=Compute(unroll=6),
            out="set by the study",
        ),
        sizes=(Size(shape(32)), Size(shape(96), learning_rate=1.5e-3)),
        fine_tune=TrainConfig(
            data=Data(sources=(Source("builtin:code:train"),), length=256, batch=8),
            start="set by the study",
            steps=TUNED,
            optimizer=Optimizer(learning_rate=2e-3, warmup=20, schedule="constant"),
            checkpoints=CheckpointPolicy(powers_of_two=False, save=TUNED, last=1),
            compute=Compute(unroll=6),
            out="set by the study",
        ),
        windows=(
            ("none", 0, 32),
            ("none", 0, 64),
            ("none", 0, 128),
            ("none", 0, 256),
            ("cache", 64, 64),
            ("cache", 192, 64),
            ("cache", 128, 128),
            ("overlap", 128, 64),
            ("overlap", 256, 64),
            ("overlap", 256, 128),
        ),
        document_tokens=2048,
        segment_tokens=2048,
        meta=Meta("builtin:docs:train", updates=24),
    )
