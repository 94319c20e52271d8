"""Pythia-70M (Biderman et al. 2023, arXiv 2304.01373), as it was trained.

Shows: with pythia_14m.py, how the point of saturation moves with width (Godey et al. 2024).
Expect: 143,000 steps of 2,097,152 tokens; the published checkpoints are
hf:EleutherAI/pythia-70m@step1 and so on, for comparison. Not trained by us.
Takes: by formula, 9.4e19 operations: about 2.5 days on one H100 at 45% of its peak. Data:
pile/*.jsonl.zst unpacked into one JSON Lines file with a field "text".
Run: lmdyn train --config configs/pythia_70m.py
"""

from lmdyn.models import ModelConfig
from lmdyn.training import CheckpointPolicy, Data, Evaluation, Optimizer, Source, TrainConfig

STEPS = 143_000


def config():
    return TrainConfig(
        model=ModelConfig(
            vocab=50304,
            width=512,
            depth=6,
            heads=8,
            head_width=64,
            mlp_width=2048,
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
            tokenizer="hf:EleutherAI/pythia-70m",
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
        out="runs/pythia-70m",
    )
