r"""Knowledge entropy, its decay and its repair (Kim et al. 2024), on a tiny series that the study
trains itself.

Shows: what the paper claims of OLMo-1B and Pythia, tried on models of 0.3 million parameters:
entropy over pretraining, acquisition and retention from each checkpoint, reactivation, and other
ways to pretrain. MLPs are plain (GELU) and the learning rate stays constant, because
configs/entropy_decay.py found that entropy then falls over training; with gated MLPs (GATED below)
it rises here.
Expect: the ability to keep what was known falls over the series, the ability to learn rises;
reactivation raises both as they are measured, but models end where they end without it. Most other
claims stay undecided with three seeds. The README has the numbers.
Takes: about 15 minutes on 2 cores.
Run: lmdyn study --config configs/knowledge_entropy.py --out out/knowledge_entropy

A series of your own (compare_steps, pretrain and variants then do not count):
  lmdyn study --config configs/knowledge_entropy.py --out out/olmo --known-probes None \
    --injection.facts paraphrase70.json --continual.length 1024 --series \
    "hf:allenai/OLMo-1B-hf@step1000-tokens4B,step117850-tokens494B,step330000-tokens1384B"
"""

from lmdyn.models import Compute, ModelConfig
from lmdyn.studies import ContinualTraining, FactInjection, KnowledgeEntropy, Variant
from lmdyn.training import (
    CheckpointPolicy,
    Data,
    Evaluation,
    Intervention,
    Objective,
    Optimizer,
    Source,
    TrainConfig,
)

WORLD = "tfds:synthetic_world/people=48,places=12,new=0.4,updated=0.0,seed={seed}"
GATED = False
STEPS = 768


def config():
    return KnowledgeEntropy(
        out="out/knowledge_entropy",
        text="builtin:docs:test",
        pretrain=TrainConfig(
            model=ModelConfig(
                vocab=1024,
                width=64,
                depth=4,
                heads=4,
                head_width=16,
                positions=256,
                query_key_norm="head",
                mlp_width=192 if GATED else 256,
                gated=GATED,
                activation="silu" if GATED else "gelu",
            ),
            data=Data(
                sources=(Source("builtin:docs:train", 3.0), Source(f"{WORLD}:time0#text", 1.0)),
                tokenizer="bpe:1024",
                length=256,
                batch=8,
            ),
            steps=STEPS,
            optimizer=Optimizer(learning_rate=4e-3, warmup=20, schedule="constant"),
            evaluation=Evaluation(
                "builtin:docs:test", metrics="nll,knowledge_entropy", every=32, tokens=8192
            ),
            checkpoints=CheckpointPolicy(every=128, powers_of_two=True, save=256, last=1),
            compute=Compute(unroll=4),
            out="set by the study",
        ),
        compare_steps=(64, 128, 256, 384, 512, STEPS),
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
                        "builtin:docs:train",
                        every=128,
                        arguments={"ratio": 0.25},
                        until=STEPS // 2,
                    ),
                ),
            ),
        ),
        known_probes=f"{WORLD}:probes_time0",
        injection=FactInjection(facts=WORLD, every=12),
        continual=ContinualTraining(
            text="builtin:code:train", held_out="builtin:code:test", length=256, batch=4
        ),
        compute=Compute(unroll=4),
    )
