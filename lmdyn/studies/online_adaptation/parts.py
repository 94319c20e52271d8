"""The parts of the study of online adaptation.

Each is a function of the config, the study's folder and a seed, and returns rows.

Rows of an analysis carry `analysis` (one of `ANALYSES`), `seed`, `stream`, and the tags of a
`lmdyn.studies.online_adaptation.bench.Setting`. Starts other than the last checkpoint, and given
models, are in `start_parts`.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from lmdyn import data, online, records
from lmdyn.online import Context
from lmdyn.studies.config import with_special_tokens
from lmdyn.studies.online_adaptation.bench import Bench, Setting, adapted, cut, measured
from lmdyn.studies.online_adaptation.config import Grid, OnlineAdaptation
from lmdyn.studies.pretraining import train_run
from lmdyn.studies.workers import remembered
from lmdyn.types import present


def models(config: OnlineAdaptation) -> tuple[str, ...]:
    """The models that are trained for each seed: `base`, `size0`, ... and `tuned`."""
    return (
        "base",
        *(f"size{i}" for i in range(len(config.sizes))),
        *(("tuned",) if config.fine_tune is not None else ()),
    )


def run_folder(study: str, seed: int, name: str) -> str:
    """Where a model of a seed is trained."""
    return str(Path(study) / "runs" / f"seed{seed}-{name}")


def train_model(
    config: OnlineAdaptation, study: str, seed: int, name: str, command: list[str]
) -> list[dict]:
    """One training run; the rows measured during it."""
    run = present(config.pretrain)
    if name == "tuned":
        run = dataclasses.replace(
            present(config.fine_tune), start=f"run:{run_folder(study, seed, 'base')}", model=None
        )
    elif name != "base":
        size = config.sizes[int(name.removeprefix("size"))]
        rule = (
            run.optimizer
            if size.learning_rate is None
            else dataclasses.replace(run.optimizer, learning_rate=size.learning_rate)
        )
        run = dataclasses.replace(run, model=size.model, optimizer=rule)
    run = with_special_tokens(run, config)
    run = dataclasses.replace(run, out=run_folder(study, seed, name), seed=seed)
    return train_run(run, command, {"seed": seed, "start": name, "analysis": "training"})


@remembered
def _bench(config, reference: str, seed: int) -> Bench:
    return Bench(config, reference, config.grid, {"seed": seed})


def bench_of(config: OnlineAdaptation, study: str, seed: int, name: str = "base") -> Bench:
    """A model of a seed, with the grid's texts."""
    return _bench(config, f"run:{run_folder(study, seed, name)}", seed)


def shifted_stream(config: OnlineAdaptation) -> str:
    """The stream that is least like home: the last one."""
    return config.grid.streams[-1]


def rules(config: OnlineAdaptation, study: str, seed: int, name: str) -> list[dict]:
    """Every rule on every stream, along the stream; of the tuned model, the main rule alone."""
    bench, grid = bench_of(config, study, seed, name), config.grid
    return [
        row
        for stream in grid.streams
        for setting in table_of_rules(grid, rules=grid.rules if name == "base" else ())
        for row in measured(bench, stream, setting, "rules", along=True, trained=name)
    ]


def table_of_rules(grid: Grid, rules: Sequence[str]) -> list[Setting]:
    """The settings of the table of rules.

    Static; each rule on what rules change; the main rule on the MLPs, and on low-rank adapters
    at them.
    """
    plain = functools.partial(Setting, rule=grid.main_rule, chunk=grid.chunk)
    names = dict.fromkeys((grid.main_rule, *rules))
    return [
        Setting("static", rule=None, chunk=grid.chunk),
        *(Setting(rule, rule, grid.adapt, chunk=grid.chunk) for rule in names),
        *(
            (
                plain("low-rank", adapt="blocks.mlp", rank=grid.rank),
                plain("MLPs", adapt="blocks.mlp"),
            )
            if rules
            else ()
        ),
    ]


def places(config: OnlineAdaptation, study: str, seed: int) -> list[dict]:
    """What adapts, on the last stream.

    All, MLPs, attention, every block, every MLP, neighbouring pairs, and the ladder of ranks.
    """
    bench, grid, depth = (
        bench_of(config, study, seed),
        config.grid,
        present(present(config.pretrain).model).depth,
    )
    named = {"all": "all", "MLPs": "blocks.mlp", "attention": "blocks.attention"}
    named |= {f"block {i}": f"blocks[{i}]" for i in range(depth)}
    named |= {f"MLP {i}": f"blocks[{i}].mlp" for i in range(depth)}
    named |= {f"MLPs {i} and {i + 1}": f"blocks[{i}:{i + 2}].mlp" for i in range(depth - 1)}
    settings = [
        Setting(name, grid.main_rule, adapt, chunk=grid.chunk) for name, adapt in named.items()
    ]
    settings += [
        Setting(f"rank {rank}", grid.main_rule, "blocks.mlp", rank, grid.chunk)
        for rank in grid.ranks
    ]
    return [
        row
        for setting in settings
        for row in measured(bench, shifted_stream(config), setting, "places")
    ]


def contexts(config: OnlineAdaptation) -> list[tuple[str, Context, int]]:
    """`(name, context, chunk)` of the windows that are compared."""
    found = []
    for kind, window, chunk in config.windows:
        keep = config.keep if kind == "cache" else 0
        name = f"{kind} {window}, chunk {chunk}" if window else f"none, chunk {chunk}"
        found.append((name, Context(cast(Any, kind), window, keep), chunk))
    return found


def context(config: OnlineAdaptation, study: str, seed: int) -> list[dict]:
    """Static and adapted, with every context, on the last stream."""
    bench = bench_of(config, study, seed)
    return [
        row
        for name, kind, chunk in contexts(config)
        for rule in (None, config.grid.main_rule)
        for row in measured(
            bench, shifted_stream(config), Setting(name, rule, chunk=chunk, context=kind), "context"
        )
    ]


def sizes(config: OnlineAdaptation, study: str, seed: int, name: str) -> list[dict]:
    """One size, on the last stream.

    Static, all, and low-rank, with a short chunk, a long one, and a cache.
    """
    bench, grid = bench_of(config, study, seed, name), config.grid
    cache = next(
        (
            (kind, chunk)
            for _, kind, chunk in reversed(contexts(config))
            if kind.kind == "cache" and chunk == grid.chunk
        ),
        None,
    )
    longest = max(
        (chunk for _, kind, chunk in contexts(config) if kind.kind == "none"), default=grid.chunk
    )
    rows = []
    tried = [(online.none(), grid.chunk), (online.none(), longest)] + (
        [] if cache is None else [cache]
    )
    for kind, chunk in dict.fromkeys(tried):
        for setting in (
            Setting("static", None),
            Setting("all", grid.main_rule),
            Setting("low-rank", grid.main_rule, "blocks.mlp", grid.rank),
        ):
            setting = dataclasses.replace(setting, chunk=chunk, context=kind)
            rows += measured(bench, shifted_stream(config), setting, "sizes", trained=name)
    return rows


def position(config: OnlineAdaptation, study: str, seed: int) -> list[dict]:
    """The nll against the position in the document.

    Adapted afresh to each, adapted all along, and static.
    """
    bench, grid, length = bench_of(config, study, seed), config.grid, config.document_tokens
    tokens = data.tokenize(shifted_stream(config), bench.tokenizer)
    first = bench.tokenizer.window_token
    most = length + (first is None)  # it is before each document, too
    documents = [d[:most] for d in tokens if len(d) > length]
    how = online.OnlineConfig(chunk=grid.chunk, reset="document", first=first)
    chunks = online.chunk_stream(documents, how)
    first = math.ceil(grid.prefix / length)  # documents that learning rates are chosen on
    if len(documents) <= first:
        return []
    doubled = (e for k in range(20) if (e := grid.chunk * 2**k) < length)
    edges = sorted({0, *doubled, length})
    plain = functools.partial(Setting, rule=grid.main_rule, adapt="blocks.mlp", chunk=grid.chunk)
    rows = []
    for setting in (plain("MLPs"), plain("low-rank", rank=grid.rank)):
        static, _ = bench.static("documents", chunks, setting)
        for reset in ("document", "never"):
            begins = chunks.first if reset == "document" else np.arange(len(chunks.first)) == 0
            found = online.choose_learning_rate(
                bench.model,
                bench.params,
                chunks._replace(first=begins),
                online.LearningRateSearch(
                    bench.rule(setting), bench.learning_rates(setting), first * length
                ),
                setting.config(guard=grid.guard, reset=reset),
                static=static.nll,
            )
            nll, still = (
                x.reshape(len(documents), length)[first:].mean(0, dtype=np.float64)
                for x in (found.outcome.nll, static.nll)
            )
            about = {"step": bench.step, "analysis": "position", "seed": seed}
            about |= {"stream": shifted_stream(config), "reset": reset, "rate": found.learning_rate}
            make = functools.partial(
                records.row,
                "nll_at_position",
                model=bench.reference,
                unit="nats",
                **about,
                **setting.tags,
            )
            for a, b in itertools.pairwise(edges):
                count, still_here = (len(documents) - first) * (b - a), float(still[a:b].mean())
                value = float(nll[a:b].mean())
                rows.append(make(value, tokens=count, begin=a, end=b, static=still_here))
    return rows


RESET_RULES = {
    "never": {},
    "at changes": {"reset": "document"},
    "detector": {"reset": online.ChangeDetector(warmup=8)},
    "detector, half way": {"reset": online.ChangeDetector(warmup=8, back=0.5)},
}


def resets(config: OnlineAdaptation, study: str, seed: int) -> list[dict]:
    """A stream that turns from one text to another and back.

    Resets never, where it turns, and where the detector says.
    """
    bench, grid, length = bench_of(config, study, seed), config.grid, config.segment_tokens
    texts = [bench.text(stream) for stream in grid.streams]
    count = grid.tokens // length
    pieces = [
        texts[k % len(texts)][k // len(texts) * length : (k // len(texts) + 1) * length]
        for k in range(count)
    ]
    whole = np.concatenate([*pieces, pieces[0][:1]])
    chunks, rows = cut(bench, whole, Setting("mixed", None, chunk=grid.chunk)), []
    turns = np.arange(len(chunks.first)) % (length // grid.chunk) == 0
    for name, options in RESET_RULES.items():
        setting = Setting(name, grid.main_rule, chunk=grid.chunk)
        stream = chunks._replace(first=turns) if name == "at changes" else chunks
        found, nll, still = adapted(bench, "mixed", stream, setting, **options)
        alarms = found.outcome.resets
        late = [
            min((a - turn for a in alarms if turn < a <= turn + length), default=None)
            for turn in range(length, len(whole) - 1, length)
        ]
        delays = [d for d in late if d is not None]
        online_nll, static = (float(x.mean(dtype=np.float64)) for x in (nll, still))
        about = {"step": bench.step, "tokens": chunks.tokens, "analysis": "resets", "seed": seed}
        about |= {"stream": "mixed", "static": static, "rate": found.learning_rate}
        about |= {"flops": found.outcome.flops / chunks.tokens, "alarms": len(alarms)}
        about |= {"turns": len(late), "found": len(delays), **setting.tags}
        about["delay"] = float(np.median(delays)) if delays else None
        rows.append(records.row("online_nll", online_nll, "nats", model=bench.reference, **about))
    return rows
