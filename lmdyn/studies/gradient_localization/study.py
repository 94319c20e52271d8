"""Gradient localization and targeted updates (Fernandez et al. 2024, arXiv 2411.04448).

For each seed: a model that knows a world at time 0 (trained here, or given) is asked where the
gradients of updated, new and unchanged facts are large, against random spans of its pretraining
text. Then it is trained further on the world at time 1, by several methods, each of them
unrestricted, restricted to the layers that the profile names (`freeze`), with layers' learning
rates scaled by it (`scale`), and with three controls: as many layers drawn at random, the layers
that the profile does not name, and all layers without what lies outside of them. Each is run at
several learning rates. Last, the same restrictions in online adaptation.

Facts whose spans make the profile and facts that are asked for afterwards are of different
entities.

Rows of a run carry `seed`, `method`, `mode` and `factor` (of the learning rate); `update` is the
number of updates done.
"""

from pathlib import Path

from lmdyn import data
from lmdyn.studies.config import for_seed, load_model
from lmdyn.studies.folder import open_folder
from lmdyn.studies.gradient_localization.claims import claims
from lmdyn.studies.gradient_localization.comparisons import summary
from lmdyn.studies.gradient_localization.config import GradientLocalization
from lmdyn.studies.gradient_localization.profile_parts import (
    profile,
    reference_profile,
    training_profile,
)
from lmdyn.studies.gradient_localization.questions import (
    check_fit,
    pretrain,
    pretraining,
    questions,
)
from lmdyn.studies.gradient_localization.restrictions import check_method
from lmdyn.studies.gradient_localization.stream_parts import adapt_online
from lmdyn.studies.gradient_localization.training_parts import train_further, train_running
from lmdyn.studies.pretraining import tokenizer_of
from lmdyn.studies.workers import Task
from lmdyn.types import Say, present


def run(
    config: GradientLocalization, command: list[str] | None = None, say: Say | None = None
) -> Path:
    """The whole study; returns its report.

    Raises:
      InputError: whatever is wrong with the config, the texts or the probes; it is looked for
        first.
    """
    check(config)
    folder = open_folder(config, command, say)
    seeds, rows = config.every_seed, []
    each_seed = lambda name, make: folder.parts(
        [Task(f"{name}-seed{seed}", make, (config, seed)) for seed in seeds], config.workers
    )
    if config.model is None:
        rows += each_seed("pretraining", pretrain)
    profiles = each_seed("profile", profile)
    rows += profiles
    traced = {seed: training_profile(profiles, seed) for seed in seeds}
    runs = [
        Task(
            f"seed{seed}-{method.name.replace(' ', '-')}",
            train_further,
            (config, seed, method, traced[seed]),
        )
        for method in config.methods
        for seed in seeds
    ]
    for seed in seeds:
        reference = reference_profile(profiles, seed)
        runs.append(Task(f"seed{seed}-running", train_running, (config, seed, reference)))
    runs += [
        Task(f"seed{seed}-online", adapt_online, (config, seed, traced[seed]))
        for seed in (seeds if config.online is not None else ())
    ]
    rows += folder.parts(runs, config.workers)
    folder.tokens = sum(r["tokens_trained"] for r in rows if "tokens_trained" in r)
    rows += summary(rows)
    return folder.finish(rows, claims(rows), config.seed)


def check(config: GradientLocalization) -> None:
    """Finds, before anything is trained, what can be wrong with texts, probes and a given model.

    Raises:
      InputError: what the readers of texts and probes find; probes without a kind that is needed,
        or too few entities; a method that does not fit the model.
    """
    texts = [source.ref for source in config.data.sources]
    texts += [method.review.ref for method in config.methods if method.review is not None]
    texts += [] if config.online is None else [config.online.text]
    data.check_texts(
        for_seed(text, config.seed) for text in (config.text, config.reference, *texts)
    )
    if config.model is None:
        run = pretraining(config, config.seed)
        tokenizer, architecture = tokenizer_of(run), present(run.model)
    else:
        loaded = load_model(config, config.model)
        tokenizer, architecture = loaded.tokenizer, loaded.model.config
    data.check_vocabulary(tokenizer, architecture)
    check_fit(questions(config, config.seed), tokenizer, architecture)
    for method in config.methods:
        check_method(method, architecture)
