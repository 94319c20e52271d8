"""Why small models saturate (Godey et al. 2024, arXiv 2404.07647), on any models.

For each seed a ladder of models that differ in width alone is trained for long. Held-out loss,
anisotropy at every depth and the head's spectrum are measured during training. A scaling law is
fitted to the wide models, and the narrow ones are compared with it. On the widest model's frozen
body heads of every rank are trained; on a narrow one's, and inside a narrow model that is trained
anew, other kinds of head. The text itself says how many directions its next tokens take. Or
checkpoints are given (`series`), and nothing is trained but heads.

Rows of a model carry `kind` (`ladder`, `joint`, `given`), `name`, `seed`, `width`, `narrow`,
`parameters` (N), `head`; those of a step also `trained` (T, tokens so far).
"""

import dataclasses
from pathlib import Path

from lmdyn import checkpoints, data
from lmdyn.errors import InputError
from lmdyn.studies.config import with_special_tokens
from lmdyn.studies.folder import Folder, open_folder
from lmdyn.studies.saturation import parts
from lmdyn.studies.saturation.claims import claims
from lmdyn.studies.saturation.config import (
    EXPERIMENTS,
    Saturation,
    check_ranks,
    parse_slice,
    resized,
)
from lmdyn.studies.saturation.summary import summary
from lmdyn.studies.workers import Task
from lmdyn.types import Say, present


def run(config: Saturation, command: list[str] | None = None, say: Say | None = None) -> Path:
    """The whole study; returns its report.

    Raises:
      InputError: whatever is wrong with the config, the models or the texts; most of it is looked
        for first.
    """
    given = check(config)
    folder = open_folder(config, command, say)
    rows = folder.parts(
        given_tasks(config, given) if given else ladder_tasks(config, folder), config.workers
    )
    rows += folder.parts(further_tasks(config, folder, given), config.workers)
    try:
        rows += summary(rows, config.fit_from)
    except InputError as err:  # too few wide models for a law: the rest of the study is kept
        folder.say(f"no scaling law: {err}")
        rows += summary(rows, None)
    folder.tokens = sum(
        max((r["trained"] for r in rows if r.get("run") == run), default=0)
        for run in {r["run"] for r in rows if "run" in r}
    )
    return folder.finish(rows, claims(rows), config.seed)


def check(config: Saturation) -> list[checkpoints.Reference] | None:
    """Finds, before anything is trained, what can be wrong with texts and given models.

    Returns the references of given models, or None.

    Raises:
      InputError: what the readers find; a rank above a given model's width; an empty slice of its
        vocabulary; a tied head is fine, since ranks and spectra are of the matrix that predicts,
        whoever owns it.
    """
    parts_of = [getattr(config, part) for part in EXPERIMENTS if config.does(part)]
    data.check_texts([config.text, *(part.text for part in parts_of)])
    if not config.series:
        data.check_texts(source.ref for source in present(config.pretrain).data.sources)
        return None
    given = [reference for series in config.series for reference in checkpoints.series(series)]
    if config.does("heads"):
        check_ranks(present(config.heads).ranks, parts.architecture(str(given[-1])).width)
    return given


def ladder_tasks(config: Saturation, folder: Folder) -> list[Task]:
    """Every training run, the longest first, so that none is left alone at the end."""
    wanted = [(width, "full") for width in sorted(config.widths, reverse=True)]
    if config.does("heads") and (heads := present(config.heads)).joint:
        wanted[1:1] = [(config.body, kind) for kind in heads.alternatives]
    tasks = []
    for width, head in wanted:
        for seed in config.every_seed:
            name = _name(seed, width, head)
            run = with_special_tokens(present(config.pretrain), config)
            model, rule = (
                dataclasses.replace(resized(present(run.model), width), head=head),
                run.optimizer,
            )
            if config.learning_rates:
                rule = dataclasses.replace(
                    rule, learning_rate=config.learning_rates[config.widths.index(width)]
                )
            train = dataclasses.replace(
                run, model=model, optimizer=rule, seed=seed, out=str(folder.path / "runs" / name)
            )
            tasks.append(
                Task(name, parts.train, (train, _tags(config, seed, width, head), folder.command))
            )
    return tasks


def _name(seed: int, width: int, head: str = "full") -> str:
    return f"seed{seed}-width{width}" + ("" if head == "full" else f"-{head.replace(':', '')}")


def _tags(config: Saturation, seed: int, width: int, head: str) -> dict:
    kind = "ladder" if head == "full" else "joint"
    about = {"kind": kind, "name": f"width {width}", "seed": seed, "width": width}
    return {**about, "narrow": width <= config.narrow, "head": head}


def given_tasks(config: Saturation, given: list[checkpoints.Reference]) -> list[Task]:
    """What measures each given model."""
    measurement = parts.Measurement(
        config.text,
        config.tokens,
        config.length,
        config.batch,
        parse_slice(config.vocabulary),
        config.compute,
        config.bos,
        config.end_of_text,
    )
    return [
        Task(
            f"measured{number}",
            parts.measured,
            (str(reference), reference.step, measurement, config.narrow, config.tokens_per_step),
        )
        for number, reference in enumerate(given)
    ]


def further_tasks(
    config: Saturation, folder: Folder, given: list[checkpoints.Reference] | None
) -> list[Task]:
    """Heads on frozen bodies, and the text's own rank."""
    tasks, last = [], str(given[-1]) if given else None
    frozen = parts.Frozen(
        config.text,
        config.tokens,
        config.length,
        config.batch,
        config.compute,
        config.bos,
        config.end_of_text,
        config.cache,
        config.states,
    )
    if config.does("heads"):
        for seed in config.every_seed:
            body = last or f"run:{folder.path / 'runs' / _name(seed, max(config.widths))}"
            tasks.append(
                Task(f"ranks-seed{seed}", parts.head_ranks, (body, config.heads, frozen, seed))
            )
        for seed in config.every_seed if present(config.heads).alternatives else ():
            body = last or f"run:{folder.path / 'runs' / _name(seed, config.body)}"
            tasks.append(
                Task(
                    f"kinds-seed{seed}", parts.head_alternatives, (body, config.heads, frozen, seed)
                )
            )
    if config.does("target"):
        body = last or f"run:{folder.path / 'runs' / _name(config.seed, max(config.widths))}"
        tasks += [
            Task(f"target{context}-seed{seed}", parts.target, (config, body, context, seed))
            for context in present(config.target).contexts
            for seed in config.every_seed
        ]
    return tasks
