"""`lmdyn measure`: the rows of one model, of several, or of a series of checkpoints."""

import dataclasses
import functools
import math
import time
from typing import Annotated, Any

import tyro

from lmdyn import records
from lmdyn.cli import common
from lmdyn.cli.each_checkpoint import Measured, Verb, measure_each
from lmdyn.errors import check_least
from lmdyn.files import check_writable


@dataclasses.dataclass(frozen=True)
class Measure:
    """Measure models over a text: one row per number.

    MODEL is hf:ORG/NAME[@REVISION], dir:PATH, gguf:PATH or run:DIR[@STEP]; @A,B and @* name a
    series of checkpoints. One forward pass per batch serves all metrics.
    """

    models: common.Models
    data: common.Text
    out: common.RowsFile
    metrics: Annotated[str, tyro.conf.arg(metavar="A,B,...")] = (
        "nll,knowledge_entropy,attention_entropy,prediction_entropy,anisotropy,singular_entropy"
    )
    """What to measure: metrics by name, or functions that make one by dotted name, such as
    my_package.my_metric."""
    length: Annotated[int, tyro.conf.arg(metavar="T")] = 512
    """Tokens per window."""
    batch: Annotated[int, tyro.conf.arg(metavar="B")] = 1
    """Windows per forward pass."""
    tokens: common.Tokens = None
    bos: common.BosRule = "auto"
    end_of_text: common.EndOfText = None
    pre: common.Pre = None
    on_bad_document: common.OnBadDocument = "error"
    dtype: common.Dtype = "auto"
    mesh: Annotated[
        str | None, tyro.conf.arg(metavar="DATA,FSDP,TENSOR", help_behavior_hint="")
    ] = None
    """Several devices: how many along each axis; 8,1,1 divides batches, 1,8,1 parameters. By
    default one device is used."""


OPTIONS = Measure


def run(options: Measure, command: list[str]) -> int:
    """Measures the models one after another, and writes their rows.

    Args:
      options: of the verb.
      command: the words of the command line, for the provenance.

    Returns:
      The exit code: see `measure_each`.
    """
    started = time.time()
    check_least(options, "--", length=1, batch=1, tokens=1)
    check_writable(options.out)
    common.set_up_jax()
    from lmdyn import checkpoints, data, metrics, models
    from lmdyn.training import sharding

    documents = data.documents(options.data, options.on_bad_document)
    metric = metrics.build(options.metrics)
    described = records.describe(metric.quantities)
    mesh = common.mesh_of(options, rows=options.batch)

    def measure(loaded: checkpoints.Loaded) -> Measured:
        model, params, where = loaded.model, loaded.params, None
        windows = (options.length, options.batch, options.tokens)
        models.check_positions(model.config, options.length)
        batches = data.batches(documents, loaded.tokenizer, *windows, progress=True)
        if mesh is not None:
            model, params = sharding.spread(model, mesh), sharding.shard(params, mesh, model.config)
            where = sharding.batch_sharding(mesh)
        results = metrics.measure(metric, model, params, batches, progress=True, sharding=where)
        found = metric.rows(results)
        _add_bits_per_byte(found, loaded.tokenizer, batches)
        return Measured([{**r, "tokens": batches.tokens} for r in found], batches.tokens)

    show = functools.partial(common.show, described=described)
    return measure_each(Verb(options, command, started, measure, show, described, documents))


def _add_bits_per_byte(rows: list[dict[str, Any]], tokenizer: Any, batches: Any) -> None:
    """Adds to the row of nll what it is in bits per byte of UTF-8 of the predicted text.

    The separators between documents are not in that text.
    """
    ids = batches.stream[1:]
    special = [i for i in (tokenizer.end_of_text, tokenizer.first_token) if i is not None]
    text = tokenizer.decode([i for i in ids.tolist() if i not in special])
    size = len(text.encode("utf-8", "replace"))
    for r in rows:
        if r["metric"] == "nll" and size:
            r["bits_per_byte"] = r["value"] * batches.tokens / math.log(2) / size
