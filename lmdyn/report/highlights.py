"""What a page opens with: the two to four figures that carry its answer, a sentence for each.

The sentence of what was measured comes with its figure (`Figure.says`); that of a study is the
claim that the figure shows, with the number that decides it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lmdyn.report.claims_table import measured
from lmdyn.report.figure_blocks import Group, many
from lmdyn.report.markup import e

LEAST, ENOUGH, MOST = 2, 3, 4
"""So many figures: of what decides nothing, of all else, and with those that ask to open a page."""


class Highlight(NamedTuple):
    """A figure of the answer."""

    group: Group
    says: str
    """Its sentence, as HTML."""


def choose(
    studies: Sequence[Sequence[Group]], others: Sequence[Group], claims: Sequence[Mapping[str, Any]]
) -> list[Highlight]:
    """The figures that a page opens with.

    Claims that were decided come first, one per study and then more; then what was measured, by
    its rank (`Figure.rank`); then claims that are undecided, or of small versions, which decide
    nothing.

    Args:
      studies: figures of each study.
      others: figures of what was measured otherwise.
      claims: of all folders.
    """
    decided = [c for c in claims if not c.get("small") and c["verdict"] != "undecided"]
    ahead, rest = (
        [Highlight(g, e(f.says)) for g in others for _, f in g.figures if f.says and f.rank == rank]
        for rank in (1, 0)
    )
    found: dict[str, Highlight] = {}
    firsts = [Highlight(groups[0], "") for groups in studies if groups]
    ranked = (
        (ENOUGH, _shown(studies, decided)),
        (MOST, ahead),
        (ENOUGH, rest),
        (LEAST, _shown(studies, claims)),
        (1, firsts),
    )
    for most, ones in ranked:
        for one in ones:
            if len(found) < most:
                found.setdefault(one.group.figures[0][1].name, one)
    return sorted(found.values(), key=lambda one: many(one.group))  # narrow ones share a row


def _shown(
    studies: Sequence[Sequence[Group]], claims: Sequence[Mapping[str, Any]]
) -> list[Highlight]:
    """The figures that show claims, each with the first claim that it shows.

    Of every study one, then of every study another.
    """
    columns = []
    for groups in studies:
        names = {figure.name: group for group in groups for _, figure in group.figures}
        own: dict[int, list] = {}
        for claim in claims:
            if (group := names.get(claim["figure"])) is not None:
                own.setdefault(id(group), [group]).append(claim)
        columns.append([Highlight(g, _sentence(found)) for g, *found in own.values()])
    longest = max(map(len, columns), default=0)
    return [column[i] for i in range(longest) for column in columns if i < len(column)]


def _sentence(claims: Sequence[Mapping[str, Any]]) -> str:
    """The first of some claims, with its number and verdict; of several folders what each says."""
    first = claims[0]
    same = [c for c in claims if c.get("same", c["id"]) == first.get("same", first["id"])]
    ends = [
        (f"<b>{e(c['folder'])}</b> " if len(same) > 1 else "")
        + f"{e(measured(c))}: <b>{'small version' if c.get('small') else c['verdict']}</b>."
        for c in same
    ]
    return f"{e(first['sentence'])} {' '.join(ends)}"
