r"""SmolLM2-135M's head: its spectrum, and what lower ranks cost (Godey et al. 2024, figures 5 and
6).

Shows: a head of 49,152 x 576 whose spectrum is nearly flat, and the rank below which its loss
climbs: the truncated head as it is, and trained on from there, on final states that are computed
once and kept on disk (4 D bytes per token).
Expect: singular entropy 0.127 nats, effective rank 507 of 576; on WikiText-2 loss 2.98 at rank 576,
5.76 truncated to 480, 3.70 when trained from there.
Takes: about 8 minutes on 2 cores.
Run: lmdyn study --config configs/saturation_smollm2.py --text text:valid.txt \
  --heads.text text:train.txt

Any other model or series, here without heads (spectra, anisotropy and the law alone), of models
whose vocabulary is padded:
  lmdyn study --config configs/saturation_smollm2.py --out out/pythia --experiments none \
    --tokens-per-step 2097152 --vocabulary 0:50254 \
    --series hf:EleutherAI/pythia-70m@step1000,step143000 hf:EleutherAI/pythia-410m@step143000
"""

import os

from lmdyn.studies import Heads, Saturation

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lmdyn")


def config():
    return Saturation(
        out="out/saturation_smollm2",
        series=(f"gguf:{CACHE}/SmolLM2-135M-Instruct.Q4_1.gguf",),
        text="builtin:docs:test",
        heads=Heads(
            text="builtin:docs:train",
            tokens=24576,
            ranks=(8, 32, 64, 128, 192, 256, 384, 480),
            scratch=False,
            alternatives=(),
            joint=False,
            steps=48,
            batch=512,
            learning_rate=2e-4,
        ),
        tokens=8192,
        length=512,
        batch=1,
        seeds=1,
        workers=1,
    )
