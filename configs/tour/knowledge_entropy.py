"""The study of knowledge entropy in its smallest size: how it goes, not whether a sentence of the
paper holds.

Shows: every part of configs/knowledge_entropy.py, whose settings these are but for fewer and
shorter runs: two seeds, 64 steps, three rounds of facts.
Expect: a report with every figure and claim, on too little to trust any of it.
Takes: about a minute and a half on 2 cores.
Run: lmdyn study --config configs/tour/knowledge_entropy.py --out out/tour/knowledge_entropy
"""

import dataclasses
import runpy
from pathlib import Path

from lmdyn.models import Compute

WHOLE = runpy.run_path(str(Path(__file__).parents[1] / "knowledge_entropy.py"))["config"]()
STEPS = 64
COMPUTE = Compute()  # layers are not unrolled: compiling would take longer than running


def config():
    run, (bonus, periodic) = WHOLE.pretrain, WHOLE.variants
    return dataclasses.replace(
        WHOLE,
        out="out/tour/knowledge_entropy",
        small_version_of="configs/knowledge_entropy.py",
        pretrain=dataclasses.replace(
            run,
            steps=STEPS,
            compute=COMPUTE,
            evaluation=dataclasses.replace(run.evaluation, every=16, tokens=2048),
            checkpoints=dataclasses.replace(run.checkpoints, every=32, save=STEPS),
        ),
        compare_steps=(8, 16, 32, STEPS),
        variants=(
            bonus,
            dataclasses.replace(
                periodic,
                interventions=(
                    dataclasses.replace(
                        periodic.interventions[0], every=16, until=STEPS // 2, tokens=2048
                    ),
                ),
            ),
        ),
        known_limit=32,
        ratios=(0.25,),
        gains=(1.0,),
        injection=dataclasses.replace(WHOLE.injection, count=6, rounds=3, every=4),
        continual=dataclasses.replace(WHOLE.continual, steps_after=2),
        tokens=2048,
        seeds=2,
        compute=COMPUTE,
    )
