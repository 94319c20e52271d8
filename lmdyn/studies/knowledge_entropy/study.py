"""Knowledge entropy over pretraining, what it does to learning and forgetting, and its repair: the
experiment of Kim et al. 2024 (arXiv 2410.01380) on any checkpoint series; METHODS section 2.

For each seed: a series of checkpoints (trained here, or given) is measured. From each of its
checkpoints, from the last one with dormant coefficients woken, and from the ends of other ways to
pretrain, the same continual training on a new domain begins, with new facts told at intervals.
Before, during and after, probes ask for the new facts; before and after, for what was known.

Rows of a starting point carry `seed`, `start` (its name) and `kind`: `series`, `reactivated`,
`random` (the control), `by entropy`, `variant`.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro

from lmdyn import checkpoints, data, metrics, records, training, transforms
from lmdyn.checkpoints.runs import Retention
from lmdyn.errors import InputError, check_least, check_types
from lmdyn.models import Compute
from lmdyn.studies.folder import Folder
from lmdyn.studies.knowledge_entropy import claims as conclusions
from lmdyn.studies.lessons import Exam, Further, Lesson, Tell, answers, make_lesson, teacher
from lmdyn.studies.workers import Task, remembered
from lmdyn.training import Intervention, Objective, TrainConfig
from lmdyn.training.config import to_json
from lmdyn.training.prepare import make_tokenizer
from lmdyn.types import Say, present

NAME = "knowledge entropy"
METRICS = "nll,knowledge_entropy,attention_entropy,prediction_entropy"


@dataclasses.dataclass(frozen=True)
class Variant:
    """Another way to pretrain: the same run with another objective, or with changes on the way.
    Part of `KnowledgeEntropy`.

    Attributes:
      name: in rows and figures. objective, interventions: see `lmdyn.training.TrainConfig`.
    """

    name: str
    objective: Objective | None = None
    interventions: tuple[Intervention, ...] = ()


@dataclasses.dataclass(frozen=True)
class KnowledgeEntropy:
    """Kim et al. 2024 as one experiment: entropy over a series, acquisition and retention from each
    checkpoint, reactivation.

    `{seed}` in a text, facts or probes becomes the seed: each seed has its own world, its own order
    of texts and its own model.

    Attributes:
      out: the study's folder. The same command goes on with a study that was stopped.
      text: held-out pretraining text: entropies are measured on it, reactivation too, and
        forgetting.
      tell: which new facts are told, and how.
      further: the continual training in which they are told.
      series: a series of checkpoints, such as hf:allenai/OLMo-1B-hf@step1000-tokens4B,...; None
        trains `pretrain` for each seed.
      pretrain: the run that is trained where no series is given; its `out` and `seed` are set by
        the study.
      at: the steps of `pretrain` to compare; None takes all that are kept but step 0.
      variants: other ways to pretrain, compared at equal loss. A given series has none.
      known: probes of facts told in pretraining, by reference; None: forgetting is of the text
        alone.
      probes: at most so many of them.
      ratios, gains: the grid of reactivation.
      tokens: predictions of one measurement of text, in windows of `further`.
      seeds: how many. seed: the first.
      workers: processes that train and teach side by side; 0: on a CPU one a core, but one for a
        given series, whose models may be large.
      compute: dtype and attention. cache: folder of tokenised text.
      small_version_of: the config of which this one is a small version, that shows how the study
        goes; the report then says that its verdicts decide nothing, and names that config to run.

    >>> from lmdyn.training import Objective
    >>> study = KnowledgeEntropy(
    ...     out="out/entropy",
    ...     text="builtin:docs:test",
    ...     series="hf:EleutherAI/pythia-70m@step1000,step16000,step143000",
    ...     tell=Tell("facts.jsonl", times=8),
    ...     further=Further("builtin:code:train"),
    ...     variants=(
    ...         Variant(
    ...             "bonus",
    ...             objective=Objective(
    ...                 "lmdyn.training.objectives.entropy_bonus", {"weight": 1.0}
    ...             ),
    ...         ),
    ...     ),
    ... )
    >>> len(study.ratios) * len(study.gains)  # reactivations that are tried
    4
    """

    out: str
    text: str
    tell: Tell
    further: Further
    series: str | None = None
    pretrain: Annotated[TrainConfig | None, tyro.conf.Fixed] = None
    at: tuple[int, ...] | None = None
    variants: Annotated[tuple[Variant, ...], tyro.conf.Fixed] = ()
    known: str | None = None
    probes: int = 256
    ratios: tuple[float, ...] = (0.25, 0.5)
    gains: tuple[float, ...] = (1.0, 2.0)
    tokens: int = 16384
    seeds: int = 3
    seed: int = 0
    workers: int = 0
    compute: Compute = Compute()
    cache: str | None = None
    small_version_of: Annotated[str | None, tyro.conf.Fixed] = None

    def __post_init__(self) -> None:
        check_types(self)
        if self.series is None and self.pretrain is None:
            raise InputError("give either series= (checkpoints) or pretrain= (a run to make them)")
        check_least(self, seeds=1, seed=0, tokens=1, probes=1, workers=0)
        for ratio in self.ratios:
            if not 0 < ratio <= 1:
                raise InputError(
                    f"ratios: {ratio}; a ratio of reactivation is above 0 and at most 1"
                )
        for gain in self.gains:
            if not 0 < gain < 1e6:
                raise InputError(f"gains: {gain}; a gain of reactivation is a positive number")


class Start(NamedTuple):
    """A model from which the lesson begins: a checkpoint, or one with dormant coefficients woken.

    `ratio`, `gain` and `how` (what else `transforms.choose_coefficients` takes) are those of the
    reactivation; None where there is none.
    """

    name: str
    kind: str
    reference: str
    step: int | None
    ratio: float | None = None
    gain: float | None = None
    how: dict | None = None


def run(config: KnowledgeEntropy, command: list[str] | None = None, say: Say | None = None) -> Path:
    """The whole study; returns its report.

    Raises:
      InputError: whatever is wrong with the config, the series, the texts or the facts; it is
        looked for first.
    """
    series = check(config)
    folder = Folder(config.out, NAME, to_json(config), command, say)
    # models of a given series may be too large to have two of them at once
    workers = config.workers or (0 if config.series is None else 1)
    rows, tasks = [], []
    if config.series is None:
        runs = [(seed, variant) for seed in _seeds(config) for variant in (None, *config.variants)]
        rows += folder.parts([_pretraining_task(config, folder, *one) for one in runs], workers)
    for seed in _seeds(config):
        refs = series
        if refs is None:
            steps = ",".join(map(str, _kept(present(config.pretrain), config.at)))
            refs = checkpoints.series(f"run:{_run_folder(folder.path, seed, None)}@{steps}")
        starts = _starts(config, folder.path, seed, refs)
        tasks += [
            Task(
                f"seed{seed}-{s.name.replace(' ', '-')}", _taught, (config, seed, str(refs[-1]), s)
            )
            for s in starts
        ]
    rows += folder.parts(tasks, workers)
    folder.tokens = sum(r["value"] for r in rows if r["metric"] == "lesson_tokens")
    rows += conclusions.summary(rows)
    return folder.finish(rows, conclusions.claims(rows), config.seed)


def check(config: KnowledgeEntropy) -> list[checkpoints.Reference] | None:
    """Finds, before anything is trained, what can be wrong with texts, facts and a given series;
    returns that series, or None.

    Raises:
      InputError: a series of fewer than 3 checkpoints, and what the readers of texts and facts
        find.
    """
    series = None
    if config.series is None:
        _kept(present(config.pretrain), config.at)
    else:
        series = [
            reference for reference in checkpoints.series(config.series) if reference.step != 0
        ]
        for reference in series:
            if reference.step is None:
                raise InputError(
                    f"{reference} has no step in its name, so it has no place in a series; name"
                    " revisions such as step1000"
                )
        _enough(len(series))
    first = config.seed
    data.documents(config.text)
    if series is None:
        run = _pretraining(config, first)
        tokenizer = make_tokenizer(
            run, [data.documents(source.ref)[:: source.every] for source in run.data.sources]
        )
    else:
        tokenizer = checkpoints.load(series[0], config.compute).tokenizer
    make_lesson(config.tell, config.further, tokenizer, first, config.cache)
    _known(config, tokenizer, first)
    return series


def _enough(count: int):
    if count < 3:
        raise InputError(
            f"a series of {count} checkpoint{'s' * (count != 1)}; correlations over a series need"
            " at least 3"
        )


def _kept(run: TrainConfig, at: tuple[int, ...] | None) -> list[int]:
    """The steps of `pretrain` to compare, all of which its rule keeps."""
    keep, steps = run.checkpoints, range(run.steps + 1)
    rule = Retention(every=keep.every, powers_of_two=keep.powers_of_two, last=1)
    there = [step for step in rule.kept(steps) if step > 0]
    for step in at or ():
        if step not in there:
            raise InputError(
                f"at={step}: pretrain.keep does not keep this step; it keeps:"
                f" {', '.join(map(str, there))}"
            )
    _enough(len(at or there))
    return sorted(at or there)


def _seeds(config):
    return range(config.seed, config.seed + config.seeds)


def _run_folder(study: Path, seed: int, variant: Variant | None) -> Path:
    return (
        study / "runs" / (f"seed{seed}" + (f"-{variant.name.replace(' ', '-')}" if variant else ""))
    )


def _pretraining(config: KnowledgeEntropy, seed: int) -> TrainConfig:
    run = present(config.pretrain)
    sources = tuple(
        dataclasses.replace(s, ref=s.ref.replace("{seed}", str(seed))) for s in run.data.sources
    )
    return dataclasses.replace(run, data=dataclasses.replace(run.data, sources=sources), seed=seed)


def _pretraining_task(
    config: KnowledgeEntropy, folder: Folder, seed: int, variant: Variant | None
) -> Task:
    out = _run_folder(folder.path, seed, variant)
    more = (
        {}
        if variant is None
        else {"objective": variant.objective, "interventions": variant.interventions}
    )
    run = dataclasses.replace(_pretraining(config, seed), out=str(out), **more)
    return Task(
        f"pretraining-{out.name}",
        _pretrained,
        (run, variant.name if variant else "plain", folder.command),
    )


def _pretrained(run: TrainConfig, name: str, command: list[str]) -> list[dict]:
    """One pretraining run; the rows of what it watched."""
    if training.train(run, command, say=lambda text: None).signal is not None:
        raise KeyboardInterrupt
    found = records.read_rows(Path(run.out) / "rows.jsonl") if run.evaluation is not None else []
    return [{**row, "seed": run.seed, "start": name, "kind": "pretraining"} for row in found]


def _starts(config: KnowledgeEntropy, study: Path, seed: int, refs) -> list[Start]:
    """All that one seed's lessons begin from: the series; its last checkpoint with coefficients
    woken, over a grid of ratio and gain, each with its control, and by measured entropy at the
    first gain; the ends of other ways to pretrain.
    """
    starts, last = [Start(f"step {r.step}", "series", str(r), r.step) for r in refs], refs[-1]
    for ratio in config.ratios:
        for gain in config.gains:
            kinds = {"reactivated": {}, "random": {"control": "random", "seed": seed}}
            if gain == config.gains[0]:
                kinds["by entropy"] = {"strength": "entropy"}
            for kind, how in kinds.items():
                starts.append(
                    Start(
                        f"{kind} ratio {ratio:g} gain {gain:g}",
                        kind,
                        str(last),
                        last.step,
                        ratio,
                        gain,
                        how,
                    )
                )
    for variant in config.variants if config.series is None else ():
        reference = checkpoints.parse(f"run:{_run_folder(study, seed, variant)}")
        starts.append(Start(variant.name, "variant", str(reference), reference.step))
    return starts


class _School(NamedTuple):
    """What all lessons of a seed share. `last`: the loaded last checkpoint; `coefficients`: its
    mean MLP coefficients, `[L, F]`.
    """

    last: checkpoints.Loaded
    held_out: list
    exam: Exam
    lesson: Lesson
    coefficients: np.ndarray


@remembered
def _school(config: KnowledgeEntropy, seed: int, reference: str) -> _School:
    last = checkpoints.load(reference, config.compute)
    data.check_vocabulary(last.tokenizer, last.model.config)
    length, batch = config.further.length, config.further.batch
    cut = lambda text: list(data.batches(text, last.tokenizer, length, batch, config.tokens))
    held_out, other = cut(config.text), config.further.held_out
    exam = Exam(
        _known(config, last.tokenizer, seed), held_out, None if other is None else cut(other)
    )
    lesson = make_lesson(config.tell, config.further, last.tokenizer, seed, config.cache)
    coefficients = metrics.measure(_entropy(), last.model, last.params, held_out).coefficients
    return _School(last, held_out, exam, lesson, coefficients)


@remembered
def _teacher(
    model, further: Further, tell: Tell
):  # of a process, so that all its lessons share one compiled step
    return teacher(model, further, tell)


def _taught(config: KnowledgeEntropy, seed: int, last: str, begun: Start) -> list[dict]:
    """One starting point, measured, and what the lesson did to it."""
    school = _school(config, seed, last)
    model, params = school.last.model, school.last.params
    tags = {"seed": seed, "start": begun.name, "kind": begun.kind}
    if begun.ratio is not None:
        chosen = transforms.choose_coefficients(
            school.coefficients, begun.ratio, **present(begun.how)
        )
        params = transforms.reactivate(
            params, school.coefficients, begun.ratio, present(begun.gain), chosen
        )
        tags |= {"ratio": begun.ratio, "gain": begun.gain}
    elif begun.reference != last:
        params = checkpoints.load(begun.reference, config.compute).params
    about = {"step": begun.step, "tokens": config.tokens}
    found = metrics.measure(_measured(), model, params, school.held_out)
    rows = [
        records.row(begun.reference, **about, **r, **tags) for m in found.values() for r in m.rows()
    ]
    asked = _teacher(model, config.further, config.tell)(params, school.lesson, school.exam)
    told = sum(int(b.mask.sum()) for b in school.lesson.batches)
    return [
        *rows,
        *answers(begun.reference, begun.step, asked, school.lesson, tags),
        records.row(begun.reference, "lesson_tokens", told, "tokens", step=begun.step, **tags),
    ]


@functools.cache
def _measured():  # one metric, so that all lessons of a process run the same compiled program
    return metrics.build(METRICS)


@functools.cache
def _entropy():
    return metrics.knowledge_entropy()


def _known(config, tokenizer, seed):
    """Probes of what pretraining told, at most `probes` of them, spread evenly; those of the facts
    that stay true.
    """
    if config.known is None:
        return None
    found = [
        p
        for p in data.read_probes(config.known.replace("{seed}", str(seed)))
        if p.kind in (None, "unchanged")
    ]
    if not found:
        raise InputError(
            f"{config.known}: no probe is of kind unchanged, or of none; nothing could be forgotten"
        )
    picked = np.unique(np.linspace(0, len(found) - 1, min(config.probes, len(found))).astype(int))
    return data.encode_probes([found[i] for i in picked], tokenizer)
