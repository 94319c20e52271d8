"""Online adaptation, the whole trade.

Rannen-Triki et al. 2024 (arXiv 2403.01518); Krause et al. 2018, 2019.

For each seed, models of several sizes are trained on prose; one of them is also fine-tuned on
source code. They are then adapted online to held-out prose and code: by several rules, in many
places, with several contexts, with resets. Everything is compared with the same model unadapted,
over the same predictions, after those on which the learning rate was chosen.

Beyond the papers: adapting where a gradient profile says, starting at the checkpoint with the most
knowledge entropy, and starting at a point that was meta-learned.

With `model=`, a given model is adapted instead, by every rule, to the texts of `given`.
"""

from pathlib import Path

from lmdyn import checkpoints, data
from lmdyn.studies.folder import open_folder
from lmdyn.studies.online_adaptation import parts
from lmdyn.studies.online_adaptation.claims import claims
from lmdyn.studies.online_adaptation.config import OnlineAdaptation
from lmdyn.studies.online_adaptation.localized_parts import localized
from lmdyn.studies.online_adaptation.start_parts import every_checkpoint, given_model, meta
from lmdyn.studies.online_adaptation.tables import summary
from lmdyn.studies.workers import Task
from lmdyn.types import Say

MAKE = {
    "rules": parts.rules,
    "places": parts.places,
    "context": parts.context,
    "sizes": parts.sizes,
    "position": parts.position,
    "resets": parts.resets,
    "localized": localized,
    "checkpoints": every_checkpoint,
    "meta": meta,
}
"""What makes the rows of an analysis."""


def run(config: OnlineAdaptation, command: list[str] | None = None, say: Say | None = None) -> Path:
    """The whole study; returns its report.

    Raises:
      InputError: whatever is wrong with the config, the texts or the model; it is looked for first.
    """
    given = check(config)
    folder = open_folder(config, command, say)
    if given is not None:
        tasks = [
            Task(f"given-{number}", given_model, (config, str(given), text))
            for number, text in enumerate(config.given.streams)
        ]
        # one model at a time: it keeps all cores busy
        rows = folder.parts(tasks, workers=config.workers or 1)
    else:
        study, names = str(folder.path), parts.models(config)
        trained = {
            (seed, name): Task(
                f"seed{seed}-{name}", parts.train_model, (config, study, seed, name, folder.command)
            )
            for seed in config.every_seed
            for name in names
        }
        # a fine-tuned model starts from one that is trained first
        first = [task for (_, name), task in trained.items() if name != "tuned"]
        tuned = [task for (_, name), task in trained.items() if name == "tuned"]
        rows = [*folder.parts(first, config.workers), *folder.parts(tuned, config.workers)]
        tasks = [
            Task(f"seed{seed}-{name.replace(' ', '-')}", MAKE[kind], (config, study, seed, *more))
            for seed in config.every_seed
            for name, kind, more in wanted(config)
        ]
        rows += folder.parts(tasks, config.workers)
    folder.tokens = sum(
        row["tokens"] or 0 for row in rows if row["metric"] in ("online_nll", "static_nll")
    )
    rows += summary(rows)
    return folder.finish(rows, claims(rows), config.seed)


def wanted(config: OnlineAdaptation) -> list[tuple[str, str, tuple]]:
    """`(name of the part, function in MAKE, its further arguments)` for each part of a seed."""
    names, found = parts.models(config), []
    of_models = {
        "sizes": [name for name in names if name != "tuned"],
        "rules": [name for name in ("base", "tuned") if name in names],
    }
    for kind in config.analyses:
        if kind in of_models:
            found += [(f"{kind} {name}", kind, (name,)) for name in of_models[kind]]
        elif kind != "meta" or config.meta is not None:
            found.append((kind, kind, ()))
    return found


def check(config: OnlineAdaptation) -> checkpoints.Reference | None:
    """Finds, before anything is trained, what can be wrong with texts and a given model.

    Returns the given model's reference, or None.

    Raises:
      InputError: what the readers of texts and models find.
    """
    grid = config.grid if config.model is None else config.given
    data.check_texts(
        {grid.home, *grid.streams, *(() if grid.choose_on is None else (grid.choose_on,))}
    )
    return None if config.model is None else checkpoints.parse(config.model)
