"""The models of the study of gradient localization, and what they are asked.

Shape letters: P probes, B rows of a batch, T tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lmdyn import checkpoints, data, models, records, training
from lmdyn.data import Batch, Probe, ProbeBatch
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig
from lmdyn.studies.config import for_seed, load_model, with_special_tokens
from lmdyn.studies.gradient_localization.config import GradientLocalization
from lmdyn.studies.pretraining import run_of_seed, train_run
from lmdyn.studies.workers import remembered
from lmdyn.types import present

LEARNED, KEPT = ("updated", "new"), "unchanged"
"""Kinds of facts in the continual pretraining's text, and the kind that may be forgotten."""


def run_folder(config: GradientLocalization, seed: int) -> Path:
    """Where the model of a seed is pretrained."""
    return Path(config.out) / "runs" / f"seed{seed}"


def pretraining(config: GradientLocalization, seed: int) -> training.TrainConfig:
    """The run that makes the model of a seed."""
    run = with_special_tokens(present(config.pretrain), config)
    return run_of_seed(run, seed, run_folder(config, seed))


def pretrain(config: GradientLocalization, seed: int) -> list[dict]:
    """The pretraining of a seed's model, with what was measured during it."""
    run = pretraining(config, seed)
    measured = train_run(run, [], {"seed": seed, "kind": "pretraining"})
    trained = records.row(
        "pretraining",
        run.steps,
        "steps",
        model=f"run:{run.out}",
        step=run.steps,
        seed=seed,
        tokens_trained=run.steps * run.data.batch * run.data.length,
    )
    return [*measured, trained]


class Questions(NamedTuple):
    """Probes of a seed, cut in two by entity.

    Attributes:
      traced: `{kind: probes}`, whose gradients make the profile.
      asked: `{kind: probes}`, asked for before, during and after a run.
    """

    traced: dict[str, tuple[Probe, ...]]
    asked: dict[str, tuple[Probe, ...]]


def questions(config: GradientLocalization, seed: int) -> Questions:
    """Reads the probes of a seed and cuts them in two.

    Every second entity makes the profile, the others are asked for.

    Raises:
      InputError: no probes of a kind, or of too few entities.
    """
    found = [probe for ref in config.probes for probe in data.read_probes(for_seed(ref, seed))]
    halves: tuple[dict, dict] = ({}, {})
    for kind in (*LEARNED, KEPT):
        own = [p for p in found if p.kind == kind]
        names = list(dict.fromkeys(p.entity or p.prompt for p in own))
        if len(names) < 4:
            there = sorted({str(p.kind) for p in found})
            raise InputError(
                f"{' '.join(config.probes)} has probes of kind {kind} about {len(names)} entities,"
                " and 4 are needed, two for the profile and two to ask for; its kinds are:"
                f" {', '.join(there)}"
            )
        side = {name: number % 2 for number, name in enumerate(names)}
        for half, chosen in enumerate(halves):
            mine = [p for p in own if side[p.entity or p.prompt] == half]
            most = (config.profile_limit, config.ask_limit)[half]
            picked = np.unique(np.linspace(0, len(mine) - 1, min(most, len(mine))).astype(int))
            chosen[kind] = tuple(mine[i] for i in picked)
    return Questions(*halves)


def check_fit(asked: Questions, tokenizer: Tokenizer, architecture: ModelConfig) -> None:
    """Raises an `InputError` for a probe that has no target of its own, or too many tokens."""
    probes = [probe for half in asked for own in half.values() for probe in own]
    longest = data.encode_probes(probes, tokenizer).inputs.shape[1]
    if architecture.position == "learned" and longest > architecture.positions:
        raise InputError(
            f"the longest probe has {longest} tokens, and the model {architecture.positions}"
            " positions; leave long probes out"
        )


class Subject(NamedTuple):
    """A seed's model and all that it is asked.

    Attributes:
      reference: of the model.
      model: its module.
      params: its parameters.
      tokenizer: its tokenizer.
      questions: its probes, by kind.
      asked: all that is asked for, kind after kind.
      old: batches of held-out pretraining text.
    """

    reference: checkpoints.Reference
    model: models.LanguageModel
    params: Any
    tokenizer: Any
    questions: Questions
    asked: ProbeBatch
    old: Sequence[Batch]


@remembered
def load_subject(config: GradientLocalization, seed: int) -> Subject:
    """The model of a seed, and what belongs to it."""
    reference = checkpoints.parse(config.model or f"run:{run_folder(config, seed)}")
    model, params, tokenizer, *_ = load_model(config, reference)
    cut = questions(config, seed)
    asked = data.encode_probes([p for own in cut.asked.values() for p in own], tokenizer)
    length, batch = config.data.length, config.data.batch
    old = list(data.batches(config.text, tokenizer, length, batch, config.tokens))
    return Subject(reference, model, params, tokenizer, cut, asked, old)
