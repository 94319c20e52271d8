"""What the verbs of the command line do: check, read, compute, write, so that a mistake costs no time."""

import dataclasses
import json
import math
import os
import sys
import time
from pathlib import Path

from lmdyn.errors import InputError, choose
from lmdyn.files import check_new_folder, check_writable

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad", "lion")


def measure(options, command: list[str]) -> None:
    """`lmdyn measure`. Args: options: `lmdyn.cli.Measure`. command: the words of the command line, for the record."""
    started = time.time()
    _at_least(1, options, "length", "batch", "tokens")
    check_writable(options.out)
    _set_up_jax()
    from lmdyn import checkpoints, data, metrics, models, report
    from lmdyn.report import provenance
    from lmdyn.training import mesh as meshes

    documents = data.documents(options.data)
    metric = metrics.build(options.metrics)
    mesh = _mesh(options, rows=options.batch)
    references = [r for ref in options.models for r in checkpoints.series(ref)]
    rows, total = [], 0
    for number, reference in enumerate(references, 1):
        _say(f"{reference}" + (f" ({number} of {len(references)})" if len(references) > 1 else ""))
        loaded = checkpoints.load(reference, models.Compute(dtype=options.dtype), packed=True)
        data.check_vocabulary(loaded.tokenizer, loaded.model.config)
        batches = data.batches(
            documents, loaded.tokenizer, options.length, options.batch, options.tokens, progress=True
        )
        _check_positions(loaded.model.config, length=options.length)
        model, params, where = loaded.model, loaded.params, None
        if mesh is not None:
            model, params = meshes.spread(model, mesh), meshes.shard(params, mesh, model.config)
            where = meshes.batch_sharding(mesh)
        results = metrics.measure(metric, model, params, batches, progress=True, sharding=where)
        found = _rows(results)
        size = _text_bytes(loaded.tokenizer, batches.stream[1:])
        for r in found:
            if r["metric"] == "nll" and size:
                r["bits_per_byte"] = r["value"] * batches.tokens / math.log(2) / size
        rows += [report.row(str(reference), step=reference.step, tokens=batches.tokens, **r) for r in found]
        total += batches.tokens
        _show(rows[-len(found) :])
    meta = provenance.collect(command, dataclasses.asdict(options), started, total)
    report.write_rows(options.out, rows, meta)
    _say(f"wrote {len(rows)} rows to {options.out}")


def online(options, command: list[str]) -> None:
    """`lmdyn online`. Args: options: `lmdyn.cli.Online`. command: the words of the command line, for the record."""
    started = time.time()
    _at_least(1, options, "chunk", "window", "tokens")
    if not 0 <= options.lr < math.inf:
        raise InputError(f"--lr {options.lr}: a learning rate is 0 or a positive number")
    choose("optimizer", options.optimizer, OPTIMIZERS)
    if options.context == "none" and options.window is not None:
        raise InputError(f"--window {options.window} without a context; add --context cache or --context overlap")
    if options.context != "none" and options.window is None:
        raise InputError(
            f"--context {options.context} needs a window; add --window W, for example --window {options.chunk}"
        )
    check_writable(options.out)
    _set_up_jax()
    import numpy as np

    from lmdyn import checkpoints, data, models, report, transforms
    from lmdyn import online as adaptation
    from lmdyn.online import contexts
    from lmdyn.report import provenance

    documents = data.documents(options.data)
    reference = checkpoints.parse(options.model)
    context = _context(adaptation, options)
    mesh = _mesh(options, rows=None)
    _say(f"{reference}")
    loaded = checkpoints.load(reference, models.Compute(dtype=options.dtype))
    data.check_vocabulary(loaded.tokenizer, loaded.model.config)
    contexts.check(context, options.chunk, loaded.model.config)
    transforms.select(loaded.params, options.adapt)
    if mesh is not None:
        from lmdyn.training import mesh as meshes

        loaded = loaded._replace(params=meshes.shard(loaded.params, mesh, loaded.model.config))
    docs = data.tokenize(documents, loaded.tokenizer, options.tokens, progress=True)
    end = loaded.tokenizer.end_of_text
    if options.reset == "never":
        data.windows(
            data.join(docs, end), options.chunk, tokens=options.tokens
        )  # refuses a text shorter than one chunk
    stream = adaptation.stream(
        docs, chunk=options.chunk, context=context, reset=options.reset, end_of_text=end, tokens=options.tokens
    )
    run = {"chunk": options.chunk, "context": context, "adapt": options.adapt, "reset": options.reset, "progress": True}
    outcomes = {}
    if options.static:
        outcomes["static"] = adaptation.evaluate(loaded.model, loaded.params, stream, optimizer=None, **run)
    outcomes["online"] = adaptation.evaluate(
        loaded.model, loaded.params, stream, optimizer=_optimizer(options), donate=True, **run
    )
    traces, rows, costs = {}, [], []
    for name, outcome in outcomes.items():
        trace = np.asarray(outcome.nll, np.float32)
        bad = np.flatnonzero(~np.isfinite(trace))
        if len(bad):
            mend = (
                f"; lower --lr (now {options.lr})"
                if name == "online"
                else "; are there numbers in the checkpoint that are not finite?"
            )
            raise InputError(f"{name} nll is {trace[bad[0]]} at prediction {bad[0]} of {len(trace)}{mend}")
        mean = float(trace.mean(dtype=np.float64))
        about = {"step": reference.step, "tokens": len(trace)}
        rows.append(
            report.row(str(reference), f"{name}_nll", mean, "nats", perplexity=math.exp(min(mean, 700)), **about)
        )
        costs.append(report.row(str(reference), "flops", float(outcome.flops), "flops", site=name, **about))
        traces[name] = trace
    _show(rows)
    meta = provenance.collect(command, dataclasses.asdict(options), started, sum(map(len, traces.values())))
    report.write_rows(options.out, rows + costs, meta, traces)
    _say(f"wrote {len(rows + costs)} rows to {options.out}")


def reactivate(options, command: list[str]) -> None:
    """`lmdyn reactivate`. Args: options: `lmdyn.cli.Reactivate`. command: the words of the command line, for the record."""
    started = time.time()
    _at_least(1, options, "length", "batch", "tokens")
    _at_least(0, options, "seed")
    if not 0 <= options.ratio <= 1:
        raise InputError(f"--ratio {options.ratio}: a ratio is between 0 and 1")
    if not 0 < options.gain < math.inf:
        raise InputError(f"--gain {options.gain}: a gain is a number above 0")
    check_new_folder(options.out)
    _set_up_jax()
    import numpy as np

    from lmdyn import checkpoints, data, metrics, models, report, transforms
    from lmdyn.checkpoints.configs import write_config
    from lmdyn.report import provenance

    documents = data.documents(options.data)
    reference = checkpoints.parse(options.model)
    _say(f"{reference}")
    loaded = checkpoints.load(reference, models.Compute(dtype=options.dtype))
    model, config = loaded.model, loaded.model.config
    data.check_vocabulary(loaded.tokenizer, config)
    _check_positions(config, length=options.length)
    write_config(config)  # refuses a model that could not be exported
    batches = data.batches(documents, loaded.tokenizer, options.length, options.batch, options.tokens, progress=True)
    metric = metrics.combine(nll=metrics.likelihood(), entropy=metrics.knowledge_entropy())
    before = metrics.measure(metric, model, loaded.params, batches, progress=True)
    coefficients = before["entropy"].coefficients
    chosen = transforms.choose_coefficients(coefficients, options.ratio, options.control, options.strength, options.seed)
    params = transforms.reactivate(loaded.params, coefficients, gain=options.gain, chosen=chosen)
    after = metrics.measure(metric, model, params, batches, progress=True)
    with np.errstate(invalid="ignore"):  # a layer whose coefficients are all 0 has no entropy
        rows = [
            report.row(str(reference), step=reference.step, tokens=batches.tokens, when=when, **r)
            for when, results in (("before", before), ("after", after))
            for r in _rows(results)
        ]
    for r in rows:
        if not math.isfinite(r["value"]):
            mend = f"lower --gain (now {options.gain})" if r["when"] == "after" else "is a layer of the checkpoint all zeros?"
            raise InputError(f"{r['metric']} is {r['value']} {r['when']} reactivation; {mend}")
    random = options.control == "random"
    meta = provenance.collect(
        command, dataclasses.asdict(options), started, 2 * batches.tokens, options.seed if random else None
    )
    notes = {**meta, "chosen": chosen.sum(1).tolist(), "zero": (coefficients == 0).sum(1).tolist(), "rows": rows}
    text = json.dumps(notes, indent=1) + "\n"
    checkpoints.export(model, params, loaded.tokenizer, options.out, {"reactivation.json": text})
    zero = np.count_nonzero(chosen & (coefficients == 0))
    _say(f"{chosen.sum()} of {chosen.size} coefficients scaled" + (f", but for {zero} that are 0 and stay so" if zero else ""))
    _show_change(rows)
    _say(f"wrote {options.out}; dir:{options.out} names the changed model")


def scaling(options, command: list[str]) -> None:
    """`lmdyn scaling`. Args: options: `lmdyn.cli.Scaling`. command: the words of the command line, for the record."""
    started = time.time()
    _at_least(0, options, "seed")
    check_writable(options.out)
    import numpy as np

    from lmdyn import report
    from lmdyn.metrics import scaling as laws
    from lmdyn.report import provenance

    runs = laws.read_runs(options.table)
    fitted = runs.parameters > options.above
    if not fitted.any():
        raise InputError(f"--above {options.above:g}: no run of {options.table} has more parameters; the largest has {runs.parameters.max():g}")
    law = laws.fit_scaling_law(*(column[fitted] for column in runs), seed=options.seed)
    between = {name: [low, high] for name, (low, high) in law.intervals().items() if math.isfinite(low)}
    about = {name: getattr(law, name) for name in "AabB"}
    rows = [report.row(options.table, "scaling_law", law.E, "nats", **about, intervals=between, runs=int(fitted.sum()))]
    name = lambda size: f"{next(f'{size / unit:.3g}{letter}' for unit, letter in ((1e9, 'B'), (1e6, 'M'), (1, '')) if size >= unit or unit == 1)} parameters"
    for size, tokens, loss, inside in zip(*runs, fitted, strict=True):
        predicted = float(law.predict(size, tokens))
        rows.append(report.row(name(size), "scaling_point", loss, "nats", name=name(size), parameters=size, trained=tokens, predicted=predicted,
                               fitted=bool(inside)))
    for size in np.unique(runs.parameters):
        last = max(np.flatnonzero(runs.parameters == size), key=lambda i: runs.tokens[i])
        found = law.residual(size, runs.tokens[last], runs.losses[last], seed=options.seed)
        ends = {"low": found.low, "high": found.high} if math.isfinite(found.low) else {}
        rows.append(report.row(name(size), "scaling_residual", found.value, "share", name=name(size), parameters=size, trained=runs.tokens[last],
                               fitted=bool(fitted[last]), **ends))
    meta = provenance.collect(command, dataclasses.asdict(options), started, 0, options.seed)
    report.write_rows(options.out, rows, {**meta, "study": "scaling law"})
    told = lambda key: f" ({between[key][0]:.4g} to {between[key][1]:.4g})" if key in between else ""
    for key in "EABab":
        print(f"{key} {getattr(law, key):12.5g}{told(key)}")
    for r in rows:
        if r["metric"] == "scaling_residual":
            ends = f" ({r['low']:+.1%} to {r['high']:+.1%})" if "low" in r else ""
            print(f"{r['name']:24} ends {r['value']:+.1%}{ends} from the law{'' if r['fitted'] else ', which it is not part of'}")
    _say(f"wrote {len(rows)} rows to {options.out}; intervals are of 90%, from a bootstrap")


def report(options, command: list[str]) -> None:
    """`lmdyn report`. Args: options: `lmdyn.cli.Report`. command: the words of the command line, for the record."""
    from lmdyn import report as pages

    if not options.folders:
        raise InputError("report needs a folder of rows; see lmdyn report --help")
    print(pages.build(options.folders, options.out))


def train(options, command: list[str]) -> int:
    """`lmdyn train`. Args: options: `lmdyn.training.options.TrainOptions`. command: the words of the command line, for the record.

    Returns:
      The exit code: 0 when done or preempted (SIGTERM), 130 after Ctrl-C.
    """
    _set_up_jax()
    from lmdyn.training import distributed, loop

    if options.hosts == "auto" or options.coordinator is not None:
        distributed.initialize(options.coordinator, options.processes, options.process)
    config = options.run
    ended = loop.train(config, command, progress=True, say=_say)
    if distributed.is_primary():
        if ended.signal is None:
            _say(f"{config.out}: done, {ended.step} steps; lmdyn measure 'run:{config.out}@*' and lmdyn report {config.out} go on from here")
        else:
            _say(f"{config.out}: stopped by {ended.signal} at step {ended.step} of {ended.steps}, saved; the same command goes on")
    return 130 if ended.signal == "SIGINT" else 0


def study(options, command: list[str]) -> int:
    """`lmdyn study`. Args: options: a config of `lmdyn.studies`. command: the words of the command line, for the record.

    Returns:
      The exit code: 0, or 130 after Ctrl-C.
    """
    from lmdyn import studies

    if type(options) not in studies.RUN:
        raise InputError("study needs --config FILE, such as configs/knowledge_entropy.py; see lmdyn study --help")
    _set_up_jax()
    try:
        path = studies.RUN[type(options)](options, command, _say)
    except KeyboardInterrupt:
        _say(f"lmdyn: interrupted; what is finished is kept in {options.out}, and the same command goes on")
        return 130
    for claim in json.loads((path.parent / "claims.json").read_text(encoding="utf-8")):
        between = f" ({claim['low']:.3g} to {claim['high']:.3g})" if claim["low"] is not None else ""
        measured = "nothing" if claim["measured"] is None else f"{claim['measured']:.3g}{between} {claim['unit']}"
        print(f"{claim['verdict']:10} {claim['sentence']} [{measured}]")
    print(path)
    return 0


def plan(options, command: list[str]) -> None:
    """`lmdyn plan`. Args: options: `lmdyn.training.options.PlanOptions`. command: the words of the command line."""
    from lmdyn.training import plan as plans

    _say("compiling the step for a mesh that is not there")
    print(plans.describe(plans.plan(options.run)))


def _mesh(options, rows: int | None):
    """The mesh of `--mesh`; None for one device. `rows` must divide over it; one stream has none to divide."""
    if options.mesh is None:
        return None
    from lmdyn.training import mesh as meshes

    shape = meshes.parse_mesh(options.mesh)
    if rows is None and shape[0] > 1:
        raise InputError(f"--mesh {options.mesh}: one stream is adapted, which has no rows to divide; use 1,{shape[0] * shape[1]},{shape[2]}")
    mesh = meshes.make_mesh(shape)
    if rows is not None:
        meshes.check_batch(rows, mesh)
    return mesh


def _at_least(least, options, *names):
    for name in names:
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name} {value}: it must be at least {least}")


def _set_up_jax():
    """Compiled programs are kept between runs, in the user's cache folder, unless the environment says where."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lmdyn" / "jax"
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError:  # a home that cannot be written costs time, not the run
            return
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _check_positions(config, length):
    if config.position == "learned" and length > config.positions:
        raise InputError(
            f"--length {length} exceeds the model's {config.positions} positions; use --length "
            f"{config.positions} or less"
        )


def _context(adaptation, options):
    makers = {"none": lambda window: adaptation.none(), "cache": adaptation.cache, "overlap": adaptation.overlap}
    return makers[options.context](options.window)


def _optimizer(options):
    import optax

    if options.optimizer == "momentum":
        return optax.sgd(options.lr, momentum=0.9)
    return getattr(optax, options.optimizer)(options.lr)


def _rows(results):
    """The rows of a combined metric's results."""
    return [dict(r) for result in results.values() for r in result.rows()]


def _text_bytes(tokenizer, ids) -> int:
    """Bytes of UTF-8 of the predicted text; what stands between documents is not in it."""
    return len(tokenizer.decode(ids[ids != tokenizer.end_of_text]).encode("utf-8", "replace"))


def _show(rows):
    """The whole-model values, on stdout."""
    for r in rows:
        if r["layer"] is None:
            more = f"  (perplexity {r['perplexity']:.2f})" if "perplexity" in r else ""
            site = f" {r['site']}" if r["site"] else ""
            print(f"{r['metric'] + site:32} {r['value']:12.5g} {r['unit']}{more}", flush=True)


def _show_change(rows):
    """The whole-model values before and after, on stdout."""
    print(f"{'':32} {'before':>12} {'after':>12}")
    whole = [r for r in rows if r["layer"] is None]
    for old, new in zip(whole[: len(whole) // 2], whole[len(whole) // 2 :], strict=True):
        name = old["metric"] + (f" {old['site']}" if old["site"] else "")
        print(f"{name:32} {old['value']:12.5g} {new['value']:12.5g} {old['unit']}", flush=True)


def _say(text):
    print(text, file=sys.stderr, flush=True)
