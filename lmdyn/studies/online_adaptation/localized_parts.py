"""The part of online adaptation that adapts where the gradient of the stream is large."""

from typing import Any

import numpy as np

from lmdyn import records, transforms
from lmdyn.studies.online_adaptation.bench import Setting, measured, profile
from lmdyn.studies.online_adaptation.config import OnlineAdaptation
from lmdyn.studies.online_adaptation.parts import bench_of, shifted_stream


def localized(config: OnlineAdaptation, study: str, seed: int) -> list[dict]:
    """The profile of the last stream's first chunks, and adapting by it.

    Adapting where it is above its mean, and at as many places drawn at random, at equal cost.
    """
    bench, grid, text = bench_of(config, study, seed), config.grid, shifted_stream(config)
    found = profile(bench, text)
    about = {"step": bench.step, "analysis": "localized", "seed": seed, "stream": text}
    rows = [records.row(model=bench.reference, **{**row, **about}) for row in found.rows()]
    for name, adapt in [
        ("localized", transforms.trained(found)),
        *((f"random {k}", selector) for k, selector in enumerate(controls(found, seed))),
    ]:
        rows += measured(
            bench, text, Setting(name, grid.main_rule, adapt, chunk=grid.chunk), "localized"
        )
    return rows


def controls(found: Any, seed: int, draws: int = 2) -> list[str]:
    """Selectors of equal cost.

    As many attention and MLP layers as lie above the profile's mean, the lowest of them where
    it was.

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
