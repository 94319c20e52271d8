"""The parts of online adaptation that start elsewhere than at the last checkpoint.

At every checkpoint of a run, at points that were trained on, and with a given model.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmdyn import checkpoints, data, metrics, records, transforms
from lmdyn.online.meta_gradients import meta_gradient
from lmdyn.studies.config import load_model
from lmdyn.studies.online_adaptation.bench import Bench, Setting, cut, measured, profile
from lmdyn.studies.online_adaptation.config import Meta, OnlineAdaptation
from lmdyn.studies.online_adaptation.parts import bench_of, run_folder, table_of_rules
from lmdyn.studies.workers import remembered
from lmdyn.types import present


def every_checkpoint(config: OnlineAdaptation, study: str, seed: int) -> list[dict]:
    """Every checkpoint of the run: its knowledge entropy, and what it reaches online."""
    grid, rows = config.grid, []
    run = run_folder(study, seed, "base")
    last = bench_of(config, study, seed)
    held_out = list(data.batches(grid.home, last.tokenizer, grid.chunk * 4, 4, grid.prefix))
    for reference in checkpoints.series(f"run:{run}@*"):
        if not reference.step:
            continue
        params = load_model(config, reference).params
        entropy = metrics.measure(_entropy(), last.model, params, held_out)
        about = {"step": reference.step, "analysis": "checkpoints", "seed": seed}
        rows += [
            records.row(model=str(reference), **row, **about)
            for row in entropy.rows()
            if row["layer"] is None
        ]
        start = f"step {reference.step}"
        setting = Setting(start, grid.main_rule, chunk=grid.chunk)
        for stream in grid.streams:
            found = measured(last, stream, setting, "checkpoints", params=params, start=start)
            rows += [{**row, "step": reference.step} for row in found]
    return rows


@functools.cache
def _entropy():
    return metrics.knowledge_entropy()


def meta(config: OnlineAdaptation, study: str, seed: int) -> list[dict]:
    """Starts that were trained on for the same cost.

    Plainly, by the first-order meta-gradient, and by the full one.
    """
    bench, grid, rows = bench_of(config, study, seed), config.grid, []
    starts = {"plain": "plain", "first order": "first", "full": "full"}
    for name, order in starts.items():
        params = train_start(bench, present(config.meta), order, seed)
        setting = Setting(name, "SGD", chunk=grid.chunk)
        for stream in grid.streams:
            rows += measured(bench, stream, setting, "meta", params=params, start=name)
    for stream in grid.streams:
        rows += measured(bench, stream, Setting("as it was", "SGD", chunk=grid.chunk), "meta")
    return rows


def train_start(bench: Bench, rule: Meta, order: str, seed: int) -> Any:
    """Parameters after training on the home text.

    `plain`: by likelihood; `first` or `full`: by the meta-gradient. Each update sees the same
    episodes.
    """
    chunk, span = bench.grid.chunk, rule.chunks * bench.grid.chunk
    text = data.join(data.tokenize(rule.text, bench.tokenizer), bench.tokenizer.end_of_text)
    updates = rule.updates * (1 if order == "full" else 3)
    starts = np.random.default_rng([seed, 3]).integers(
        0, len(text) - span - 1, (updates, rule.episodes)
    )
    optimizer = optax.adam(rule.outer_learning_rate)
    step = _meta_step(bench.model, rule.outer_learning_rate, rule.inner_learning_rate, order)
    params, state = jax.tree.map(jnp.copy, bench.params), optimizer.init(bench.params)
    for places in starts:
        setting = Setting("episode", None, chunk=chunk)
        episodes = [cut(bench, text[a : a + span + 1], setting) for a in places]
        stacked = jax.tree.map(lambda *parts: np.stack(parts), *episodes)
        params, state = step(params, state, stacked)
    return params


@functools.lru_cache(maxsize=4)
def _meta_step(model, outer: float, inner: float, order: str):
    optimizer = optax.adam(outer)
    rate, kind = (0.0, "first") if order == "plain" else (inner, order)

    def step(params, state, episodes):
        def one(summed, episode):
            found = meta_gradient(model, params, episode, learning_rate=rate, order=kind).gradient
            return jax.tree.map(jnp.add, summed, found), None

        total, _ = jax.lax.scan(one, jax.tree.map(jnp.zeros_like, params), episodes)
        slope = jax.tree.map(lambda g: g / len(episodes.first), total)
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def given_model(config: OnlineAdaptation, model: str, text: str) -> list[dict]:
    """A given model on one of its texts.

    Every rule, low-rank, the MLPs, and where the gradient profile says.
    """
    bench, grid = _given_bench(config, model), config.given
    rows = []
    for setting in table_of_rules(grid, grid.rules):
        rows += measured(bench, text, setting, "rules", along=True, trained="given")
    place = bench.known.get("profile") or profile(bench, text)
    if grid.choose_on is not None:  # one profile, of the text to choose by, for all streams
        bench.known["profile"] = place
    setting = Setting("localized", grid.main_rule, transforms.trained(place), chunk=grid.chunk)
    return rows + measured(bench, text, setting, "rules", along=True, trained="given")


@remembered
def _given_bench(config, model) -> Bench:
    return Bench(config, model, config.given, {"seed": config.seed})
