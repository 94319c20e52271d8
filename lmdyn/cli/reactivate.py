"""`lmdyn reactivate`: a changed checkpoint, measured before and after."""

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

from lmdyn import records
from lmdyn.cli import common
from lmdyn.errors import InputError, check_least
from lmdyn.files import check_new_folder
from lmdyn.types import Row


@dataclasses.dataclass(frozen=True)
class Reactivate:
    """Scale up the MLP coefficients that a model uses least, without training.

    In each layer, those below a quantile of their mean size over the text are brought to the
    layer's mean (times a gain) by a change of weights: exactly in gated MLPs, approximately in
    plain ones. The model is measured before and after; the changed model is a Hugging Face folder.
    """

    model: common.Model
    data: common.Text
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """A new folder for the changed model; the measurements go to reactivation.json in it."""
    ratio: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.5
    """The share of a layer's coefficients that is scaled, 0 to 1."""
    gain: Annotated[float, tyro.conf.arg(metavar="FACTOR")] = 1.0
    """They are brought to this many times the layer's mean."""
    control: Literal["none", "random"] = "none"
    """random: as many coefficients, chosen at random, to compare with."""
    strength: Literal["equal", "entropy"] = "equal"
    """entropy: more of them where a layer's entropy is low, with SHARE as the mean over layers."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Seed of the random control."""
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


OPTIONS = Reactivate


def run(options: Reactivate, command: list[str]) -> None:
    """Measures a model, reactivates it, measures it again, and writes it as a folder.

    Args:
      options: of the verb.
      command: the words of the command line, for the provenance.
    """
    started = time.time()
    _check(options)
    common.set_up_jax()
    import numpy as np

    from lmdyn import checkpoints, data, metrics, models, transforms
    from lmdyn.checkpoints.hf_config import write_config
    from lmdyn.records import provenance

    documents = data.documents(options.data, options.on_bad_document)
    reference = checkpoints.parse(options.model)
    common.say(f"{reference}")
    compute, end = models.Compute(dtype=options.dtype), options.end_of_text
    loaded = checkpoints.load(reference, compute, end_of_text=end, pre=options.pre)
    model, params, tokenizer = loaded.model, loaded.params, loaded.tokenizer
    reading = tokenizer.with_bos(options.bos)
    data.check_vocabulary(tokenizer, model.config)
    models.check_positions(model.config, options.length)
    family = write_config(model.config)["model_type"]
    windows = (options.length, options.batch, options.tokens)
    batches = data.batches(documents, reading, *windows, progress=True)
    metric = metrics.combine(nll=metrics.likelihood(), entropy=metrics.knowledge_entropy())
    before = metrics.measure(metric, model, params, batches, progress=True)
    coefficients = before["entropy"].coefficients
    chosen = transforms.choose_coefficients(
        coefficients, options.ratio, options.control, options.strength, options.seed
    )
    params = transforms.reactivate(params, coefficients, gain=options.gain, chosen=chosen)
    after = metrics.measure(metric, model, params, batches, progress=True)
    with np.errstate(invalid="ignore"):  # a layer whose coefficients are all 0 has no entropy
        rows = [
            records.row(
                model=str(reference), **reference.fields(), tokens=batches.tokens, when=when, **r
            )
            for when, results in (("before", before), ("after", after))
            for r in metric.rows(results)
        ]
    _check_finite(rows, options.gain)
    seed = options.seed if options.control == "random" else None
    config = dataclasses.asdict(options)
    notes = {
        **provenance.collect(command, config, started, 2 * batches.tokens, seed),
        "chosen": chosen.sum(1).tolist(),
        "zero": (coefficients == 0).sum(1).tolist(),
        "special_tokens": {str(reference): reading.special_tokens()},
        "rows": rows,
    }
    text = json.dumps(notes, indent=1) + "\n"
    checkpoints.export(model, params, tokenizer, options.out, {"reactivation.json": text})
    zero = np.count_nonzero(chosen & (coefficients == 0))
    common.say(
        f"{chosen.sum()} of {chosen.size} coefficients scaled"
        + (f", except {zero} that are 0 and stay 0" if zero else "")
    )
    _show_change(rows)
    common.say(f"wrote {options.out}, a {family} model; dir:{options.out} names it")


def _check(options: Reactivate) -> None:
    """Raises an `InputError` for what can be wrong before anything is imported or read."""
    check_least(options, "--", length=1, batch=1, tokens=1, seed=0)
    if not 0 <= options.ratio <= 1:
        raise InputError(f"--ratio {options.ratio}: a ratio is between 0 and 1")
    if not 0 < options.gain < math.inf:
        raise InputError(f"--gain {options.gain}: a gain is a number above 0")
    check_new_folder(options.out)


def _check_finite(rows: Sequence[Row], gain: float) -> None:
    """Raises an `InputError` for the first value that is not a finite number."""
    for r in rows:
        if not math.isfinite(r["value"]):
            remedy = (
                f"lower --gain (now {gain})"
                if r["when"] == "after"
                else "is a layer of the checkpoint all zeros?"
            )
            raise InputError(f"{r['metric']} is {r['value']} {r['when']} reactivation; {remedy}")


def _show_change(rows: Sequence[Row]) -> None:
    """Prints the whole-model values before and after."""
    print(f"{'':32} {'before':>12} {'after':>12}")
    whole = [r for r in rows if r["layer"] is None]
    for old, new in zip(whole[: len(whole) // 2], whole[len(whole) // 2 :], strict=True):
        name = old["metric"] + (f" {old['site']}" if old["site"] else "")
        print(f"{name:32} {old['value']:12.5g} {new['value']:12.5g} {old['unit']}", flush=True)
