"""When does knowledge entropy decay? A two-level factorial of small pretraining runs.

Kim et al. 2024 begin with "knowledge entropy decays during pretraining"; their first checkpoint
lies billions of tokens in. Here runs are watched from their first step: entropy falls in the first
tens of steps, while the model learns which bytes are frequent, and then mostly rises. The study
asks what makes it fall again: how long training is for the model and the data, the rate and whether
it decays, weight decay, repetition of data, plain or gated MLPs.

The response of a run is the change of knowledge entropy over the second half of training, as a
share of its ceiling: mean over layers of `H / log F` at the last step less that at half the steps.
Below 0, it is decaying.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import tyro

from lmdyn import records, training
from lmdyn.analysis import factorials as factorial
from lmdyn.analysis.statistics import Interval, interval
from lmdyn.errors import InputError, check_types
from lmdyn.studies.claims import Claim, claim, differs
from lmdyn.studies.folder import Folder
from lmdyn.studies.workers import Task
from lmdyn.training import TrainConfig
from lmdyn.training.config import to_json
from lmdyn.types import Row, Say

NAME = "entropy decay"


@dataclasses.dataclass(frozen=True)
class Factor:
    """One thing that is varied. Part of `EntropyDecay`.

    Attributes:
      name: short. low, high: what its two levels are called.
    """

    name: str
    low: str
    high: str


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of the design. Part of `EntropyDecay`.

    Attributes:
      levels: -1 (low) or 1 (high) of each factor, in their order.
      train: the run; its `out` is set by the study. It watches `nll,knowledge_entropy`.
    """

    levels: tuple[int, ...]
    train: TrainConfig


@dataclasses.dataclass(frozen=True)
class EntropyDecay:
    """A factorial of pretraining runs, watched for knowledge entropy.

    Attributes:
      out: the study's folder. The same command goes on with a study that was stopped.
      factors: what is varied. runs: the design (`lmdyn.analysis.factorials.fraction` makes one).
      workers: processes that train side by side; 0: on a CPU one a core, elsewhere one.

    >>> from lmdyn.models import ModelConfig
    >>> from lmdyn.training import Data, Optimizer, Source, Evaluation
    >>> from lmdyn.studies import fraction
    >>> model = lambda width: ModelConfig(
    ...     vocab=256,
    ...     width=width,
    ...     depth=2,
    ...     heads=4,
    ...     head_width=16,
    ...     mlp_width=192,
    ...     positions=128,
    ... )
    >>> def train(rate, width):
    ...     return TrainConfig(
    ...         model=model((32, 64)[width > 0]),
    ...         optimizer=Optimizer(learning_rate=(1e-3, 4e-3)[rate > 0]),
    ...         steps=64,
    ...         out="set by the study",
    ...         data=Data((Source("builtin:docs:train"),), length=128),
    ...         evaluation=Evaluation(
    ...             "builtin:docs:test", metrics="nll,knowledge_entropy", every=16
    ...         ),
    ...     )
    >>> factors = (
    ...     Factor("rate", low="0.001", high="0.004"),
    ...     Factor("width", low="32", high="64"),
    ... )
    >>> study = EntropyDecay(
    ...     out="out/rate",
    ...     factors=factors,
    ...     runs=tuple(
    ...         Run(tuple(levels), train(*levels))
    ...         for levels in fraction(("rate", "width")).tolist()
    ...     ),
    ... )
    >>> [run.levels for run in study.runs]
    [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    """

    out: str
    factors: Annotated[tuple[Factor, ...], tyro.conf.Fixed]
    runs: Annotated[tuple[Run, ...], tyro.conf.Fixed]
    workers: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for number, run in enumerate(self.runs):
            if len(run.levels) != len(self.factors) or not set(run.levels) <= {-1, 1}:
                raise InputError(
                    f"runs[{number}].levels={run.levels}; give -1 or 1 for each of the"
                    f" {len(self.factors)} factors"
                )
            watch = run.train.evaluation
            if watch is None or not {"nll", "knowledge_entropy"} <= set(watch.metrics.split(",")):
                raise InputError(
                    f"runs[{number}].train.evaluation must measure nll,knowledge_entropy"
                )
            if (run.train.steps // 2) % watch.every:
                raise InputError(
                    f"runs[{number}]: half of its {run.train.steps} steps is no multiple of"
                    f" watch.every={watch.every}"
                )
        factorial.effects([run.levels for run in self.runs], np.zeros(len(self.runs)))


def run(config: EntropyDecay, command: list[str] | None = None, say: Say | None = None) -> Path:
    """The whole study; returns its report.

    Raises:
      InputError: whatever is wrong with a run.
    """
    folder = Folder(config.out, NAME, to_json(config), command, say)
    tasks = []
    for number, one in enumerate(config.runs):
        levels = {
            f.name: (f.low, f.high)[level > 0]
            for f, level in zip(config.factors, one.levels, strict=True)
        }
        train = dataclasses.replace(one.train, out=str(folder.path / "runs" / f"run{number}"))
        tags = {"run": number, "levels": levels, "signs": list(one.levels)}
        tasks.append(Task(f"run{number}", _watched, (train, tags, folder.command)))
    rows = folder.parts(tasks, config.workers)
    rows += summary(config.factors, rows)
    return folder.finish(rows, claims(rows), config.runs[0].train.seed)


def _watched(run: TrainConfig, tags: dict, command: list[str]) -> list[dict]:
    """One run, and the rows of what it watched."""
    if training.train(run, command, say=lambda text: None).signal is not None:
        raise KeyboardInterrupt
    return [{**row, **tags} for row in records.read_rows(Path(run.out) / "rows.jsonl")]


def response(rows: Sequence[Row], number: int) -> dict[str, float]:
    """What one run showed: `change`, see the top of this file; `dip`, the fall from step 0 to the
    lowest of the first half; `end`; and `nll_change`, of the nll over the same second half.
    """
    own = [r for r in rows if r.get("run") == number]
    entropy = {
        r["step"]: r["normalized"]
        for r in own
        if r["metric"] == "knowledge_entropy" and r["layer"] is None
    }
    nll = {r["step"]: r["value"] for r in own if r["metric"] == "nll"}
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
    numbers = sorted({r["run"] for r in rows if "run" in r})
    signs = {r["run"]: r["signs"] for r in rows if "run" in r}
    names = {r["run"]: r["levels"] for r in rows if "run" in r}
    return (
        numbers,
        np.array([signs[n] for n in numbers]),
        [names[n] for n in numbers],
        [response(rows, n) for n in numbers],
    )


def summary(factors: Sequence[Factor], rows: Sequence[Row]) -> list[dict]:
    """Rows `entropy_change` (a run) and `effect` (a factor: high level less low)."""
    numbers, design, levels, found = _table(rows)
    made = [
        records.row(
            f"run {n}",
            "entropy_change",
            one["change"],
            "share",
            run=n,
            levels=level,
            signs=sign.tolist(),
            **cast(dict[str, Any], {k: v for k, v in one.items() if k != "change"}),
        )
        for n, one, level, sign in zip(numbers, found, levels, design, strict=True)
    ]
    for column in ("change", "dip", "end"):
        estimated = factorial.effects(design, [one[column] for one in found])
        for factor, effect in zip(factors, estimated.effects, strict=True):
            made.append(
                records.row(
                    "all runs",
                    "effect",
                    effect.mean,
                    "share",
                    of=column,
                    factor=factor.name,
                    low_level=factor.low,
                    high_level=factor.high,
                    low=effect.low,
                    high=effect.high,
                )
            )
    return made


def claims(rows: Sequence[Row]) -> list[Claim]:
    """The paper's first sentence, and one sentence a factor."""
    runs = [r for r in rows if r["metric"] == "entropy_change"]
    change = np.array([r["value"] for r in runs])
    falling = int((change < 0).sum())
    over = "mean over runs of the change of H / log F over the second half of training"
    found = [
        claim(
            NAME,
            "Kim et al. 2024",
            "entropy-decays",
            "Knowledge entropy decays during pretraining.",
            interval(-change),
            "share",
            "curves",
            f"The negative of the {over}; it fell in {falling} of {len(change)} runs, and nll fell"
            f" in {sum(r['nll_change'] < 0 for r in runs)}.",
        ),
        claim(
            NAME,
            "lmdyn",
            "entropy-dips",
            "Knowledge entropy first drops, in the first half of training, below where it began.",
            interval([r["dip"] for r in runs]),
            "share",
            "curves",
            "Mean over runs of the fall of H / log F from step 0 to its lowest.",
        ),
    ]
    for r in rows:
        if r["metric"] == "effect" and r["of"] == "change":
            effect = Interval(r["value"], r["low"], r["high"], len(change))
            found.append(
                dataclasses.replace(
                    claim(
                        NAME,
                        "lmdyn",
                        f"decay-{r['factor'].replace(' ', '-')}",
                        f"Whether entropy falls or rises later on depends on: {r['factor']}.",
                        effect,
                        "share",
                        "effects",
                        f"Change of H / log F over the second half of training, {r['factor']}"
                        f" {r['high_level']} less {r['low_level']}, over {len(change)} runs.",
                    ),
                    verdict=differs(effect),
                )
            )
    return found
