"""`lmdyn online`: static and dynamic evaluation of one stream."""

import dataclasses
import math
import os
import time
from typing import Annotated, Literal

import tyro

from lmdyn import records
from lmdyn.cli.common import Dtype, Model, Text, Tokens, mesh_of, say, set_up_jax, show
from lmdyn.errors import InputError, check_least, choose
from lmdyn.files import check_writable
from lmdyn.types import present

OPTIMIZERS = ("sgd", "momentum", "adam", "adam0", "adamw", "rmsprop", "adagrad", "lion", "rms")


@dataclasses.dataclass(frozen=True)
class Online:
    """Adapt a model online to a text, and compare it with itself unadapted.

    The text is cut into chunks. Each chunk is scored first, and then the model takes one optimizer
    step on it, so no token is scored by a model that has seen it.
    """

    model: Model
    data: Text
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Where to write the rows, as JSON Lines; their provenance goes to FILE.meta.json, every token's
    nll to FILE.trace.npz."""
    chunk: Annotated[int, tyro.conf.arg(metavar="C")] = 512
    """Predictions between two updates."""
    context: Literal["none", "cache", "overlap"] = "none"
    """What a chunk sees of the text before it: nothing, a cache of old keys and values, or a window
    encoded afresh."""
    window: Annotated[int | None, tyro.conf.arg(metavar="W", help_behavior_hint="")] = None
    """Tokens of the cache or the window; needed with them."""
    keep: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """First tokens of the text that a cache always keeps; 4 are enough."""
    optimizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "sgd"
    """sgd, momentum, adam, adam0 (without momentum), adamw, rmsprop, adagrad, lion (optax); or rms:
    the gradient over its root mean square on training text (Krause et al. 2018), see
    --statistics."""
    learning_rate: Annotated[float, tyro.conf.arg(metavar="RATE", aliases=["--lr"])] = 0.01
    """0.01 suits sgd; the others need a much lower one (adam: 1e-5)."""
    learning_rates: Annotated[
        str | None, tyro.conf.arg(metavar="A,B,...", aliases=["--rates"], help_behavior_hint="")
    ] = None
    """Learning rates to choose from, in place of --learning-rate: the one that is best on the first
    --prefix predictions."""
    prefix: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Predictions that the learning rate is chosen on; the others are not looked at."""
    decay: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.0
    """Share of the way back to the unadapted parameters that every update takes."""
    statistics: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Root mean square of the gradient for --optimizer rms; made from --training if there is
    no such file yet."""
    training: Annotated[str | None, tyro.conf.arg(metavar="REF", help_behavior_hint="")] = None
    """Text like the model's training text; --batches of one chunk of it give the statistics."""
    batches: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Batches of --training."""
    adapt: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="SELECTOR", help_behavior_hint="(default: all; blocks.mlp with --rank)"
        ),
    ] = None
    """Which parameters change: all, blocks[10:20].mlp, head, ... joined by +."""
    rank: Annotated[int | None, tyro.conf.arg(metavar="R", help_behavior_hint="")] = None
    """Adapt low-rank adapters of this rank beside the selected matrices, in place of these."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Optimizer steps per chunk."""
    every: Annotated[int, tyro.conf.arg(metavar="K")] = 1
    """Update only after every K-th chunk, by the mean gradient of the last K."""
    reset: Literal["never", "document", "change"] = "never"
    """When the model returns to its unadapted parameters: change is where a detector finds that
    what was learned no longer helps."""
    guard: Annotated[float | None, tyro.conf.arg(metavar="NATS", help_behavior_hint="")] = None
    """Stop adapting once it has lost this many nats in total against the unadapted model."""
    parallel: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """With --reset document: how many documents are read side by side, each with its own copy of
    what adapts."""
    tokens: Tokens = None
    static: bool = True
    """Also score the text with the unadapted model."""
    dtype: Dtype = "auto"
    mesh: Annotated[
        str | None, tyro.conf.arg(metavar="DATA,FSDP,TENSOR", help_behavior_hint="")
    ] = None
    """Several devices: how many along each axis; 1,8,1 divides parameters by width. By default one
    device is used."""


OPTIONS = Online


def run(options: Online, command: list[str]) -> None:
    """Scores the text with the model as it is and with the adapted one, and writes what it found.

    Args:
      options: of the verb.
      command: the words of the command line, for the provenance.
    """
    started = time.time()
    _check_online(options)
    check_writable(options.out)
    set_up_jax()
    import numpy as np

    from lmdyn import checkpoints, data, models
    from lmdyn import online as adaptation
    from lmdyn.online import contexts
    from lmdyn.params import low_rank, select
    from lmdyn.records import provenance

    documents = data.documents(options.data)
    reference = checkpoints.parse(options.model)
    context = _context(adaptation, options)
    mesh = mesh_of(options, rows=None)
    say(f"{reference}")
    loaded = checkpoints.load(reference, models.Compute(dtype=options.dtype))
    data.check_vocabulary(loaded.tokenizer, loaded.model.config)
    contexts.check(context, options.chunk, loaded.model.config)
    adapt = options.adapt or ("all" if options.rank is None else "blocks.mlp")
    if options.rank is not None:
        adapt = low_rank(adapt, rank=options.rank)
        adapt.partition(loaded.params)
    else:
        select(loaded.params, adapt)
    if mesh is not None:
        from lmdyn.training import sharding as meshes

        loaded = loaded._replace(params=meshes.shard(loaded.params, mesh, loaded.model.config))
    docs = data.tokenize(documents, loaded.tokenizer, options.tokens, progress=True)
    end = loaded.tokenizer.end_of_text
    reset = adaptation.change() if options.reset == "change" else options.reset
    if options.reset != "document":
        data.windows(
            data.join(docs, end), options.chunk, tokens=options.tokens
        )  # refuses a text shorter than one chunk
    stream = adaptation.stream(
        docs,
        chunk=options.chunk,
        context=context,
        reset="document" if options.reset == "document" else "never",
        end_of_text=end,
        tokens=options.tokens,
    )
    run = {"chunk": options.chunk, "context": context, "progress": True}
    outcomes, about = {}, {}
    if options.static:
        outcomes["static"] = adaptation.evaluate(
            loaded.model, loaded.params, stream, optimizer=None, reset="document", **run
        )
    rule = _online_rule(options, loaded, adapt)
    run |= {
        "adapt": adapt,
        "reset": reset,
        "steps": options.steps,
        "every": options.every,
        "guard": options.guard,
    }
    if options.static and (options.guard is not None or options.reset == "change"):
        run["static"] = outcomes["static"].nll
    if options.learning_rates is None:
        outcomes["online"] = adaptation.evaluate(
            loaded.model,
            loaded.params,
            stream,
            optimizer=rule(options.learning_rate),
            parallel=options.parallel,
            donate=True,
            **run,
        )
        about["rate"] = options.learning_rate
    else:
        found = adaptation.choose_rate(
            loaded.model,
            loaded.params,
            stream,
            rule=rule,
            rates=_numbers("learning-rates", options.learning_rates),
            prefix=present(options.prefix),
            donate=True,
            **run,
        )
        outcomes["online"] = found.outcome
        tried = ", ".join(f"{rate:g}: {nll:.4f}" for rate, nll in found.tried.items())
        say(f"rate {found.rate:g} chosen on the first {found.prefix:,} predictions ({tried} nats)")
        about |= {
            "rate": found.rate,
            "prefix": found.prefix,
            "tried": {f"{k:g}": v if math.isfinite(v) else None for k, v in found.tried.items()},
        }
    traces, rows, costs = {}, [], []
    for name, outcome in outcomes.items():
        trace = np.asarray(outcome.nll, np.float32)
        bad = np.flatnonzero(~np.isfinite(trace))
        if len(bad):
            mend = (
                f"; lower --learning-rate (now {about['rate']})"
                if name == "online"
                else "; are there numbers in the checkpoint that are not finite?"
            )
            raise InputError(
                f"{name} nll is {trace[bad[0]]} at prediction {bad[0]} of {len(trace)}{mend}"
            )
        mean = lambda part: float(part.mean(dtype=np.float64))
        told = {"step": reference.step, "tokens": len(trace)}
        extra = {"perplexity": math.exp(min(mean(trace), 700))}
        if "prefix" in about:
            extra["after_prefix"] = mean(trace[about["prefix"] :])
        if name == "online":
            extra |= about | {"resets": list(outcome.resets), "stopped": outcome.stopped}
        rows.append(
            records.row(str(reference), f"{name}_nll", mean(trace), "nats", **extra, **told)
        )
        costs.append(
            records.row(str(reference), "flops", float(outcome.flops), "flops", site=name, **told)
        )
        traces[name] = trace
    if outcomes["online"].resets:
        say(
            "the detector reset the model after"
            f" {', '.join(f'{n:,}' for n in outcomes['online'].resets)} predictions"
        )
    if outcomes["online"].stopped is not None:
        say(
            f"adaptation lost {options.guard:g} nats and was stopped after"
            f" {outcomes['online'].stopped:,} predictions; lower --learning-rate (now"
            f" {about['rate']:g})"
        )
    show(rows)
    meta = provenance.collect(
        command, dataclasses.asdict(options), started, sum(map(len, traces.values()))
    )
    records.write_rows(options.out, rows + costs, meta, traces)
    say(f"wrote {len(rows + costs)} rows to {options.out}")


def _check_online(options) -> None:
    """Raises an `InputError` for options that are wrong, before anything is imported."""
    ones = ("chunk", "window", "tokens", "prefix", "rank", "steps", "every", "parallel", "batches")
    check_least(options, "--", **dict.fromkeys(ones, 1), keep=0)
    for name in ("learning_rate", "decay", "guard"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"--{name.replace('_', '-')} {value}: give 0 or a positive number")
    choose("optimizer", options.optimizer, OPTIMIZERS)
    if options.context == "none" and options.window is not None:
        raise InputError(
            f"--window {options.window} without a context; add --context cache or --context overlap"
        )
    if options.context != "none" and options.window is None:
        raise InputError(
            f"--context {options.context} needs a window; add --window W, for example --window"
            f" {options.chunk}"
        )
    if options.keep and options.context != "cache":
        raise InputError(f"--keep {options.keep} is for --context cache")
    if (options.learning_rates is None) != (options.prefix is None):
        raise InputError(
            "--learning-rates and --prefix belong together: what to choose from, and how many"
            " predictions to choose on"
        )
    if options.learning_rates is not None:
        _numbers("learning-rates", options.learning_rates)
    if options.parallel > 1 and (
        options.reset != "document"
        or options.guard is not None
        or options.learning_rates is not None
    ):
        raise InputError(
            f"--parallel {options.parallel}: documents side by side need --reset document, and"
            " neither --guard nor --learning-rates"
        )
    if options.optimizer == "rms" and (options.rank is not None or options.statistics is None):
        raise InputError(
            "--optimizer rms needs --statistics FILE, of the parameters themselves (no --rank)"
        )
    if (
        options.optimizer == "rms"
        and options.training is None
        and not os.path.exists(options.statistics)
    ):
        raise InputError(
            f"--statistics {options.statistics} is not there yet; add --training REF, a text to"
            " make them from"
        )
    if options.optimizer != "rms" and (
        options.statistics is not None or options.training is not None
    ):
        raise InputError("--statistics and --training are for --optimizer rms")


def _online_rule(options, loaded, adapt):
    """`rate -> optimizer`."""
    import optax

    from lmdyn import data, transforms
    from lmdyn.params import partition

    rms = None
    if options.optimizer == "rms":
        if os.path.exists(options.statistics):
            found = transforms.load_rms(options.statistics)
        else:
            say(
                f"gradients of {options.batches} batches of {options.chunk} tokens of"
                f" {options.training}"
            )
            batches = data.batches(
                options.training,
                loaded.tokenizer,
                options.chunk,
                1,
                options.batches * options.chunk,
            )
            found = transforms.gradient_rms(loaded.model, loaded.params, batches, progress=True)
            transforms.save_rms(options.statistics, found)
        rms = found.of(partition(loaded.params, adapt))

    def rule(rate):
        if rms is not None:
            scaled = optax.chain(
                transforms.scale_by_prior_rms(rms, rms.mean / 2), optax.scale_by_learning_rate(rate)
            )
        elif options.optimizer == "momentum":
            scaled = optax.sgd(rate, momentum=0.9)
        elif options.optimizer == "adam0":
            scaled = optax.adam(rate, b1=0.0)
        else:
            scaled = getattr(optax, options.optimizer)(rate)
        return (
            optax.chain(scaled, transforms.decay_to_prior(options.decay, rms))
            if options.decay
            else scaled
        )

    rule(1.0)  # refuses a decay out of range
    return rule


def _context(adaptation, options):
    if options.context == "cache":
        return adaptation.cache(options.window, options.keep)
    return adaptation.none() if options.context == "none" else adaptation.overlap(options.window)


def _numbers(name: str, text: str) -> list[float]:
    """The numbers of `--NAME A,B,...`."""
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        raise InputError(
            f"--{name} {text}: give numbers joined by commas, such as 0.003,0.01,0.03"
        ) from None
    if not all(0 <= number < math.inf for number in found):
        raise InputError(f"--{name} {text}: each is 0 or a positive number")
    return found
