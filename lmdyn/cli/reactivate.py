"""`lmdyn reactivate`: a changed checkpoint, measured before and after."""

import dataclasses
import json
import math
import time

from lmdyn import records
from lmdyn.cli.common import at_least, check_positions, say, set_up_jax
from lmdyn.cli.options import Reactivate
from lmdyn.errors import InputError
from lmdyn.files import check_new_folder


def reactivate(options: Reactivate, command: list[str]) -> None:
    """`lmdyn reactivate`. Args: options: `lmdyn.cli.options.Reactivate`. command: the words of the
    command line, for the record.
    """
    started = time.time()
    at_least(1, options, "length", "batch", "tokens")
    at_least(0, options, "seed")
    if not 0 <= options.ratio <= 1:
        raise InputError(f"--ratio {options.ratio}: a ratio is between 0 and 1")
    if not 0 < options.gain < math.inf:
        raise InputError(f"--gain {options.gain}: a gain is a number above 0")
    check_new_folder(options.out)
    set_up_jax()
    import numpy as np

    from lmdyn import checkpoints, data, metrics, models, transforms
    from lmdyn.checkpoints.hf_config import write_config
    from lmdyn.records import provenance

    documents = data.documents(options.data)
    reference = checkpoints.parse(options.model)
    say(f"{reference}")
    loaded = checkpoints.load(reference, models.Compute(dtype=options.dtype))
    model, config = loaded.model, loaded.model.config
    data.check_vocabulary(loaded.tokenizer, config)
    check_positions(config, length=options.length)
    write_config(config)  # refuses a model that could not be exported
    batches = data.batches(
        documents, loaded.tokenizer, options.length, options.batch, options.tokens, progress=True
    )
    metric = metrics.combine(nll=metrics.likelihood(), entropy=metrics.knowledge_entropy())
    before = metrics.measure(metric, model, loaded.params, batches, progress=True)
    coefficients = before["entropy"].coefficients
    chosen = transforms.choose_coefficients(
        coefficients, options.ratio, options.control, options.strength, options.seed
    )
    params = transforms.reactivate(loaded.params, coefficients, gain=options.gain, chosen=chosen)
    after = metrics.measure(metric, model, params, batches, progress=True)
    with np.errstate(invalid="ignore"):  # a layer whose coefficients are all 0 has no entropy
        rows = [
            records.row(str(reference), step=reference.step, tokens=batches.tokens, when=when, **r)
            for when, results in (("before", before), ("after", after))
            for r in metric.rows(results)
        ]
    for r in rows:
        if not math.isfinite(r["value"]):
            mend = (
                f"lower --gain (now {options.gain})"
                if r["when"] == "after"
                else "is a layer of the checkpoint all zeros?"
            )
            raise InputError(f"{r['metric']} is {r['value']} {r['when']} reactivation; {mend}")
    random = options.control == "random"
    meta = provenance.collect(
        command,
        dataclasses.asdict(options),
        started,
        2 * batches.tokens,
        options.seed if random else None,
    )
    notes = {
        **meta,
        "chosen": chosen.sum(1).tolist(),
        "zero": (coefficients == 0).sum(1).tolist(),
        "rows": rows,
    }
    text = json.dumps(notes, indent=1) + "\n"
    checkpoints.export(model, params, loaded.tokenizer, options.out, {"reactivation.json": text})
    zero = np.count_nonzero(chosen & (coefficients == 0))
    say(
        f"{chosen.sum()} of {chosen.size} coefficients scaled"
        + (f", but for {zero} that are 0 and stay so" if zero else "")
    )
    _show_change(rows)
    say(f"wrote {options.out}; dir:{options.out} names the changed model")


def _show_change(rows):
    """The whole-model values before and after, on stdout."""
    print(f"{'':32} {'before':>12} {'after':>12}")
    whole = [r for r in rows if r["layer"] is None]
    for old, new in zip(whole[: len(whole) // 2], whole[len(whole) // 2 :], strict=True):
        name = old["metric"] + (f" {old['site']}" if old["site"] else "")
        print(f"{name:32} {old['value']:12.5g} {new['value']:12.5g} {old['unit']}", flush=True)
