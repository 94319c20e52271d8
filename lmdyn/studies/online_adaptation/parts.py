"""The parts of the study of online adaptation: each is a function of the config, the study's folder
and a seed, and returns rows.

Rows of an analysis carry `analysis` (one of `ANALYSES`), `seed`, `stream`, and the tags of a
`lmdyn.studies.online_adaptation.settings.Setting`.
"""

import dataclasses
import functools
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmdyn import checkpoints, data, metrics, online, records, training, transforms
from lmdyn.online import Context
from lmdyn.online.meta_gradients import meta_gradient
from lmdyn.studies.online_adaptation.settings import Bench, Setting, adapted, measured, profile
from lmdyn.studies.workers import remembered
from lmdyn.types import present

if TYPE_CHECKING:
    from lmdyn.studies.online_adaptation.study import OnlineAdaptation


ANALYSES = (
    "rules",
    "places",
    "context",
    "sizes",
    "position",
    "resets",
    "localized",
    "checkpoints",
    "meta",
)


def models(config: "OnlineAdaptation") -> tuple[str, ...]:
    """The models that are trained for each seed: `base`, `size0`, ... and `tuned`."""
    return (
        "base",
        *(f"size{i}" for i in range(len(config.sizes))),
        *(("tuned",) if config.tune is not None else ()),
    )


def wanted(config: "OnlineAdaptation") -> list[tuple[str, str, tuple]]:
    """`(name of the part, function in MAKE, its further arguments)` for each part of a seed."""
    found = []
    for name in config.analyses:
        if name == "sizes":
            found += [
                (f"sizes {model}", "sizes", (model,))
                for model in models(config)
                if model != "tuned"
            ]
        elif name == "rules":
            found += [
                (f"rules {model}", "rules", (model,))
                for model in ("base", "tuned")
                if model in models(config)
            ]
        elif name != "meta" or config.meta is not None:
            found.append((name, name, ()))
    return found


def _folder(study: str, seed: int, name: str) -> str:
    return str(Path(study) / "runs" / f"seed{seed}-{name}")


def pretrained(
    config: "OnlineAdaptation", study: str, seed: int, name: str, command: list[str]
) -> list[dict]:
    """One training run; the rows of what it watched."""
    run = present(config.pretrain)
    if name == "tuned":
        run = dataclasses.replace(
            present(config.tune), start=f"run:{_folder(study, seed, 'base')}", model=None
        )
    elif name != "base":
        size = config.sizes[int(name.removeprefix("size"))]
        rule = (
            run.optimizer
            if size.rate is None
            else dataclasses.replace(run.optimizer, rate=size.rate)
        )
        run = dataclasses.replace(run, model=size.model, optimizer=rule)
    run = dataclasses.replace(run, out=_folder(study, seed, name), seed=seed)
    if training.train(run, command, say=lambda text: None).signal is not None:
        raise KeyboardInterrupt
    found = records.read_rows(Path(run.out) / "rows.jsonl") if run.evaluation is not None else []
    return [{**row, "seed": seed, "start": name, "analysis": "training"} for row in found]


@remembered
def _bench(config, reference: str, seed: int) -> Bench:
    return Bench(reference, config.grid, config.compute, {"seed": seed})


def _of(config, study, seed, name="base") -> Bench:
    return _bench(config, f"run:{_folder(study, seed, name)}", seed)


def _shifted(config) -> str:
    """The stream that is least like home: the last one."""
    return config.grid.streams[-1]


def rules(config: "OnlineAdaptation", study: str, seed: int, name: str) -> list[dict]:
    """Every rule on every stream, along the stream; of the tuned model, the main rule alone."""
    bench, grid = _of(config, study, seed, name), config.grid
    return [
        row
        for stream in grid.streams
        for setting in _table(grid, rules=grid.rules if name == "base" else ())
        for row in measured(bench, stream, setting, "rules", along=True, trained=name)
    ]


def _table(grid, rules) -> list[Setting]:
    """Static; each rule on what rules change; the main rule on the MLPs, and on low-rank adapters
    at them.
    """
    plain = functools.partial(Setting, rule=grid.main, chunk=grid.chunk)
    names = dict.fromkeys((grid.main, *rules))
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


def places(config: "OnlineAdaptation", study: str, seed: int) -> list[dict]:
    """What adapts: all, MLPs, attention, every block, every MLP, neighbouring pairs, and the ladder
    of ranks; on the last stream.
    """
    bench, grid, depth = (
        _of(config, study, seed),
        config.grid,
        present(present(config.pretrain).model).depth,
    )
    named = {"all": "all", "MLPs": "blocks.mlp", "attention": "blocks.attention"}
    named |= {f"block {i}": f"blocks[{i}]" for i in range(depth)}
    named |= {f"MLP {i}": f"blocks[{i}].mlp" for i in range(depth)}
    named |= {f"MLPs {i} and {i + 1}": f"blocks[{i}:{i + 2}].mlp" for i in range(depth - 1)}
    settings = [Setting(name, grid.main, adapt, chunk=grid.chunk) for name, adapt in named.items()]
    settings += [
        Setting(f"rank {rank}", grid.main, "blocks.mlp", rank, grid.chunk) for rank in grid.ranks
    ]
    return [
        row for setting in settings for row in measured(bench, _shifted(config), setting, "places")
    ]


def contexts(config: "OnlineAdaptation") -> list[tuple[str, Context, int]]:
    """`(name, context, chunk)` of the windows that are compared."""
    found = []
    for kind, window, chunk in config.windows:
        keep = config.keep if kind == "cache" else 0
        found.append(
            (
                f"{kind} {window}, chunk {chunk}" if window else f"none, chunk {chunk}",
                Context(cast(Any, kind), window, keep),
                chunk,
            )
        )
    return found


def context(config: "OnlineAdaptation", study: str, seed: int) -> list[dict]:
    """Static and adapted, with every context, on the last stream."""
    bench = _of(config, study, seed)
    return [
        row
        for name, kind, chunk in contexts(config)
        for rule in (None, config.grid.main)
        for row in measured(
            bench, _shifted(config), Setting(name, rule, chunk=chunk, context=kind), "context"
        )
    ]


def sizes(config: "OnlineAdaptation", study: str, seed: int, name: str) -> list[dict]:
    """One size: static, all, and low-rank, with a short chunk, a long one, and a cache; on the last
    stream.
    """
    bench, grid = _of(config, study, seed, name), config.grid
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
            Setting("all", grid.main),
            Setting("low-rank", grid.main, "blocks.mlp", grid.rank),
        ):
            setting = dataclasses.replace(setting, chunk=chunk, context=kind)
            rows += measured(bench, _shifted(config), setting, "sizes", trained=name)
    return rows


def position(config: "OnlineAdaptation", study: str, seed: int) -> list[dict]:
    """The nll against the position in the document: adapted afresh to each, adapted all along, and
    static.
    """
    bench, grid, length = _of(config, study, seed), config.grid, config.document
    documents = [
        d[: length + 1] for d in data.tokenize(_shifted(config), bench.tokenizer) if len(d) > length
    ]
    chunks = online.stream(documents, chunk=grid.chunk, context=online.none(), reset="document")
    first = math.ceil(grid.prefix / length)  # documents that rates are chosen on
    rows, edges = (
        [],
        sorted({0, *(e for k in range(20) if (e := grid.chunk * 2**k) < length), length}),
    )
    if len(documents) <= first:
        return rows
    for rank in (None, grid.rank):
        for reset in ("document", "never"):
            setting = Setting(
                "MLPs" if rank is None else "low-rank", grid.main, "blocks.mlp", rank, grid.chunk
            )
            stream = (
                chunks
                if reset == "document"
                else chunks._replace(first=np.arange(len(chunks.first)) == 0)
            )
            static, _ = bench.static("documents", chunks, setting)
            found = online.choose_rate(
                bench.model,
                bench.params,
                stream,
                rule=bench.rule(setting),
                rates=bench.rates(setting),
                prefix=first * length,
                chunk=grid.chunk,
                adapt=setting.part,
                static=static.nll,
                guard=grid.guard,
                reset=reset,
            )
            nll, still = (
                x.reshape(len(documents), length)[first:].mean(0, dtype=np.float64)
                for x in (found.outcome.nll, static.nll)
            )
            rows += [
                records.row(
                    bench.reference,
                    "nll_at_position",
                    float(nll[a:b].mean()),
                    "nats",
                    step=bench.step,
                    analysis="position",
                    seed=seed,
                    stream=_shifted(config),
                    tokens=(len(documents) - first) * (b - a),
                    begin=a,
                    end=b,
                    reset=reset,
                    static=float(still[a:b].mean()),
                    rate=found.rate,
                    **setting.tags,
                )
                for a, b in itertools.pairwise(edges)
            ]
    return rows


RESETS = {
    "never": {},
    "at changes": {"reset": "document"},
    "detector": {"reset": online.change(warmup=8)},
    "detector, half way": {"reset": online.change(warmup=8, back=0.5)},
}


def resets(config: "OnlineAdaptation", study: str, seed: int) -> list[dict]:
    """A stream that turns from one text to another and back: resets never, where it turns, and
    where the detector says.
    """
    bench, grid, length = _of(config, study, seed), config.grid, config.segment
    texts = [bench.text(stream) for stream in grid.streams]
    count = grid.tokens // length
    pieces = [
        texts[k % len(texts)][k // len(texts) * length : (k // len(texts) + 1) * length]
        for k in range(count)
    ]
    whole = np.concatenate([*pieces, pieces[0][:1]])
    chunks, rows = online.stream(whole, chunk=grid.chunk, context=online.none()), []
    turns = np.arange(len(chunks.first)) % (length // grid.chunk) == 0
    for name, options in RESETS.items():
        setting = Setting(name, grid.main, chunk=grid.chunk)
        stream = chunks._replace(first=turns) if name == "at changes" else chunks
        found, nll, still = adapted(bench, "mixed", stream, setting, **options)
        alarms = found.outcome.resets
        late = [
            min((a - turn for a in alarms if turn < a <= turn + length), default=None)
            for turn in range(length, len(whole) - 1, length)
        ]
        delays = [d for d in late if d is not None]
        rows.append(
            records.row(
                bench.reference,
                "online_nll",
                float(nll.mean(dtype=np.float64)),
                "nats",
                step=bench.step,
                tokens=chunks.tokens,
                analysis="resets",
                seed=seed,
                stream="mixed",
                static=float(still.mean(dtype=np.float64)),
                flops=found.outcome.flops / chunks.tokens,
                rate=found.rate,
                alarms=len(alarms),
                turns=len(late),
                found=len(delays),
                delay=float(np.median(delays)) if delays else None,
                **setting.tags,
            )
        )
    return rows


def localized(config: "OnlineAdaptation", study: str, seed: int) -> list[dict]:
    """The profile of the last stream's first chunks; adapting where it is above its mean, and at as
    many places drawn at random, at equal cost.
    """
    bench, grid, text = _of(config, study, seed), config.grid, _shifted(config)
    found = profile(bench, text)
    about = {"step": bench.step, "analysis": "localized", "seed": seed, "stream": text}
    rows = [records.row(bench.reference, **{**row, **about}) for row in found.rows()]
    for name, adapt in [
        ("localized", transforms.trained(found)),
        *((f"random {k}", selector) for k, selector in enumerate(controls(found, seed))),
    ]:
        rows += measured(
            bench, text, Setting(name, grid.main, adapt, chunk=grid.chunk), "localized"
        )
    return rows


def controls(found: Any, seed: int, draws: int = 2) -> list[str]:
    """Selectors of equal cost: as many attention and MLP layers as lie above the profile's mean,
    the lowest of them where it was.

    >>> controls(
    ...     {"attention": np.array([1.0, 1.0, 3.0]), "mlp": np.array([1.0, 1.0, 3.0])},
    ...     seed=0,
    ...     draws=1,
    ... )  # nothing else costs as much
    ['blocks[2].attention+blocks[2].mlp']
    """
    mean = np.mean([*found["attention"], *found["mlp"]])
    chosen = {kind: np.flatnonzero(np.asarray(found[kind]) > mean) for kind in ("attention", "mlp")}
    lowest = min((layers.min(), kind) for kind, layers in chosen.items() if len(layers))
    rng, made = np.random.default_rng([seed, 7]), []
    for _ in range(draws):
        terms = []
        for kind, layers in chosen.items():
            held = [lowest[0]] if kind == lowest[1] else []
            free = np.arange(
                lowest[0] + (kind == lowest[1] or kind == "attention"), len(found[kind])
            )  # attention lies below the MLP of its block
            drawn = rng.permutation(free)[: len(layers) - len(held)]
            if len(layers):
                terms.append(f"blocks[{','.join(map(str, sorted([*held, *drawn])))}].{kind}")
        made.append("+".join(terms))
    return made


def series(config: "OnlineAdaptation", study: str, seed: int) -> list[dict]:
    """Every checkpoint of the run: its knowledge entropy on home text, and what it reaches online."""
    grid, rows = config.grid, []
    run = _folder(study, seed, "base")
    last = _of(config, study, seed)
    held_out = list(data.batches(grid.home, last.tokenizer, grid.chunk * 4, 4, grid.prefix))
    for reference in checkpoints.series(f"run:{run}@*"):
        if not reference.step:
            continue
        params = checkpoints.load(str(reference), config.compute).params
        entropy = metrics.measure(_entropy(), last.model, params, held_out)
        about = {"step": reference.step, "analysis": "checkpoints", "seed": seed}
        rows += [
            records.row(str(reference), **row, **about)
            for row in entropy.rows()
            if row["layer"] is None
        ]
        for stream in grid.streams:
            found = measured(
                last,
                stream,
                Setting(f"step {reference.step}", grid.main, chunk=grid.chunk),
                "checkpoints",
                params=params,
                start=f"step {reference.step}",
            )
            rows += [{**row, "step": reference.step} for row in found]
    return rows


@functools.cache
def _entropy():
    return metrics.knowledge_entropy()


def meta(config: "OnlineAdaptation", study: str, seed: int) -> list[dict]:
    """Starts that were trained on for the same cost: plainly, by the first-order meta-gradient, and
    by the full one.
    """
    bench, grid, rows = _of(config, study, seed), config.grid, []
    starts = {"plain": "plain", "first order": "first", "full": "full"}
    for name, order in starts.items():
        params = learned(bench, config.meta, order, seed)
        for stream in grid.streams:
            rows += measured(
                bench,
                stream,
                Setting(name, "SGD", chunk=grid.chunk),
                "meta",
                params=params,
                start=name,
            )
    for stream in grid.streams:
        rows += measured(bench, stream, Setting("as it was", "SGD", chunk=grid.chunk), "meta")
    return rows


def learned(bench: Bench, rule: Any, order: str, seed: int) -> Any:
    """Parameters after training on: `plain`, by likelihood; `first` or `full`, by the
    meta-gradient. Each update sees the same episodes.
    """
    chunk, span = bench.grid.chunk, rule.chunks * bench.grid.chunk
    text = data.join(data.tokenize(rule.text, bench.tokenizer), bench.tokenizer.end_of_text)
    updates = rule.updates * (1 if order == "full" else 3)
    starts = np.random.default_rng([seed, 3]).integers(
        0, len(text) - span - 1, (updates, rule.episodes)
    )
    optimizer = optax.adam(rule.outer)
    step = _meta_step(bench.model, rule.outer, rule.inner, order)
    params, state = jax.tree.map(jnp.copy, bench.params), optimizer.init(bench.params)
    for places in starts:
        episodes = [
            online.stream(text[a : a + span + 1], chunk=chunk, context=online.none())
            for a in places
        ]
        stacked = jax.tree.map(lambda *parts: np.stack(parts), *episodes)
        params, state = step(params, state, stacked)
    return params


@functools.lru_cache(maxsize=4)
def _meta_step(model, outer: float, inner: float, order: str):
    optimizer = optax.adam(outer)
    rate, kind = (0.0, "first") if order == "plain" else (inner, order)

    def step(params, state, episodes):
        def one(summed, episode):
            found = meta_gradient(model, params, episode, rate=rate, order=kind).gradient
            return jax.tree.map(jnp.add, summed, found), None

        total, _ = jax.lax.scan(one, jax.tree.map(jnp.zeros_like, params), episodes)
        slope = jax.tree.map(lambda g: g / len(episodes.first), total)
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def given(config: "OnlineAdaptation", text: str) -> list[dict]:
    """A given model on one of its texts: every rule, low-rank, the MLPs, and where the gradient
    profile says.
    """
    bench, grid = _given(config), config.given
    rows = []
    for setting in _table(grid, grid.rules):
        rows += measured(bench, text, setting, "rules", along=True, trained="given")
    place = bench.known.get("profile") or profile(bench, text)
    if grid.choose is not None:  # one profile, of the text to choose by, for all streams
        bench.known["profile"] = place
    setting = Setting("localized", grid.main, transforms.trained(place), chunk=grid.chunk)
    return rows + measured(bench, text, setting, "rules", along=True, trained="given")


@remembered
def _given(config) -> Bench:
    return Bench(config.model, config.given, config.compute, {"seed": config.seed})


MAKE = {
    "rules": rules,
    "places": places,
    "context": context,
    "sizes": sizes,
    "position": position,
    "resets": resets,
    "localized": localized,
    "checkpoints": series,
    "meta": meta,
}
