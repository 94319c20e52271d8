"""Panels over the updates of a continual training into which facts are injected at intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from lmdyn.report.panels import across, joined, means_with_seeds, own, panel


def round_starts(rounds: Mapping[int, int]) -> list[float]:
    """Updates at which rounds began.

    Args:
      rounds: how many had begun by each update at which the facts were probed.

    >>> round_starts({0: 0, 24: 2, 136: 10})
    [0.0, 12.0, 24.0, 36.0, 48.0, 60.0, 72.0, 84.0, 96.0, 108.0]
    """
    updates = sorted(rounds)
    # The last round is followed by updates without facts, so its length is not known.
    if len(updates) < 3 or not rounds[updates[1]]:
        return [0.0]
    return [updates[1] / rounds[updates[1]] * i for i in range(rounds[updates[-1]])]


def over_updates(
    points: Sequence[Mapping[str, Any]],
    title: str,
    color: alt.Color,
    *,
    by: Mapping[str, str],
    shades: int = 5,
    format: str = ".3f",
    domain: tuple[float, float] | None = None,
) -> alt.TopLevelMixin:
    """One measure over the updates: a line for each colour, dotted rules where a round begins.

    Args:
      points: `update`, `rounds`, `seed`, `value` and what `by` names.
      title: of the panel.
      color: of the lines.
      by: fields that tell the lines apart, with the tooltips' names for them.
      shades: how many lines there are.
      format: of values.
      domain: of the upright axis, for panels that share it.
    """
    mean = means_with_seeds(points, [*by, "update", "rounds"], format=format)
    title_x, ends = "updates of the continual training", [0, max(p["update"] for p in points)]
    x = across("update:Q", title_x, ",d", ticks=5, domain=ends, padding=4)
    scale = alt.Scale(zero=False, nice=True, domain=list(domain) if domain else alt.Undefined)
    axis = alt.Axis(tickCount=5, format="%" if format.endswith("%") else alt.Undefined)
    y = alt.Y("value:Q", title=title, axis=axis, scale=scale)
    base = alt.Chart().encode(x=x, y=y, color=color)
    tip = [
        *(f"{name} = {field}:N" for field, name in by.items()),
        "updates = update:Q ,d",
        "rounds begun = rounds:Q",
        f"value = value:Q {format}",
        *(["seeds = each:N"] if any(m["seeds"] > 1 for m in mean) else []),
    ]
    starts = round_starts({p["update"]: p["rounds"] for p in points})
    marks = own([{"update": u} for u in starts]).mark_rule(style="round").encode(x=x)
    return panel(mean, marks, *joined(base, tip), shades=shades)
