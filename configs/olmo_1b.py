"""OLMo-1B (Groeneveld et al. 2024, arXiv 2402.00838), as it was trained: the model whose
checkpoints Kim et al. 2024 study.

Shows: the run behind knowledge entropy's decay; allenai/OLMo-1B-hf holds the published checkpoints,
for comparison. Not trained by us.
Expect: 738,000 steps of 4,194,304 tokens (3.1e12 tokens).
Takes: by formula, 2.3e22 operations: about 9.5 days on 64 H100 at 45% of their peak. Data: Dolma as
JSON Lines with a field "text".
Run: lmdyn train --config configs/olmo_1b.py
"""

from lmdyn.models import Compute, ModelConfig
from lmdyn.training import CheckpointPolicy, Data, Evaluation, Optimizer, Source, TrainConfig

STEPS = 738_000


def config():
    return TrainConfig(
        model=ModelConfig(
            vocab=50304,
            width=2048,
            depth=16,
            heads=16,
            head_width=128,
            mlp_width=8192,
            positions=2048,
            norm="layer",
            norm_scale=False,
            tied_head=True,
        ),
        data=Data(
            sources=(Source("jsonl:data/dolma.jsonl#text"),),
            tokenizer="hf:allenai/OLMo-1B-hf",
            length=2048,
            batch=2048,
        ),
        steps=STEPS,
        optimizer=Optimizer(
            learning_rate=4e-4,
            warmup=2000,
            schedule="linear",
            final=0.1,
            b2=0.95,
            weight_decay=0.1,
            clip=1.0,
        ),
        evaluation=Evaluation(
            "jsonl:data/dolma_validation.jsonl#text", every=1000, tokens=2048 * 2048
        ),
        checkpoints=CheckpointPolicy(every=1000, powers_of_two=True, save=1000, last=2),
        compute=Compute(dtype="bfloat16", remat="dots"),
        mesh=(-1, 8, 1),
        out="runs/olmo-1b",
    )
