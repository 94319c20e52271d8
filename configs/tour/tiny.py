"""The tiny series in its smallest size: 320 of the 1,300 steps of configs/tiny.py.

Shows: every metric measured on held-out text while a byte-level model of 0.9 million parameters
learns.
Expect: loss still falling at the end.
Takes: less than a minute on 2 cores, by what configs/tiny.py takes.
Run: lmdyn train --config configs/tour/tiny.py
"""

import dataclasses
import runpy
from pathlib import Path

WHOLE = runpy.run_path(str(Path(__file__).parents[1] / "tiny.py"))["config"]()


def config():
    return dataclasses.replace(
        WHOLE,
        steps=320,
        evaluation=dataclasses.replace(WHOLE.evaluation, every=20),
        out="runs/tour/tiny",
    )
