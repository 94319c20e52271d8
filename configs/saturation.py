r"""Saturation of narrow models (Godey et al. 2024), on a ladder of five widths that the study
trains itself.

Shows: what the paper claims of Pythia, tried on models of 18,000 to 230,000 parameters with a
vocabulary of 1,024: losses against the scaling law of the wider ones, anisotropy, the head's
spectrum, what its rank costs, the rank of the text itself, other heads. The learning rate is
constant, and the highest at which wide models are better for being wide (pilot on seed 100).
Expect: width 8 ends at 4.75 nats, 64 at 3.81; narrow ones 7% above the law (undecided), none turns
up; the head needs 52 of 64 directions; a head projected to 64 recovers two thirds of what width 16
lacks, mixture and sigsoftmax nothing.
Takes: 20 minutes on 2 cores.
Run: lmdyn study --config configs/saturation.py --out out/saturation

Given models in place of the ladder, which then does not count (configs/saturation_smollm2.py is an
example):
  lmdyn study --config configs/saturation.py --out out/pythia --narrow 128 \
    --tokens-per-step 2097152 --vocabulary 0:50254 --text text:valid.txt --length 1024 --batch 1 \
    --experiments none --series "hf:EleutherAI/pythia-14m@step1000,step16000,step143000" \
    hf:EleutherAI/pythia-410m@step143000
"""

from lmdyn.models import Compute, ModelConfig
from lmdyn.studies import Heads, Saturation, Target
from lmdyn.training import CheckpointPolicy, Data, Evaluation, Optimizer, Source, TrainConfig

STEPS = 4096


def config():
    return Saturation(
        out="out/saturation",
        text="builtin:code:test",
        pretrain=TrainConfig(
            model=ModelConfig(
                vocab=1024,
                width=64,
                depth=2,
                heads=8,
                head_width=8,
                positions=128,
                query_key_norm="head",
                mlp_width=256,
                gated=False,
                activation="gelu",
            ),
            data=Data(
                sources=(Source("builtin:code:train"),), tokenizer="bpe:1024", length=128, batch=4
            ),
            steps=STEPS,
            optimizer=Optimizer(learning_rate=5e-3, warmup=50, schedule="constant"),
            evaluation=Evaluation(
                "builtin:code:test",
                metrics="nll,anisotropy,head_spectrum",
                every=32,
                tokens=8192,
                batch=32,
            ),
            checkpoints=CheckpointPolicy(powers_of_two=False, save=STEPS, last=1),
            compute=Compute(unroll=2),
            log_every=1,
            out="set by the study",
        ),
        widths=(8, 16, 32, 48, 64),
        narrow=16,
        heads=Heads(
            text="builtin:code:train",
            alternatives=("mixture:4", "sigsoftmax", "projected:64"),
            alternatives_learning_rate=3e-2,
        ),
        target=Target(text="builtin:code:train"),
        length=128,
        batch=32,
        compute=Compute(unroll=2),
    )
