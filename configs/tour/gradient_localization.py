"""The study of gradient localization in its smallest size: how it goes, not whether a sentence of
the paper holds.

Shows: every part of configs/gradient_localization.py, whose settings these are but for fewer and
shorter runs: two seeds, 64 steps of pretraining, 8 of continual pretraining at two rates, by two of
the four methods.
Expect: a report with every figure and claim, on too little to trust any of it.
Takes: about two minutes on 2 cores.
Run: lmdyn study --config configs/tour/gradient_localization.py --out out/tour/gradient_localization
"""

import dataclasses
import runpy
from pathlib import Path

from lmdyn.models import Compute

WHOLE = runpy.run_path(str(Path(__file__).parents[1] / "gradient_localization.py"))["config"]()
STEPS = 64
COMPUTE = Compute()  # layers are not unrolled: compiling would take longer than running


def config():
    run = WHOLE.pretrain
    return dataclasses.replace(
        WHOLE,
        out="out/tour/gradient_localization",
        small_version_of="configs/gradient_localization.py",
        pretrain=dataclasses.replace(
            run,
            steps=STEPS,
            compute=COMPUTE,
            checkpoints=dataclasses.replace(run.checkpoints, save=STEPS),
        ),
        methods=WHOLE.methods[:2],
        steps=8,
        learning_rate_factors=(1.0, 4.0),
        online=dataclasses.replace(WHOLE.online, tokens=1024, learning_rates=(3e-4, 1e-3)),
        profile_limit=16,
        ask_limit=16,
        spans=32,
        tokens=2048,
        seeds=2,
        compute=COMPUTE,
    )
