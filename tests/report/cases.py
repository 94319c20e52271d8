"""Rows as `measure` and `online` write them, small and made up."""

import math

import numpy as np

from lmdyn.records import Quantity, describe, row, write_rows

MODEL = "gguf:/models/Tiny-5M.gguf"
META = {
    "command": "lmdyn measure gguf:/models/Tiny-5M.gguf --data 'text:a <b>.txt'",
    "config": {"data": "text:a <b>.txt", "length": 7},
    "versions": {"lmdyn": "0.1.0", "python": "3.11.7"},
    "device": "1 x cpu",
    "seed": None,
    "started": "2026-01-02T03:04:05+00:00",
    "wall_seconds": 12.5,
    "tokens": 35,
    "tokens_per_second": 2.8,
    "peak_memory_mib": 512.0,
    "metrics": describe(
        [
            Quantity("nll", "Negative log-likelihood", "nats", fields={"perplexity": "Perplexity"}),
            Quantity("knowledge_entropy", "Knowledge entropy", "nats", "mlp"),
            Quantity("anisotropy", "Anisotropy", "cosine"),
        ]
    ),
}


def measured(model=MODEL, step=None, layers=5, shift=0.0):
    about = {"step": step, "tokens": 35}
    ceiling = math.log(11)
    entropies = [ceiling * (0.9 - 0.1 * i) - shift for i in range(layers)]
    rows = [row("nll", 3.25, "nats", model=model, perplexity=math.exp(3.25), **about)]
    rows += [
        row(
            "knowledge_entropy",
            h,
            "nats",
            model=model,
            site="mlp",
            layer=i,
            normalized=h / ceiling,
            **about,
        )
        for i, h in enumerate(entropies)
    ]
    rows += [row("knowledge_entropy", sum(entropies), "nats", model=model, site="mlp", **about)]
    rows += [
        row("anisotropy", 0.1 * i, "cosine", model=model, site="residual", layer=i, **about)
        for i in range(layers + 1)
    ]
    rows += [row("anisotropy", 0.37, "cosine", model=model, site="final", **about)]
    return rows


def traces(count=35):
    static = 3 + np.sin(np.arange(count, dtype=np.float32))
    return {"static": static, "online": (static - np.linspace(0, 0.5, count)).astype(np.float32)}


def streamed(model=MODEL):
    pairs = traces().items()
    rows = [
        row(
            f"{k}_nll",
            float(v.mean()),
            "nats",
            model=model,
            perplexity=float(np.exp(v.mean())),
            tokens=35,
        )
        for k, v in pairs
    ]
    return rows + [
        row("flops", 2e12 * (1 + i), "flops", model=model, site=k, tokens=35)
        for i, (k, _) in enumerate(pairs)
    ]


def folder(path):
    """A folder of rows, as the two verbs leave it."""
    write_rows(path / "measure.jsonl", measured(), META)
    write_rows(path / "online.jsonl", streamed(), META, traces())
    return path
