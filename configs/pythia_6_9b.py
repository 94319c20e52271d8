"""Pythia-6.9B (Biderman et al. 2023, arXiv 2304.01373), as it was trained, on 64 devices.

Shows: what a mesh of data x fsdp x tensor holds, before anybody rents it:
  lmdyn plan --config configs/pythia_6_9b.py --mesh 4,8,2
Expect: 143,000 steps of 2,097,152 tokens; the published checkpoints are
hf:EleutherAI/pythia-6.9b@step1 and so on, for comparison. Not trained by us.
Takes: by formula, 1.3e22 operations: about 5 days on 64 H100 at 45% of their peak. Data:
pile/*.jsonl.zst unpacked into one JSON Lines file with a field "text".
Run: lmdyn train --config configs/pythia_6_9b.py
"""

from lmdyn.models import Compute, ModelConfig
from lmdyn.training import CheckpointPolicy, Data, Evaluation, Optimizer, Source, TrainConfig

STEPS = 143_000


def config():
    return TrainConfig(
        model=ModelConfig(
            vocab=50432,
            width=4096,
            depth=32,
            heads=32,
            head_width=128,
            mlp_width=16384,
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
            tokenizer="hf:EleutherAI/pythia-6.9b",
            length=2048,
            batch=1024,
        ),
        steps=STEPS,
        optimizer=Optimizer(
            learning_rate=1.2e-4,
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
        compute=Compute(dtype="bfloat16", remat="full"),
        mesh=(4, 8, 2),
        out="runs/pythia-6.9b",
    )
