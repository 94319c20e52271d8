"""When does knowledge entropy decay? A two-level factorial of small pretraining runs.

Kim et al. 2024 begin with "knowledge entropy decays during pretraining"; their first checkpoint
lies billions of tokens in. Here it is measured from a run's first step: entropy falls in the first
tens of steps, while the model learns which bytes are frequent, and then mostly rises. The study
asks what makes it fall again: how long training is for the model and the data, the learning rate
and whether it decays, weight decay, repetition of data, plain or gated MLPs.

The response of a run is the change of knowledge entropy over the second half of training, as a
share of its ceiling: mean over layers of `H / log F` at the last step less that at half the steps.
Below 0, it is decaying.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmdyn import records
from lmdyn.analysis import factorials
from lmdyn.studies.claims import where
from lmdyn.studies.config import with_special_tokens
from lmdyn.studies.entropy_decay.claims import claims
from lmdyn.studies.entropy_decay.config import EntropyDecay, Factor
from lmdyn.studies.folder import open_folder
from lmdyn.studies.pretraining import train_run
from lmdyn.studies.workers import Task
from lmdyn.types import Rows, Say


def run(config: EntropyDecay, command: list[str] | None = None, say: Say | None = None) -> Path:
    """The whole study; returns its report.

    Raises:
      InputError: whatever is wrong with a run.
    """
    folder = open_folder(config, command, say)
    tasks = []
    for number, one in enumerate(config.runs):
        levels = {
            f.name: (f.low, f.high)[level > 0]
            for f, level in zip(config.factors, one.levels, strict=True)
        }
        train = with_special_tokens(one.train, config)
        train = dataclasses.replace(train, out=str(folder.path / "runs" / f"run{number}"))
        tags = {"run": number, "levels": levels, "signs": list(one.levels)}
        tasks.append(Task(f"run{number}", train_run, (train, folder.command, tags)))
    rows = folder.parts(tasks, config.workers)
    rows += summary(config.factors, rows)
    return folder.finish(rows, claims(rows), config.runs[0].train.seed)


def response(rows: Rows, number: int) -> dict[str, float]:
    """What one run showed.

    `change`, see the top of this file; `dip`, the fall from step 0 to the lowest of the first
    half; `end`; and `nll_change`, of the nll over the same second half.
    """
    own = [r for r in rows if r.get("run") == number]
    entropy = {r["step"]: r["normalized"] for r in where(own, "knowledge_entropy", layer=None)}
    nll = {r["step"]: r["value"] for r in where(own, "nll")}
    last = max(entropy)
    half = last // 2
    dip = entropy[0] - min(v for step, v in entropy.items() if step <= half)
    return {
        "change": entropy[last] - entropy[half],
        "dip": dip,
        "end": entropy[last],
        "nll_change": nll[last] - nll[half],
    }


def _table(rows):
    runs = {r["run"]: r for r in rows if "run" in r}
    numbers = sorted(runs)
    signs, levels = ([runs[n][field] for n in numbers] for field in ("signs", "levels"))
    return numbers, np.array(signs), levels, [response(rows, n) for n in numbers]


def summary(factors: Sequence[Factor], rows: Rows) -> list[dict]:
    """Rows `entropy_change` (a run) and `effect` (a factor: high level less low)."""
    numbers, design, levels, found = _table(rows)
    made = []
    for n, one, level, sign in zip(numbers, found, levels, design, strict=True):
        about = {"model": f"run {n}", "run": n, "levels": level, "signs": sign}
        about |= {k: v for k, v in one.items() if k != "change"}
        made.append(records.row("entropy_change", one["change"], "share", **about))
    for column in ("change", "dip", "end"):
        estimated = factorials.effects(design, [one[column] for one in found])
        for factor, effect in zip(factors, estimated.effects, strict=True):
            about = {"factor": factor.name, "low_level": factor.low, "high_level": factor.high}
            ends: dict[str, Any] = {"low": effect.low, "high": effect.high}
            made.append(
                records.row(
                    "effect", effect.mean, "share", model="all runs", of=column, **about, **ends
                )
            )
    return made
