r"""Facts about eight invented subjects are injected into SmolLM2-135M's continual training on
source code, and asked for at three depths.

Shows: what a pretrained model learns from facts that are injected ten times in other words: the
words, the facts, what follows from them.
Expect: log-probability of the targets rises by 2.5, 2.3 and 2.2 nats (memorisation, paraphrase,
composition).
Takes: 12 to 15 minutes on 2 cores.
Run: lmdyn study --config configs/fact_learning.py \
  --model gguf:SmolLM2-135M-Instruct.Q4_1.gguf --injection.facts paraphrase70.json

The facts are those of Chang et al. 2024, in the file that Kim et al. 2024 publish with their code.
"""

from lmdyn.studies import ContinualTraining, FactInjection, FactLearning
from lmdyn.training import Optimizer


def config():
    return FactLearning(
        out="out/fact_learning",
        model="gguf:SmolLM2-135M-Instruct.Q4_1.gguf",
        injection=FactInjection(
            facts="paraphrase70.json", count=8, rounds=10, every=20, ask_every=2, share=1.0
        ),
        continual=ContinualTraining(
            text="builtin:code:train",
            held_out="builtin:code:test",
            length=704,
            batch=1,
            steps_after=20,
            optimizer=Optimizer(
                learning_rate=5e-5, schedule="constant", warmup=10, weight_decay=0.0
            ),
        ),
        text="builtin:docs:test",
    )
