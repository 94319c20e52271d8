"""The study of saturation in its smallest size: how it goes, not whether a sentence of the paper
holds.

Shows: every part of configs/saturation.py, whose settings these are but for fewer and shorter runs:
two seeds, four widths, 128 steps, one other head.
Expect: a report with every figure and claim; no model is trained long enough to saturate.
Takes: about a minute and a half on 2 cores.
Run: lmdyn study --config configs/tour/saturation.py --out out/tour/saturation
"""

import dataclasses
import runpy
from pathlib import Path

from lmdyn.models import Compute

WHOLE = runpy.run_path(str(Path(__file__).parents[1] / "saturation.py"))["config"]()
STEPS = 128
COMPUTE = Compute()  # layers are not unrolled: compiling would take longer than running


def config():
    run = WHOLE.pretrain
    return dataclasses.replace(
        WHOLE,
        out="out/tour/saturation",
        small_version_of="configs/saturation.py",
        pretrain=dataclasses.replace(
            run,
            steps=STEPS,
            compute=COMPUTE,
            evaluation=dataclasses.replace(run.evaluation, every=16, tokens=2048),
            checkpoints=dataclasses.replace(run.checkpoints, save=STEPS),
        ),
        widths=(8, 16, 32, 64),
        heads=dataclasses.replace(
            WHOLE.heads,
            tokens=8192,
            ranks=(4, 16, 32),
            alternatives=("mixture:4",),
            scratch=False,
            steps=32,
        ),
        target=dataclasses.replace(WHOLE.target, contexts=(1,), shares=(0.25, 1.0)),
        tokens=2048,
        seeds=2,
        compute=COMPUTE,
    )
