"""The study of gradient localization in its smallest size: how it goes, not whether a sentence of the paper holds.

Shows: every part of configs/gradient_localization.py, whose settings these are but for fewer and shorter runs: two seeds, 96 steps of
pretraining, 12 of continual pretraining at two rates, by two of the four methods.
Expect: a report with every figure and claim, on too little to trust any of it.
Takes: about a minute on 2 cores.
Run: lmdyn study --config configs/tour/gradient_localization.py --out out/tour/gradient_localization
"""

import dataclasses
import runpy
from pathlib import Path

from lmdyn.models import Compute

WHOLE = runpy.run_path(str(Path(__file__).parents[1] / "gradient_localization.py"))["config"]()
STEPS = 96
COMPUTE = Compute()  # layers are not unrolled: here compiling takes longer than running


def config():
    run = WHOLE.pretrain
    return dataclasses.replace(
        WHOLE,
        out="out/tour/gradient_localization",
        pretrain=dataclasses.replace(run, steps=STEPS, compute=COMPUTE, keep=dataclasses.replace(run.keep, save=STEPS)),
        methods=WHOLE.methods[:2],
        steps=12,
        factors=(1.0, 4.0),
        online=dataclasses.replace(WHOLE.online, tokens=2048, rates=(3e-4, 1e-3)),
        traced=24,
        limit=24,
        spans=48,
        tokens=2048,
        seeds=2,
        compute=COMPUTE,
    )
