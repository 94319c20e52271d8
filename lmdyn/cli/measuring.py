"""`lmdyn measure` and `lmdyn gradients`: rows of one model or a series."""

import dataclasses
import math
import time

from lmdyn import records
from lmdyn.cli.common import at_least, check_positions, mesh_of, say, set_up_jax, show
from lmdyn.cli.options import Gradients, Measure
from lmdyn.errors import InputError
from lmdyn.files import check_writable


def measure(options: Measure, command: list[str]) -> None:
    """`lmdyn measure`. Args: options: `lmdyn.cli.options.Measure`. command: the words of the
    command line, for the record.
    """
    started = time.time()
    at_least(1, options, "length", "batch", "tokens")
    check_writable(options.out)
    set_up_jax()
    from lmdyn import checkpoints, data, metrics, models
    from lmdyn.records import provenance
    from lmdyn.training import sharding as meshes

    documents = data.documents(options.data)
    metric = metrics.build(options.metrics)
    mesh = mesh_of(options, rows=options.batch)
    references = [r for ref in options.models for r in checkpoints.series(ref)]
    rows, total = [], 0
    for number, reference in enumerate(references, 1):
        say(f"{reference}" + (f" ({number} of {len(references)})" if len(references) > 1 else ""))
        loaded = checkpoints.load(reference, models.Compute(dtype=options.dtype), packed=True)
        data.check_vocabulary(loaded.tokenizer, loaded.model.config)
        batches = data.batches(
            documents,
            loaded.tokenizer,
            options.length,
            options.batch,
            options.tokens,
            progress=True,
        )
        check_positions(loaded.model.config, length=options.length)
        model, params, where = loaded.model, loaded.params, None
        if mesh is not None:
            model, params = meshes.spread(model, mesh), meshes.shard(params, mesh, model.config)
            where = meshes.batch_sharding(mesh)
        results = metrics.measure(metric, model, params, batches, progress=True, sharding=where)
        found = metric.rows(results)
        size = _text_bytes(loaded.tokenizer, batches.stream[1:])
        for r in found:
            if r["metric"] == "nll" and size:
                r["bits_per_byte"] = r["value"] * batches.tokens / math.log(2) / size
        rows += [
            records.row(str(reference), step=reference.step, tokens=batches.tokens, **r)
            for r in found
        ]
        total += batches.tokens
        show(rows[-len(found) :])
    meta = provenance.collect(command, dataclasses.asdict(options), started, total)
    meta["metrics"] = records.describe(metric.quantities)
    records.write_rows(options.out, rows, meta)
    say(f"wrote {len(rows)} rows to {options.out}")


def _text_bytes(tokenizer, ids) -> int:
    """Bytes of UTF-8 of the predicted text; what stands between documents is not in it."""
    return len(tokenizer.decode(ids[ids != tokenizer.end_of_text]).encode("utf-8", "replace"))


def gradients(options: Gradients, command: list[str]) -> None:
    """`lmdyn gradients`. Args: options: `lmdyn.cli.options.Gradients`. command: the words of the
    command line, for the record.
    """
    started = time.time()
    at_least(1, options, "limit", "length", "tokens", "batch", "resamples")
    at_least(2, options, "spans")
    at_least(0, options, "seed")
    check_writable(options.out)
    set_up_jax()
    from lmdyn import checkpoints, data, models
    from lmdyn.metrics import localization
    from lmdyn.records import provenance

    documents = data.documents(options.reference)
    kinds = localization.by_kind(
        [probe for ref in options.probe for probe in data.read_probes(ref)], options.limit
    )
    references = [r for ref in options.models for r in checkpoints.series(ref)]
    groups = [group.strip() for group in options.groups.split(",") if group.strip()]
    if not groups:
        raise InputError("--groups names nothing; give for example attention,mlp")
    rows, total = [], 0
    for number, reference in enumerate(references, 1):
        say(f"{reference}" + (f" ({number} of {len(references)})" if len(references) > 1 else ""))
        loaded = checkpoints.load(reference, models.Compute(dtype=options.dtype), packed=True)
        data.check_vocabulary(loaded.tokenizer, loaded.model.config)
        encoded, random = localization.sequences(
            kinds,
            documents,
            loaded.tokenizer,
            options.spans,
            length=options.length,
            tokens=options.tokens,
            seed=options.seed,
        )
        check_positions(loaded.model.config, length=random.inputs.shape[1])
        found = localization.locate(
            loaded.model,
            loaded.params,
            encoded,
            random,
            groups=groups,
            batch=options.batch,
            resamples=options.resamples,
            seed=options.seed,
            progress=True,
        )
        own = [records.row(str(reference), step=reference.step, **r) for r in found.rows()]
        _show_profiles(own, groups)
        rows += own
        total += sum(int(batch.mask.sum()) for batch in (*encoded.values(), random))
    meta = provenance.collect(command, dataclasses.asdict(options), started, total, options.seed)
    meta["metrics"] = records.describe(localization.QUANTITIES)
    records.write_rows(options.out, rows, meta)
    say(f"wrote {len(rows)} rows to {options.out}")


def _show_profiles(rows, groups):
    """Relative norms by layer, a column for each kind and group, on stdout; and what the tests say."""
    found = [r for r in rows if r["metric"] == "relative_gradient_norm"]
    kinds = list(dict.fromkeys(r["kind"] for r in found))
    value = {(r["kind"], r["site"], r["layer"]): r for r in found}
    columns = [(kind, group) for group in groups for kind in kinds]
    heads = [f"{kind} {group}" if len(kinds) > 1 else group for kind, group in columns]
    wide = max(11, *map(len, heads)) + 2
    print("relative gradient norm".ljust(24) + "".join(head.rjust(wide) for head in heads))
    for layer in sorted({r["layer"] for r in found}, key=lambda n: -1 if n is None else n):
        cells = [value.get((*column, layer)) for column in columns]
        name = "whole" if layer is None else f"layer {layer}"
        print(
            name.ljust(24)
            + "".join(("" if c is None else f"{c['value']:.3f}").rjust(wide) for c in cells),
            flush=True,
        )
    for r in rows:
        if r["metric"] == "profile_difference" and r["layer"] is None and r["site"] is None:
            print(
                f"{' against '.join(r['kinds'])}: profiles differ by {r['value']:.3f} (log share),"
                f" p = {r['p']:.2g}",
                flush=True,
            )
