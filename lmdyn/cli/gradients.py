"""`lmdyn gradients`: which layers facts light up, by their gradients."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Sequence
from typing import Annotated

import tyro

from lmdyn import records
from lmdyn.cli import common
from lmdyn.cli.each_checkpoint import Measured, Verb, measure_each
from lmdyn.errors import InputError, check_least
from lmdyn.files import check_writable
from lmdyn.types import Row


@dataclasses.dataclass(frozen=True)
class Gradients:
    """Measure which layers facts light up, by the gradient norms of their spans per layer.

    Norms are relative to those of random spans of a text.

    Each probe is a text with a marked span. Its loss is the mean nll of the span, and the norm is
    that of its own gradient. There is one profile per kind of knowledge that the probes name
    (updated, new, unchanged), with bootstrap intervals over sequences, and a test of whether two
    kinds are in different places.
    """

    models: common.Models
    probe: Annotated[tuple[str, ...], tyro.conf.arg(metavar="REF [REF ...]")]
    """Probes: a JSON Lines file (prompt, target, kind), tfds:NAME:SPLIT, templama:PATH@OLD,NEW,
    ecbd:PATH@YEAR or temporalwiki:PATH."""
    reference: Annotated[str, tyro.conf.arg(metavar="REF")]
    """Text of the kind that the model was pretrained on: text:GLOB, jsonl:PATH#FIELD,
    tfds:NAME:SPLIT#FIELD or builtin:NAME."""
    out: common.RowsFile
    groups: Annotated[str, tyro.conf.arg(metavar="A,B,...")] = "attention,mlp"
    """Groups of parameters: attention, mlp, norms, embed, head, or selectors such as
    blocks.mlp.up."""
    limit: common.Count = None
    """At most N probes per kind, spread evenly; by default all of them."""
    spans: Annotated[int, tyro.conf.arg(metavar="N")] = 256
    """Random spans of the text."""
    length: common.Count = None
    """Tokens of the longest sequence; by default those of the longest probe."""
    tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 65536
    """Random spans come from the first N tokens of the text."""
    batch: Annotated[int, tyro.conf.arg(metavar="B")] = 16
    """Sequences per pass."""
    resamples: Annotated[int, tyro.conf.arg(metavar="N")] = 2000
    """Resamples of the bootstrap, and permutations of the test."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Seed of the random spans, resamples and permutations."""
    bos: common.BosRule = "auto"
    end_of_text: common.EndOfText = None
    pre: common.Pre = None
    dtype: common.Dtype = "auto"


OPTIONS = Gradients


def run(options: Gradients, command: list[str]) -> int:
    """Measures the gradient norms of one model after another, and writes the rows.

    Args:
      options: of the verb.
      command: the words of the command line, for the provenance.

    Returns:
      The exit code: see `measure_each`.
    """
    started = time.time()
    if not options.probe:
        raise InputError("no probes given; see lmdyn gradients --help")
    check_least(options, "--", limit=1, length=1, tokens=1, batch=1, resamples=1, spans=2, seed=0)
    groups = [group.strip() for group in options.groups.split(",") if group.strip()]
    if not groups:
        raise InputError("--groups names nothing; give for example attention,mlp")
    check_writable(options.out)
    common.set_up_jax()
    from lmdyn import checkpoints, data, models
    from lmdyn.metrics import localization

    documents = data.documents(options.reference)
    probes = [probe for ref in options.probe for probe in data.read_probes(ref)]
    kinds = localization.by_kind(probes, options.limit)

    def measure(loaded: checkpoints.Loaded) -> Measured:
        measured = localization.sequences(
            kinds,
            documents,
            loaded.tokenizer,
            options.spans,
            length=options.length,
            tokens=options.tokens,
            seed=options.seed,
        )
        models.check_positions(loaded.model.config, measured.random.inputs.shape[1])
        found = localization.locate(
            loaded.model,
            loaded.params,
            measured,
            groups=groups,
            batch=options.batch,
            resamples=options.resamples,
            seed=options.seed,
            progress=True,
        )
        batches = (*measured.probes.values(), measured.random)
        return Measured(found.rows(), sum(int(batch.mask.sum()) for batch in batches))

    show = functools.partial(_show_profiles, groups=groups)
    described = records.describe(localization.QUANTITIES)
    texts = itertools.chain(map(repr, probes), documents)
    return measure_each(
        Verb(options, command, started, measure, show, described, texts, seed=options.seed)
    )


def _show_profiles(rows: Sequence[Row], groups: Sequence[str]) -> None:
    """Prints the relative norms by layer, a column per kind and group; and what the tests say."""
    found = [r for r in rows if r["metric"] == "relative_gradient_norm"]
    kinds = list(dict.fromkeys(r["kind"] for r in found))
    value = {(r["kind"], r["site"], r["layer"]): f"{r['value']:.3f}" for r in found}
    columns = [(kind, group) for group in groups for kind in kinds]
    heads = [f"{kind} {group}" if len(kinds) > 1 else group for kind, group in columns]
    wide = max(11, *map(len, heads)) + 2
    print("relative gradient norm".ljust(24) + "".join(head.rjust(wide) for head in heads))
    for layer in sorted({r["layer"] for r in found}, key=lambda n: -1 if n is None else n):
        cells = [value.get((*column, layer), "") for column in columns]
        name = "whole" if layer is None else f"layer {layer}"
        print(name.ljust(24) + "".join(cell.rjust(wide) for cell in cells), flush=True)
    for r in rows:
        if r["metric"] == "profile_difference" and r["layer"] is None and r["site"] is None:
            kinds = " against ".join(r["kinds"])
            print(
                f"{kinds}: profiles differ by {r['value']:.3f} (log share), p = {r['p']:.2g}",
                flush=True,
            )
