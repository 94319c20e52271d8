"""What adapting to a stream gains: static and online likelihood along it."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from lmdyn.records import Quantity
from lmdyn.report.figures import Figure, chart_of, number, rounded
from lmdyn.report.folders import Run
from lmdyn.report.panels import across, tooltips, upright
from lmdyn.types import ArrayLike

STREAM_QUANTITIES = {
    name: Quantity(name, title, unit, fields={"perplexity": "Perplexity"} if unit == "nats" else {})
    for name, title, unit in (
        ("static_nll", "Static nll", "nats"),
        ("online_nll", "Online nll", "nats"),
        ("flops", "Compute", "flops"),
    )
}
"""What the rows of `lmdyn online` hold, in words, by name."""
SETTINGS = ("optimizer", "learning_rate", "lr", "chunk", "context", "window", "adapt", "reset")
"""Settings named in a caption, where the rows' provenance has them."""

STREAM_BINS = 48
"""Points of a curve: enough to see change, few enough for a steady mean in each."""


def figures(run: Run, about: str) -> list[Figure]:
    """Both likelihoods along a stream, and what adaptation has saved; nothing without traces.

    Args:
      run: what `lmdyn online` left.
      about: model and text, in a sentence.
    """
    if not {"static", "online"} <= run.traces.keys() or not len(run.traces["static"]):
        return []
    data = stream_data(run.traces["static"], run.traces["online"])
    config, size, last = run.meta.get("config", {}), data[0]["end"], data[-1]
    how = [f"{k.replace('_', ' ')} {config[k]}" for k in SETTINGS if config.get(k) is not None]
    about += f" Online settings: {', '.join(how)}." if how else ""
    means = {k: float(np.mean(run.traces[k], dtype=np.float64)) for k in ("static", "online")}
    return [
        Figure(
            "gain",
            "What adaptation has saved so far",
            "Sum over the stream of static minus online nll, in nats: where it rises, the adapted"
            f" model predicts better than the unchanged one. {about}",
            gain(data),
            [{"end": d["end"], "gain": d["gain"]} for d in data],
            says=(
                f"Adapting while reading {'saves' if last['gain'] >= 0 else 'costs'}"
                f" {abs(last['gain']):,.0f} nats over {last['end']:,} predictions:"
                f" {number(means['online'])} nats per token in place of {number(means['static'])}"
                f" (perplexity {np.exp(means['online']):.2f} in place of"
                f" {np.exp(means['static']):.2f})."
            ),
            rank=1,
        ),
        Figure(
            "stream",
            "Static against online likelihood",
            f"Negative log-likelihood in nats per token, mean over runs of {size:,} predictions:"
            " lower is better, and the gap between the lines is what adapting gains. Online: every"
            f" token is scored before the model is updated on it. {about}",
            stream(data),
            data,
        ),
    ]


def stream_data(
    static: ArrayLike, online: ArrayLike, bins: int = STREAM_BINS
) -> list[dict[str, Any]]:
    """Both curves and their cumulative difference, in runs of predictions of equal length.

    Args:
      static: [N] nats, one per prediction.
      online: [N] nats, of the same predictions.
      bins: at most this many runs.

    Returns:
      One dict per run: `start`, `end` (predictions, end not included), `static`, `online` (mean
      nats over the run), `gain` (nats: the sum of static - online over all predictions up to
      `end`).

    >>> stream_data([4, 2, 3], [3, 2, 1], bins=2)[-1]
    {'start': 2, 'end': 3, 'static': 3.0, 'online': 1.0, 'gain': 3.0}
    """
    before, after = np.asarray(static, np.float64), np.asarray(online, np.float64)
    size = max(1, -(-len(before) // bins))
    starts = np.arange(0, len(before), size)
    ends = np.minimum(starts + size, len(before))
    means = [np.add.reduceat(a, starts) / (ends - starts) for a in (before, after)]
    gain = np.cumsum(before - after)[ends - 1]
    return [
        {"start": int(a), "end": int(b)}
        | {"static": rounded(s), "online": rounded(o), "gain": rounded(g)}
        for a, b, s, o, g in zip(starts, ends, *means, gain, strict=True)
    ]


def stream(data: Sequence[Mapping[str, Any]]) -> alt.TopLevelMixin:
    """Static against online nll along the stream. `data`: see `stream_data`."""
    base = alt.Chart().transform_calculate(middle="(datum.start + datum.end) / 2")
    ends = {"domainMin": 0, "domainMax": data[-1]["end"]}
    names: list[Any] = ["online", "static"]
    x = across("middle:Q", "predictions so far", ",d", ticks=5, **ends)
    y = upright("nats per token")
    color = alt.Color("series:N", scale=alt.Scale(domain=names), sort=names)
    lines = base.transform_fold(names, as_=["series", "value"]).mark_line()
    lines = lines.encode(x=x, y=y, color=color, detail="series:N")
    return chart_of(list(data), lines, _cursor(base, x, names))


def gain(data: Sequence[Mapping[str, Any]]) -> alt.TopLevelMixin:
    """What adaptation has saved so far, in nats, along the stream. `data`: see `stream_data`."""
    values = [{"end": 0, "gain": 0.0}, *({"end": d["end"], "gain": d["gain"]} for d in data)]
    base = alt.Chart()
    x = across("end:Q", "predictions so far", ",d", ticks=5, domainMin=0, domainMax=data[-1]["end"])
    y = alt.Y("gain:Q", title="nats saved", axis=alt.Axis(tickCount=5))
    zero = alt.Chart(alt.Data(values=[{"gain": 0}])).mark_rule(style="zero").encode(y="gain:Q")
    area = base.mark_area(style="under").encode(x=x, y=y)
    line = base.mark_line().encode(x=x, y=y)
    return chart_of(values, area, zero, line, _cursor(base, x, ["gain"]))


def _cursor(base, x, names):
    """An upright line at the nearest point, whose tooltip shows the values there."""
    field = x.shorthand.partition(":")[0]
    how = dict[str, Any](on="pointerover", clear="pointerout", encodings=["x"])
    near = alt.selection_point("near", nearest=True, empty=False, **how)
    title = {"gain": "nats saved", "middle": "at prediction"}
    tip = [f"at prediction = {field}:Q ,d"] + [f"{title.get(n, n)} = {n}:Q ,.3f" for n in names]
    seen = alt.condition(near, alt.value(0.6), alt.value(0))
    rule = base.mark_rule(style="cursor").encode(x=x, opacity=seen, tooltip=tooltips(tip))
    return rule.add_params(near)
