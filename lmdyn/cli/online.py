"""`lmdyn online`: static and dynamic evaluation of one stream."""

import dataclasses
import math
import os
import time

from lmdyn import records
from lmdyn.cli.common import at_least, mesh_of, numbers, say, set_up_jax, show
from lmdyn.cli.options import Online
from lmdyn.errors import InputError, choose
from lmdyn.files import check_writable
from lmdyn.params import low_rank, partition, select
from lmdyn.types import present

OPTIMIZERS = ("sgd", "momentum", "adam", "adam0", "adamw", "rmsprop", "adagrad", "lion", "rms")


def online(options: Online, command: list[str]) -> None:
    """`lmdyn online`. Args: options: `lmdyn.cli.options.Online`. command: the words of the command
    line, for the record.
    """
    started = time.time()
    _check_online(options)
    check_writable(options.out)
    set_up_jax()
    import numpy as np

    from lmdyn import checkpoints, data, models
    from lmdyn import online as adaptation
    from lmdyn.online import contexts
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
    if options.rates is None:
        outcomes["online"] = adaptation.evaluate(
            loaded.model,
            loaded.params,
            stream,
            optimizer=rule(options.lr),
            parallel=options.parallel,
            donate=True,
            **run,
        )
        about["rate"] = options.lr
    else:
        found = adaptation.choose_rate(
            loaded.model,
            loaded.params,
            stream,
            rule=rule,
            rates=numbers("rates", options.rates),
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
                f"; lower --lr (now {about['rate']})"
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
            f" {outcomes['online'].stopped:,} predictions; lower --lr (now {about['rate']:g})"
        )
    show(rows)
    meta = provenance.collect(
        command, dataclasses.asdict(options), started, sum(map(len, traces.values()))
    )
    records.write_rows(options.out, rows + costs, meta, traces)
    say(f"wrote {len(rows + costs)} rows to {options.out}")


def _check_online(options) -> None:
    """What can be wrong with the options of `lmdyn online`, looked for before anything is imported."""
    at_least(
        1,
        options,
        "chunk",
        "window",
        "tokens",
        "prefix",
        "rank",
        "steps",
        "every",
        "parallel",
        "batches",
    )
    at_least(0, options, "keep")
    for name in ("lr", "decay", "guard"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < math.inf:
            what = {"lr": "a learning rate", "decay": "a share", "guard": "what may be lost"}[name]
            raise InputError(f"--{name} {value}: {what} is 0 or a positive number")
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
    if (options.rates is None) != (options.prefix is None):
        raise InputError(
            "--rates and --prefix belong together: rates to choose from, and how many predictions"
            " to choose on"
        )
    if options.rates is not None:
        numbers("rates", options.rates)
    if options.parallel > 1 and (
        options.reset != "document" or options.guard is not None or options.rates is not None
    ):
        raise InputError(
            f"--parallel {options.parallel}: documents side by side need --reset document, and"
            " neither --guard nor --rates"
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
