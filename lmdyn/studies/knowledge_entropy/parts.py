"""The parts of the study of knowledge entropy.

Pretraining runs, and the continual training from each starting point. Each is a function that
another process can run, and gives rows.

Shape letters: L layers, F coefficients of an MLP.
"""

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmdyn import checkpoints, data, metrics, records, transforms
from lmdyn.data import Probe
from lmdyn.studies.config import for_seed, load_model, with_special_tokens
from lmdyn.studies.folder import Folder
from lmdyn.studies.injected_facts import FactStream, fact_stream
from lmdyn.studies.injection_scores import Controls, make_injection, score_rows
from lmdyn.studies.knowledge_entropy.config import KnowledgeEntropy, Variant
from lmdyn.studies.pretraining import run_of_seed, train_run
from lmdyn.studies.workers import Task, remembered
from lmdyn.types import present

METRICS = "nll,knowledge_entropy,attention_entropy,prediction_entropy"


def run_folder(study: Path, seed: int, variant: Variant | None) -> Path:
    """Where the model of a seed and variant is pretrained; None is the plain way."""
    name = "" if variant is None else f"-{variant.name.replace(' ', '-')}"
    return study / "runs" / f"seed{seed}{name}"


def pretrain_task(
    config: KnowledgeEntropy, folder: Folder, seed: int, variant: Variant | None
) -> Task:
    """The pretraining of a seed's model, as a part of the study."""
    out = run_folder(folder.path, seed, variant)
    run = run_of_seed(with_special_tokens(present(config.pretrain), config), seed, out)
    if variant is not None:
        run = dataclasses.replace(
            run, objective=variant.objective, interventions=variant.interventions
        )
    tags = {"seed": seed, "start": variant.name if variant else "plain", "kind": "pretraining"}
    return Task(f"pretraining-{out.name}", train_run, (run, folder.command, tags))


class Start(NamedTuple):
    """A model from which the continual training begins.

    A checkpoint, or one with dormant coefficients reactivated.

    Attributes:
      name: in rows and figures.
      kind: see the top of `study`.
      reference: of the checkpoint.
      step: its step.
      ratio: of the reactivation; None where there is none.
      gain: of the reactivation.
      options: what else `transforms.choose_coefficients` takes.
    """

    name: str
    kind: str
    reference: str
    step: int | None
    ratio: float | None = None
    gain: float | None = None
    options: dict | None = None


def starting_points(
    config: KnowledgeEntropy, study: Path, seed: int, refs: list[checkpoints.Reference]
) -> list[Start]:
    """All that one seed's continual training begins from.

    The series; its last checkpoint with coefficients reactivated, over a grid of ratio and
    gain, each with its control, and by measured entropy at the first gain; the ends of other
    ways to pretrain.
    """
    starts, last = (
        [Start(f"{r.says.branch} step {r.step}".strip(), "series", str(r), r.step) for r in refs],
        refs[-1],
    )
    for ratio in config.ratios:
        for gain in config.gains:
            kinds = {"reactivated": {}, "random": {"control": "random", "seed": seed}}
            if gain == config.gains[0]:
                kinds["by entropy"] = {"strength": "entropy"}
            for kind, options in kinds.items():
                name = f"{kind} ratio {ratio:g} gain {gain:g}"
                starts.append(Start(name, kind, str(last), last.step, ratio, gain, options))
    for variant in config.variants if config.series is None else ():
        reference = checkpoints.parse(f"run:{run_folder(study, seed, variant)}")
        starts.append(Start(variant.name, "variant", str(reference), reference.step))
    return starts


class _Shared(NamedTuple):
    """What all starting points of a seed share.

    `last`: the loaded last checkpoint; `held_out`: batches of the old domain; `coefficients`:
    mean MLP coefficients of the last one, `[L, F]`.
    """

    last: checkpoints.Loaded
    held_out: list
    controls: Controls
    stream: FactStream
    coefficients: np.ndarray


@remembered
def _shared(config: KnowledgeEntropy, seed: int, reference: str) -> _Shared:
    last = load_model(config, reference)
    data.check_vocabulary(last.tokenizer, last.model.config)
    length, batch = config.continual.length, config.continual.batch
    cut = lambda text: list(data.batches(text, last.tokenizer, length, batch, config.tokens))
    held_out, other = cut(config.text), config.continual.held_out
    known = None
    if config.known_probes is not None:
        known = data.encode_probes(known_probes(config, seed), last.tokenizer)
    controls = Controls(known, held_out, None if other is None else cut(other))
    facts, how = config.injection.read(seed), (config.injection, config.continual)
    stream = fact_stream(facts, *how, last.tokenizer, seed, config.cache)
    coefficients = metrics.measure(_entropy(), last.model, last.params, held_out).coefficients
    return _Shared(last, held_out, controls, stream, coefficients)


# One compiled step for all starting points of a process.
_injection = remembered(make_injection)


def continue_training(config: KnowledgeEntropy, seed: int, last: str, begun: Start) -> list[dict]:
    """One starting point, measured, and what the continual training did to it.

    Args:
      config: of the study.
      seed: the seed.
      last: reference of the seed's last checkpoint.
      begun: the starting point.
    """
    shared = _shared(config, seed, last)
    model, params = shared.last.model, shared.last.params
    tags = {"seed": seed, "start": begun.name, "kind": begun.kind}
    if begun.ratio is not None:
        chosen = transforms.choose_coefficients(
            shared.coefficients, begun.ratio, **present(begun.options)
        )
        params = transforms.reactivate(
            params, shared.coefficients, begun.ratio, present(begun.gain), chosen
        )
        tags |= {"ratio": begun.ratio, "gain": begun.gain}
    elif begun.reference != last:
        params = load_model(config, begun.reference).params
    about = {"step": begun.step, "tokens": config.tokens}
    found = metrics.measure(_measured(), model, params, shared.held_out)
    rows = [
        records.row(model=begun.reference, **about, **r, **tags)
        for m in found.values()
        for r in m.rows()
    ]
    inject = _injection(model, config.continual, config.injection)
    scores = inject(params, shared.stream, shared.controls)
    made = functools.partial(records.row, model=begun.reference, step=begun.step, **tags)
    return [
        *rows,
        *score_rows(begun.reference, begun.step, scores, shared.stream, tags),
        made("tokens_trained", shared.stream.tokens, "tokens"),
    ]


@functools.cache
def _measured():  # one metric, so that all parts of a process run the same compiled program
    return metrics.build(METRICS)


@functools.cache
def _entropy():
    return metrics.knowledge_entropy()


def known_probes(config: KnowledgeEntropy, seed: int) -> list[Probe]:
    """Probes of facts that pretraining contains and that stay true.

    At most `known_limit` of them, spread evenly.
    """
    every = data.read_probes(for_seed(present(config.known_probes), seed))
    found = [p for p in every if p.kind in (None, "unchanged")]
    count = min(config.known_limit, len(found))
    picked = np.unique(np.linspace(0, len(found) - 1, count).astype(int))
    return [found[i] for i in picked]
