"""The figures of what `lmdyn measure`, `gradients`, `online` and `train` leave, and what they are
about in words.
"""

from collections.abc import Sequence

from lmdyn.report import figures, gradient_profiles
from lmdyn.report.figures import Figure
from lmdyn.report.gather import Run


def measured(runs: Sequence[Run]) -> list[Figure]:
    """The figures of what `lmdyn measure`, `online` and `train` leave."""
    rows = [r for run in runs for r in run.rows]
    figs = []

    def layers(name, title, metric, site, unit, caption, axis="layer"):
        chart = figures.by_layer(rows, metric, site, unit, axis)
        if chart is not None:
            data = figures.layer_data(rows, metric, site) + figures.final_data(rows, metric)
            used = [run for run in runs if any(r["metric"] == metric for r in run.rows)]
            figs.append(Figure(name, title, f"{caption} {_about(used)}", chart, data))

    layers(
        "knowledge-entropy",
        "Knowledge entropy by layer",
        "knowledge_entropy",
        "mlp",
        "nats",
        "How evenly each layer's MLP spreads its coefficients over its memory vectors: the entropy"
        " of their mean sizes over the text, in nats. The ceiling is log F, reached when all F"
        " coefficients are equally large; a lower value means that fewer vectors do the work. Kim"
        " et al. 2024.",
    )
    layers(
        "anisotropy",
        "Anisotropy by depth",
        "anisotropy",
        "residual",
        "mean cosine",
        "Mean cosine similarity between the representations of all pairs of tokens, after each"
        " number of blocks (0 is the embedding): 0 means directions spread evenly, 1 that all point"
        " the same way. The diamond is the representation after the last norm, which the head"
        " reads. Godey et al. 2024.",
        "blocks applied",
    )
    figs += gradient_profiles.profiles(rows)
    for run in runs:
        if {"static", "online"} <= run.traces.keys() and len(run.traces["static"]):
            figs += _stream_figures(run, sum(1 for f in figs if f.name.startswith("stream")))
    layers(
        "attention-entropy",
        "Attention entropy by layer",
        "attention_entropy",
        "attention",
        "nats",
        "Mean entropy of the attention distributions over heads and queries, in nats: low means"
        " that few tokens are looked at.",
    )
    return figs


def _stream_figures(run, number):
    data = figures.stream_data(run.traces["static"], run.traces["online"])
    ending = f"-{number + 1}" if number else ""
    c, size = run.meta.get("config", {}), data[0]["end"]
    how = [
        f"{k} {c[k]}"
        for k in ("optimizer", "lr", "chunk", "context", "window", "adapt", "reset")
        if c.get(k) is not None
    ]
    about = _about([run]) + (f" Online settings: {', '.join(how)}." if how else "")
    return [
        Figure(
            f"stream{ending}",
            "Static against online likelihood",
            f"Negative log-likelihood in nats a token, mean over runs of {size:,} predictions."
            f" Online: every token is scored before the model is updated on it. {about}",
            figures.stream(data),
            data,
        ),
        Figure(
            f"gain{ending}",
            "What adaptation has saved so far",
            "Sum over the stream of static minus online nll, in nats. Rising means that the"
            f" adapted model predicts better there; at the end, {data[-1]['gain']:,.0f} nats over"
            f" {data[-1]['end']:,} predictions. {about}",
            figures.gain(data),
            [{"end": d["end"], "gain": d["gain"]} for d in data],
        ),
    ]


def _about(runs):
    """Model and text of some runs, as the end of a caption."""
    models = list(dict.fromkeys(figures.label(r) for run in runs for r in run.rows))
    texts = list(
        dict.fromkeys(
            run.meta["config"]["data"] for run in runs if run.meta.get("config", {}).get("data")
        )
    )
    tokens = sorted({r["tokens"] for run in runs for r in run.rows if r["tokens"]})
    model = f"{len(models)} models" if len(models) > 3 else ", ".join(models)
    count = f", {tokens[0]:,} predictions" if len(tokens) == 1 else ""
    return f"Model: {model}. Text: {', '.join(texts) or 'unknown'}{count}."


def summary(runs: Sequence[Run]) -> str:
    """What was measured, in a line."""
    models = list(dict.fromkeys(figures.label(r) for run in runs for r in run.rows))
    texts = list(
        dict.fromkeys(
            run.meta["config"]["data"] for run in runs if run.meta.get("config", {}).get("data")
        )
    )
    named = models[0] if len(models) == 1 else f"{len(models)} models"
    return (
        f"{named} on {', '.join(texts) or 'a text'}: {sum(len(run.rows) for run in runs):,}"
        " measurements."
    )
