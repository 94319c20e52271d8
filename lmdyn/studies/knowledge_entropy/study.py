"""Knowledge entropy over pretraining, what it does to learning and forgetting, and its repair.

The experiment of Kim et al. 2024 (arXiv 2410.01380) on any checkpoint series.

For each seed: a series of checkpoints (trained here, or given) is measured. From each of its
checkpoints, from the last one with dormant coefficients reactivated, and from the ends of other
ways to pretrain, the same continual training on a new domain begins, with new facts injected at
intervals. Before, during and after, probes ask for the new facts; before and after, for what was
known.

Rows of a starting point carry `seed`, `start` (its name) and `kind`: `series`, `reactivated`,
`random` (the control), `by entropy`, `variant`.
"""

from pathlib import Path

from lmdyn import checkpoints, data
from lmdyn.checkpoints.runs import Retention
from lmdyn.errors import InputError
from lmdyn.studies.config import for_seed, load_model, with_special_tokens
from lmdyn.studies.folder import open_folder
from lmdyn.studies.injected_facts import check_facts
from lmdyn.studies.knowledge_entropy import parts
from lmdyn.studies.knowledge_entropy.claims import claims
from lmdyn.studies.knowledge_entropy.config import KnowledgeEntropy
from lmdyn.studies.knowledge_entropy.series import summary
from lmdyn.studies.pretraining import run_of_seed, tokenizer_of
from lmdyn.studies.workers import Task
from lmdyn.training import TrainConfig
from lmdyn.types import Say, present


def run(config: KnowledgeEntropy, command: list[str] | None = None, say: Say | None = None) -> Path:
    """The whole study; returns its report.

    Raises:
      InputError: whatever is wrong with the config, the series, the texts or the facts; it is
        looked for first.
    """
    series, steps = check(config)
    folder = open_folder(config, command, say)
    # models of a given series may be too large to have two of them at once
    workers = config.workers or (0 if config.series is None else 1)
    rows, tasks = [], []
    if config.series is None:
        runs = [(seed, v) for seed in config.every_seed for v in (None, *config.variants)]
        rows += folder.parts([parts.pretrain_task(config, folder, *one) for one in runs], workers)
    for seed in config.every_seed:
        own = f"run:{parts.run_folder(folder.path, seed, None)}@{','.join(map(str, steps))}"
        refs = series or checkpoints.series(own)
        tasks += [
            Task(
                f"seed{seed}-{start.name.replace(' ', '-')}",
                parts.continue_training,
                (config, seed, str(refs[-1]), start),
            )
            for start in parts.starting_points(config, folder.path, seed, refs)
        ]
    rows += folder.parts(tasks, workers)
    folder.tokens = sum(r["value"] for r in rows if r["metric"] == "tokens_trained")
    rows += summary(rows)
    return folder.finish(rows, claims(rows), config.seed)


def check(config: KnowledgeEntropy) -> tuple[list[checkpoints.Reference], list[int]]:
    """Finds, before anything is trained, what can be wrong with texts, facts and a series.

    Returns the given series, if there is one, and the steps to compare of runs, if there is none.

    Raises:
      InputError: a series of fewer than 3 checkpoints, and what the readers of texts and facts
        find.
    """
    first, series, steps = config.seed, [], []
    if config.series is None:
        run = present(config.pretrain)
        steps = _compared(run, config.compare_steps)
        own = with_special_tokens(run, config)
        tokenizer = tokenizer_of(run_of_seed(own, first, config.out))
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
        _check_enough(len(series))
        tokenizer = load_model(config, series[0]).tokenizer
    data.check_texts([config.text, for_seed(config.continual.text, first)])
    facts = config.injection.read(first)
    check_facts(facts, config.injection, config.continual, tokenizer)
    if config.known_probes is not None and not parts.known_probes(config, first):
        raise InputError(
            f"{config.known_probes}: no probe is of kind unchanged, or of none; nothing could be"
            " forgotten"
        )
    return series, steps


def _check_enough(count: int):
    if count < 3:
        raise InputError(
            f"a series of {count} checkpoint{'s' * (count != 1)}; correlations over a series need"
            " at least 3"
        )


def _compared(run: TrainConfig, wanted: tuple[int, ...] | None) -> list[int]:
    """The steps of `pretrain` to compare, all of which its rule keeps."""
    keep, steps = run.checkpoints, range(run.steps + 1)
    rule = Retention(every=keep.every, powers_of_two=keep.powers_of_two, last=1)
    there = [step for step in rule.kept(steps) if step > 0]
    for step in wanted or ():
        if step not in there:
            raise InputError(
                f"compare_steps={step}: pretrain.checkpoints does not keep this step; it keeps:"
                f" {', '.join(map(str, there))}"
            )
    _check_enough(len(wanted or there))
    return sorted(wanted or there)
