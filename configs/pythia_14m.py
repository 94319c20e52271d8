"""Pythia-14M: the smallest model of the suite (Biderman et al. 2023, arXiv 2304.01373), as it was
trained.

Shows: a whole pretraining run whose small model saturates: its loss rises again late (Godey et al.
2024, figure 1).
Expect: 143,000 steps of 2,097,152 tokens; the published checkpoints are
hf:EleutherAI/pythia-14m@step1 and so on, for comparison. Not trained by us.
Takes: by formula, 1.7e19 operations: about half a day on one H100 at 45% of its peak. Data:
pile/*.jsonl.zst unpacked into one JSON Lines file with a field "text".
Run: lmdyn train --config configs/pythia_14m.py
"""

from lmdyn.models import ModelConfig
from lmdyn.training import CheckpointPolicy, Data, Evaluation, Optimizer, Source, TrainConfig

STEPS = 143_000


def config():
    return TrainConfig(
        model=ModelConfig(
            vocab=50304,
            width=128,
            depth=6,
            heads=4,
            head_width=32,
            mlp_width=512,
            positions=2048,
            parallel=True,
            gated=False,
            activation="gelu",
            norm="layer",
            norm_bias=True,
            qkv_bias=True,
            output_bias=True,
            mlp_bias=True,
            rotary_share=0.25,
            init="small",
        ),
        data=Data(
            sources=(Source("jsonl:data/pile.jsonl#text"),),
            tokenizer="hf:EleutherAI/pythia-14m",
            length=2048,
            batch=1024,
        ),
        steps=STEPS,
        optimizer=Optimizer(
            learning_rate=1e-3,
            warmup=STEPS // 100,
            schedule="cosine",
            final=0.1,
            b2=0.95,
            weight_decay=0.1,
            clip=1.0,
        ),
        evaluation=Evaluation(
            "jsonl:data/pile_validation.jsonl#text", every=1000, tokens=2048 * 1024
        ),
        checkpoints=CheckpointPolicy(every=1000, powers_of_two=True, save=1000, last=2),
        accumulate=16,
        out="runs/pythia-14m",
    )
