"""The study of online adaptation in its smallest size: how it goes, not whether a sentence of the
paper holds.

Shows: every part of configs/online_adaptation.py, whose settings these are but for fewer and
shorter runs: two seeds, one other size, three blocks, 64 steps of training, streams of 1,024
tokens, three rules.
Expect: a report with every figure and claim, on too little to trust any of it.
Takes: about two minutes on 2 cores.
Run: lmdyn study --config configs/tour/online_adaptation.py --out out/tour/online_adaptation
"""

import dataclasses
import runpy
from pathlib import Path

from lmdyn.models import Compute

WHOLE = runpy.run_path(str(Path(__file__).parents[1] / "online_adaptation.py"))["config"]()
STEPS, TUNED = 64, 24
DEPTH = 3
COMPUTE = Compute()  # layers are not unrolled: compiling would take longer than running


def config():
    run, tune = WHOLE.pretrain, WHOLE.fine_tune
    return dataclasses.replace(
        WHOLE,
        out="out/tour/online_adaptation",
        small_version_of="configs/online_adaptation.py",
        grid=dataclasses.replace(
            WHOLE.grid,
            rms_batches=4,
            tokens=1024,
            prefix=256,
            rules=("SGD", "AdamW", "Adam, no momentum"),
            ranks=(2, 8),
            learning_rates={"SGD": (0.1, 0.3), "AdamW": (3e-3,), "Adam, no momentum": (1e-3, 3e-3)},
            low_rank_learning_rates=(1e-2,),
        ),
        pretrain=dataclasses.replace(
            run,
            model=dataclasses.replace(run.model, depth=DEPTH),
            steps=STEPS,
            compute=COMPUTE,
            evaluation=None,
            checkpoints=dataclasses.replace(run.checkpoints, every=32, save=STEPS),
        ),
        sizes=tuple(
            dataclasses.replace(size, model=dataclasses.replace(size.model, depth=DEPTH))
            for size in WHOLE.sizes[:1]
        ),
        fine_tune=dataclasses.replace(
            tune,
            steps=TUNED,
            compute=COMPUTE,
            checkpoints=dataclasses.replace(tune.checkpoints, save=TUNED),
        ),
        windows=(("none", 0, 64), ("cache", 64, 64), ("overlap", 128, 64)),
        document_tokens=256,
        segment_tokens=256,
        meta=dataclasses.replace(WHOLE.meta, updates=2),
        seeds=2,
        compute=COMPUTE,
    )
