"""What several verbs share: options, cheap checks, the set-up of JAX, output."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from lmdyn import records
from lmdyn.errors import InputError
from lmdyn.types import Array, Bos, Row

if TYPE_CHECKING:
    from jax.sharding import Mesh


Count = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
Models = Annotated[
    tyro.conf.Positional[tuple[str, ...]],
    tyro.conf.arg(
        metavar="MODEL [MODEL ...]", help="Model references.", help_behavior_hint="(required)"
    ),
]
Model = Annotated[
    tyro.conf.Positional[str],
    tyro.conf.arg(
        metavar="MODEL",
        help="Model reference: hf:ORG/NAME[@REVISION], dir:PATH, gguf:PATH or run:DIR[@STEP].",
    ),
]
Text = Annotated[
    str,
    tyro.conf.arg(
        metavar="REF",
        help=(
            "The text: text:GLOB, jsonl:GLOB#FIELD, parquet:GLOB#FIELD, arrow:FOLDER#FIELD,"
            " tfds:NAME[/CONFIG]:SPLIT#FIELD or builtin:NAME"
            " (docs, code)."
        ),
    ),
]
RowsFile = Annotated[
    str,
    tyro.conf.arg(
        metavar="FILE",
        help="Where to write the rows, as JSON Lines; their provenance goes to FILE.meta.json.",
    ),
]
BosRule = Annotated[
    Bos,
    tyro.conf.arg(
        help=(
            "Where a beginning-of-text token is put; auto: before each document, if the model's own"
            " tokenizer does so."
        )
    ),
]
EndOfText = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="TOKEN",
        help="The token between documents, or its id; by default the tokenizer's own.",
        help_behavior_hint="",
    ),
]
Pre = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        help=(
            "Of a GGUF file that does not say so: how its tokenizer cuts text, by llama.cpp's name,"
            " such as llama-bpe."
        ),
        help_behavior_hint="",
    ),
]
OnBadDocument = Annotated[
    Literal["error", "skip"],
    tyro.conf.arg(
        help="What to do about a document that cannot be read; skipped ones are counted."
    ),
]
Tokens = Annotated[
    int | None,
    tyro.conf.arg(
        metavar="N",
        help="Stop after N predictions; by default the whole text is read.",
        help_behavior_hint="",
    ),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    tyro.conf.arg(help="Dtype of activations; auto: bfloat16 on GPU and TPU, float32 on CPU."),
]


def mesh_of(options: Any, rows: int | None) -> "Mesh | None":
    """The mesh of `--mesh`; None for one device.

    Args:
      options: have the field `mesh`.
      rows: of a batch, which must divide over the mesh; None for one stream, which has no rows.
    """
    if options.mesh is None:
        return None
    from lmdyn.training import sharding

    shape = sharding.parse_mesh(options.mesh)
    if rows is None and shape[0] > 1:
        raise InputError(
            f"--mesh {options.mesh}: one stream is adapted, which has no rows to divide; use"
            f" 1,{shape[0] * shape[1]},{shape[2]}"
        )
    mesh = sharding.make_mesh(shape)
    if rows is not None:
        sharding.check_batch(rows, mesh)
    return mesh


def set_up_jax() -> None:
    """Has JAX keep compiled programs between runs.

    They go to the user's cache folder, unless the environment names another.
    """
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lmdyn" / "jax"
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError:  # a home that cannot be written costs time, not the run
            return
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def write(
    options: Any,
    command: list[str],
    started: float,
    rows: Sequence[Row],
    tokens: int,
    seed: int | None = None,
    traces: Mapping[str, Array] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Writes rows, traces and provenance to `options.out`.

    Args:
      options: of the verb; their fields go into the provenance.
      command: the words of the command line.
      started: `time.time()` at the start.
      rows: all of them.
      tokens: predictions made, over all models.
      seed: None where nothing is random.
      traces: name to one value per prediction.
      notes: what else the provenance says.
    """
    from lmdyn.records import provenance

    meta = provenance.collect(command, dataclasses.asdict(options), started, tokens, seed)
    records.write_rows(options.out, rows, {**meta, **(notes or {})}, traces)
    say(f"wrote {len(rows)} rows to {options.out}")


def show(rows: Sequence[Row], described: Mapping[str, Any] | None = None) -> None:
    """Prints a line per metric and site: its value, and its lowest and highest layer.

    The value is that of the whole model; the mean over layers, for a metric that has none.

    Args:
      rows: of one model.
      described: from `records.describe`: titles.
    """
    sites: dict[tuple[str, str | None], list[Row]] = {}
    for r in rows:
        sites.setdefault((r["metric"], r["site"]), []).append(r)
    for (_, site), found in sites.items():
        title = records.quantity_of(found[0], {"metrics": described or {}}).title
        layers = sorted((r for r in found if r["layer"] is not None), key=lambda r: r["value"])
        notes = []
        if layers:
            ends = (f"{r['value']:.4g} in layer {r['layer']}" for r in (layers[0], layers[-1]))
            notes = [" to ".join(ends)]
            if len(layers) == len(found):
                notes = [f"mean of {len(layers)} layers", *notes]
                mean = sum(r["value"] for r in layers) / len(layers)
                found = [*found, {**layers[0], "layer": None, "value": mean}]
        for r in found:
            if r["layer"] is None:
                more = [f"perplexity {r['perplexity']:.2f}"] if "perplexity" in r else []
                name = f"{title}, {site}" if site else title
                about = "; ".join([*more, *notes])
                end = f"  ({about})" if about else ""
                print(f"{name:34} {r['value']:10.5g} {r['unit']}{end}", flush=True)


def say(text: str) -> None:
    """Prints a line for the user on stderr."""
    print(text, file=sys.stderr, flush=True)
