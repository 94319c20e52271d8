"""`lmdyn online`: static and dynamic evaluation of one stream."""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from lmdyn import records
from lmdyn.cli import common
from lmdyn.cli.online_options import OPTIMIZERS, Online
from lmdyn.errors import InputError, check_least, choose
from lmdyn.files import check_writable
from lmdyn.types import present

if TYPE_CHECKING:
    from lmdyn.online import ChunkStream, OnlineConfig

OPTIONS = Online


def run(options: Online, command: list[str]) -> None:
    """Scores the text with the model as it is and with the adapted one, and writes what it found.

    Args:
      options: of the verb.
      command: the words of the command line, for the provenance.
    """
    started = time.time()
    _check(options)
    rates = _learning_rates(options)
    check_writable(options.out)
    common.set_up_jax()
    plan = _plan(options)
    outcomes, about = _evaluate(options, plan, rates)
    rows, traces = _rows(plan, outcomes, about)
    _say_events(options, outcomes["online"], about["rate"])
    common.show(rows)
    rows += _costs(plan, outcomes)
    tokens = sum(map(len, traces.values()))
    special = {str(plan.reference): plan.loaded.tokenizer.special_tokens()}
    notes = {"special_tokens": special}
    common.write(options, command, started, rows, tokens, traces=traces, notes=notes)


class _Plan(NamedTuple):
    """A model, a text, and how one is adapted to the other."""

    reference: Any
    loaded: Any
    stream: "ChunkStream"
    config: "OnlineConfig"
    part: Any


def _plan(options: Online) -> _Plan:
    """Reads model and text, and refuses what does not fit together before the long work."""
    from lmdyn import checkpoints, data, models, online
    from lmdyn.online.contexts import check_reach

    documents = data.documents(options.data, options.on_bad_document)
    reference = checkpoints.parse(options.model)
    config = _config(options)
    mesh = common.mesh_of(options, rows=None)
    common.say(f"{reference}")
    loaded = checkpoints.load(
        reference,
        models.Compute(dtype=options.dtype),
        end_of_text=options.end_of_text,
        pre=options.pre,
    )
    loaded = loaded._replace(tokenizer=loaded.tokenizer.with_bos(options.bos))
    data.check_vocabulary(loaded.tokenizer, loaded.model.config)
    check_reach(config.context, config.chunk, loaded.model.config)
    part = config.partition(loaded.params)
    if mesh is not None:
        from lmdyn.training.sharding import shard

        loaded = loaded._replace(params=shard(loaded.params, mesh, loaded.model.config))
    docs = data.tokenize(documents, loaded.tokenizer, options.tokens, progress=True)
    config = dataclasses.replace(
        config, end_of_text=loaded.tokenizer.end_of_text, first=loaded.tokenizer.window_token
    )
    stream = online.chunk_stream(docs, config)
    least = min(options.chunk, options.tokens or options.chunk)
    if options.reset != "document" and stream.tokens < least:
        raise InputError(
            f"the text has {stream.tokens + 1} tokens, and one chunk of {least} predictions needs"
            f" {least + 1}; give more text, or --chunk {stream.tokens} or less"
        )
    return _Plan(reference, loaded, stream, config, part)


def _config(options: Online) -> "OnlineConfig":
    """The options as the library takes them."""
    from lmdyn import online
    from lmdyn.params import low_rank

    context = online.none()
    if options.context == "cache":
        context = online.cache(present(options.window), options.keep)
    elif options.context == "overlap":
        context = online.overlap(present(options.window))
    adapt = options.adapt or ("all" if options.rank is None else "blocks.mlp")
    return online.OnlineConfig(
        chunk=options.chunk,
        context=context,
        adapt=adapt if options.rank is None else low_rank(adapt, rank=options.rank),
        steps=options.steps,
        every=options.every,
        reset=online.ChangeDetector() if options.reset == "change" else options.reset,
        guard=options.guard,
        parallel=options.parallel,
        tokens=options.tokens,
    )


def _evaluate(options: Online, plan: _Plan, rates: list[float] | None) -> tuple[dict, dict]:
    """Outcomes by name, `static` and `online`; and how the learning rate came about."""
    from lmdyn import online

    model, params, config = plan.loaded.model, plan.loaded.params, plan.config
    outcomes: dict[str, Any] = {}
    if options.static:
        plain = online.OnlineConfig(config.chunk, config.context, reset="document")
        outcomes["static"] = online.evaluate(
            model, params, plan.stream, config=plain, progress=True
        )
    rule = _rule(options, plan)
    static = outcomes["static"].nll if options.static and config.compares else None
    if rates is None:
        outcomes["online"] = online.evaluate(
            model,
            params,
            plan.stream,
            rule(options.learning_rate),
            config,
            static=static,
            progress=True,
            donate=True,
        )
        return outcomes, {"rate": options.learning_rate}
    search = online.LearningRateSearch(rule, rates, present(options.prefix))
    found = online.choose_learning_rate(
        model, params, plan.stream, search, config, static=static, progress=True, donate=True
    )
    outcomes["online"] = found.outcome
    tried = ", ".join(f"{rate:g}: {nll:.4f}" for rate, nll in found.tried.items())
    common.say(
        f"learning rate {found.learning_rate:g} chosen on the first {found.prefix:,} predictions"
        f" ({tried} nats)"
    )
    return outcomes, {
        "rate": found.learning_rate,
        "prefix": found.prefix,
        "tried": {f"{k:g}": v if math.isfinite(v) else None for k, v in found.tried.items()},
    }


def _rows(plan: _Plan, outcomes: dict, about: dict) -> tuple[list[dict], dict]:
    """The rows of nll, and every token's nll by name.

    Raises:
      InputError: an nll that is not a number.
    """
    import numpy as np

    mean = lambda nll: float(nll.mean(dtype=np.float64))
    traces, rows = {}, []
    for name, outcome in outcomes.items():
        traces[name] = trace = np.asarray(outcome.nll, np.float32)
        bad = np.flatnonzero(~np.isfinite(trace))
        if len(bad):
            remedy = (
                f"lower --learning-rate (now {about['rate']})"
                if name == "online"
                else "are there numbers in the checkpoint that are not finite?"
            )
            raise InputError(
                f"{name} nll is {trace[bad[0]]} at prediction {bad[0]} of {len(trace)}; {remedy}"
            )
        more = {"perplexity": math.exp(min(mean(trace), 700))}
        if "prefix" in about:
            more["after_prefix"] = mean(trace[about["prefix"] :])
        if name == "online":
            more |= about | {"resets": list(outcome.resets), "stopped": outcome.stopped}
        rows.append(_row(plan, f"{name}_nll", mean(trace), "nats", len(trace), **more))
    return rows, traces


def _costs(plan: _Plan, outcomes: dict) -> list[dict]:
    """The rows of FLOPs."""
    return [
        _row(plan, "flops", float(outcome.flops), "flops", len(outcome.nll), site=name)
        for name, outcome in outcomes.items()
    ]


def _row(plan: _Plan, metric: str, value: float, unit: str, tokens: int, **more: Any) -> dict:
    reference = plan.reference
    more |= {**reference.fields(), "tokens": tokens}
    return records.row(metric, value, unit, model=str(reference), **more)


def _say_events(options: Online, outcome: Any, rate: float) -> None:
    if outcome.resets:
        after = ", ".join(f"{count:,}" for count in outcome.resets)
        common.say(f"the detector reset the model after {after} predictions")
    if outcome.stopped is not None:
        common.say(
            f"adaptation lost {options.guard:g} nats and was stopped after {outcome.stopped:,}"
            f" predictions; lower --learning-rate (now {rate:g})"
        )


def _rule(options: Online, plan: _Plan) -> Callable[[float], Any]:
    """`learning rate -> optimizer`."""
    import optax

    from lmdyn import transforms

    rms = _statistics(options, plan).of(plan.part) if options.optimizer == "rms" else None

    def scaled_by_rms(rate):
        scale = transforms.scale_by_prior_rms(present(rms), present(rms).mean / 2)
        return optax.chain(scale, optax.scale_by_learning_rate(rate))

    named = {
        "momentum": functools.partial(optax.sgd, momentum=0.9),
        "adam0": functools.partial(optax.adam, b1=0.0),
        "muon": lambda rate: optax.chain(
            transforms.scale_by_muon(), optax.scale_by_learning_rate(rate)
        ),
        "rms": scaled_by_rms,
    }
    rule = named.get(options.optimizer) or getattr(optax, options.optimizer)
    if not options.decay:
        return rule
    return lambda rate: optax.chain(rule(rate), transforms.decay_to_prior(options.decay, rms))


def _statistics(options: Online, plan: _Plan) -> Any:
    """Root mean square gradients, from their file, or made and written there."""
    from lmdyn import data, transforms

    path, loaded = present(options.statistics), plan.loaded
    if os.path.exists(path):
        return transforms.load_rms(path)
    common.say(
        f"gradients of {options.batches} batches of {options.chunk} tokens of {options.training}"
    )
    tokens = options.batches * options.chunk
    batches = data.batches(present(options.training), loaded.tokenizer, options.chunk, 1, tokens)
    found = transforms.gradient_rms(loaded.model, loaded.params, batches, progress=True)
    transforms.save_rms(path, found)
    return found


def _check(options: Online) -> None:
    """Refuses options that are out of range or exclude each other, before anything is imported."""
    ones = ("chunk", "window", "tokens", "prefix", "rank", "steps", "every", "parallel", "batches")
    check_least(options, "--", **dict.fromkeys(ones, 1), keep=0)
    for name, most in (("learning_rate", math.inf), ("decay", 1.0), ("guard", math.inf)):
        value = getattr(options, name)
        if value is not None and not (0 <= value <= most and value < math.inf):
            limit = "a share from 0 to 1" if most == 1 else "0 or a positive number"
            raise InputError(f"--{name.replace('_', '-')} {value}: give {limit}")
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
    if options.parallel > 1 and (
        options.reset != "document"
        or options.guard is not None
        or options.learning_rates is not None
    ):
        raise InputError(
            f"--parallel {options.parallel}: documents side by side need --reset document, and"
            " neither --guard nor --learning-rates"
        )
    _check_optimizer(options)


def _check_optimizer(options: Online) -> None:
    choose("optimizer", options.optimizer, OPTIMIZERS)
    if options.optimizer != "rms":
        if options.statistics is not None or options.training is not None:
            raise InputError("--statistics and --training are for --optimizer rms")
        return
    if options.rank is not None or options.statistics is None:
        raise InputError(
            "--optimizer rms needs --statistics FILE, of the parameters themselves (no --rank)"
        )
    if options.training is None and not os.path.exists(options.statistics):
        raise InputError(
            f"--statistics {options.statistics} is not there yet; add --training REF, a text to"
            " make them from"
        )


def _learning_rates(options: Online) -> list[float] | None:
    """The numbers of `--learning-rates A,B,...`; None where they are not given."""
    text = options.learning_rates
    if text is None:
        return None
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        raise InputError(
            f"--learning-rates {text}: give numbers joined by commas, such as 0.003,0.01,0.03"
        ) from None
    if not all(0 <= number < math.inf for number in found):
        raise InputError(f"--learning-rates {text}: each is 0 or a positive number")
    return found
