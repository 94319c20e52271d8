"""When does knowledge entropy decay? Sixteen small runs, seven factors at two levels (an eighth of
all 128 combinations, in which no main effect is mixed with another or with an interaction of
two).

Shows: entropy drops in the first tens of steps and then mostly rises; what makes it fall again
later on.
Expect: it falls over the second half of training in 5 of the 16 runs, rises in the others, by 0.55
points of its ceiling on average (0.03 to 1.08); nll falls in all 16. Gated rather than plain MLPs
make the change 1.08 points more positive (0.03 to 2.12); three times the length makes it 0.54
points more negative (-0.50 to 1.59), which cannot be told from noise, nor can what the other
factors do.
Takes: about 15 minutes on 2 cores.
Run: lmdyn study --config configs/entropy_decay.py --out out/entropy_decay
"""

from lmdyn.analysis.factorials import fraction
from lmdyn.models import Compute, ModelConfig
from lmdyn.studies import EntropyDecay, Factor, FactorialRun
from lmdyn.training import CheckpointPolicy, Data, Evaluation, Optimizer, Source, TrainConfig

FACTORS = (
    Factor("width", "48", "96"),
    Factor("text", "all of it", "an eighth, repeated"),
    Factor("rate", "0.002", "0.01"),
    Factor("rate at the end", "the same", "a fiftieth"),
    Factor("weight decay", "0", "0.3"),
    Factor("MLP", "plain", "gated"),
    Factor("steps", "384", "1152"),
)


def train(width, text, rate, decay, weight_decay, gated, long):
    """A run at these levels, -1 or 1 each."""
    pick = lambda level, low, high: high if level > 0 else low
    width, steps = pick(width, 48, 96), pick(long, 384, 1152)
    return TrainConfig(
        model=ModelConfig(
            vocab=257,
            width=width,
            depth=4,
            heads=4,
            head_width=width // 4,
            positions=256,
            query_key_norm="head",
            mlp_width=pick(gated, 4 * width, 8 * width // 3),
            gated=gated > 0,
            activation=pick(gated, "gelu", "silu"),
        ),
        data=Data(
            sources=(Source("builtin:docs:train", every=pick(text, 1, 8)),), length=256, batch=8
        ),
        steps=steps,
        optimizer=Optimizer(
            learning_rate=pick(rate, 2e-3, 1e-2),
            warmup=20,
            schedule=pick(decay, "constant", "cosine"),
            final=0.02,
            weight_decay=pick(weight_decay, 0.0, 0.3),
        ),
        evaluation=Evaluation(
            "builtin:docs:test", metrics="nll,knowledge_entropy", every=24, tokens=8192
        ),
        checkpoints=CheckpointPolicy(powers_of_two=False, save=steps, last=1),
        compute=Compute(unroll=4),
        out="set by the study",
    )


def config():
    names = tuple(factor.name for factor in FACTORS)
    generators = {
        "weight decay": ("width", "text", "rate"),
        "MLP": ("text", "rate", "rate at the end"),
        "steps": ("width", "rate", "rate at the end"),
    }
    design = fraction(names, generators)
    runs = tuple(FactorialRun(tuple(levels), train(*levels)) for levels in design.tolist())
    return EntropyDecay(out="out/entropy_decay", factors=FACTORS, runs=runs)
