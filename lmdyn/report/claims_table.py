"""The claims that a study ends with, as a table: sentence, estimate, interval, verdict."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmdyn.errors import InputError
from lmdyn.report import small_versions
from lmdyn.report.figures import number
from lmdyn.report.markup import e

CLAIM_FIELDS = (
    "id",
    "study",
    "source",
    "sentence",
    "measured",
    "low",
    "high",
    "unit",
    "verdict",
    "figure",
    "how",
)
SIGNS = {"supported": "\u2713", "not supported": "\u2715", "undecided": "?"}


def read(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """The claims of a study's folder, in their order; none where `claims.json` is not there.

    Raises:
      InputError: the file is not a list of claims.

    >>> import tempfile
    >>> read(tempfile.mkdtemp())
    []
    """
    path = Path(folder) / "claims.json"
    if not path.exists():
        return []
    try:
        claims = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise InputError(f"{path} cannot be read: {err}; run the study's command again") from err
    if not isinstance(claims, list):
        raise InputError(f"{path} is not a list of claims; run the study's command again")
    for place, claim in enumerate(claims, 1):
        missing = [f for f in CLAIM_FIELDS if not isinstance(claim, dict) or f not in claim]
        if missing:
            raise InputError(
                f"{path}: claim {place} lacks {', '.join(missing)}; run the study's command again"
            )
        if claim["verdict"] not in SIGNS:
            raise InputError(
                f"{path}: claim {place}: verdict '{claim['verdict']}'; it is one of:"
                f" {', '.join(SIGNS)}"
            )
    return claims


def count(claims: Sequence[Mapping[str, Any]]) -> str:
    """How many there are of each verdict; those of small versions of studies are counted apart.

    >>> count([{"verdict": "supported"}, {"verdict": "undecided"}, {"verdict": "supported"}])
    '3 claims: 2 supported, 1 undecided'
    >>> count(
    ...     [
    ...         {"verdict": "supported", "small": "configs/saturation.py"},
    ...         {"verdict": "supported"},
    ...     ]
    ... )
    '1 claim: 1 supported; 1 claim of a small version, which decides nothing'
    """
    real = [c for c in claims if not c.get("small")]
    rest = [c for c in claims if c.get("small")]
    found = [f"{n} {v}" for v in SIGNS if (n := sum(c["verdict"] == v for c in real))]
    said = f"{_claims(real)}: {', '.join(found)}" if real else ""
    if not rest:
        return said
    versions = (
        "small versions of studies"
        if len({c["study"] for c in rest if "study" in c}) > 1
        else "a small version"
    )
    return (
        f"{said}{'; ' if said else ''}{_claims(rest)} of {versions}, which"
        f" decide{'s' if len(rest) == 1 else ''} nothing"
    )


def _claims(found: Sequence) -> str:
    return f"{len(found)} claim{'' if len(found) == 1 else 's'}"


def estimate(claim: Mapping[str, Any]) -> str:
    """The number that decides, with its unit.

    >>> (
    ...     estimate({"measured": 0.5, "unit": "nats"}),
    ...     estimate({"measured": 0.0317, "unit": "share"}),
    ... )
    ('0.500 nats', '3.17%')
    """
    if claim["measured"] is None:
        return "\u2013"
    by, sign = (100, "%") if claim["unit"] == "share" else (1, "")
    unit = "" if claim["unit"] in ("share", "correlation") else f" {claim['unit']}"
    return f"{number(by * claim['measured'])}{sign}{unit}"


def interval(claim: Mapping[str, Any]) -> str:
    """The ends of its interval, in the estimate's unit; nothing where there is none.

    >>> interval({"low": -0.25, "high": 1.25, "unit": "nats"})
    '\u22120.250 to 1.25'
    """
    if claim["low"] is None or claim["high"] is None:
        return ""
    by, sign = (100, "%") if claim["unit"] == "share" else (1, "")
    return f"{number(by * claim['low'])}{sign} to {number(by * claim['high'])}{sign}"


def measured(claim: Mapping[str, Any]) -> str:
    """Estimate and interval in words.

    >>> measured({"measured": 0.5, "low": -0.25, "high": 1.25, "unit": "nats"})
    '0.500 nats (95%: \u22120.250 to 1.25)'
    >>> measured({"measured": 0.0317, "low": None, "high": None, "unit": "share"})
    '3.17% (one replicate: no interval)'
    """
    if claim["measured"] is None:
        return "no number: it takes two seeds or more"
    between = interval(claim)
    return f"{estimate(claim)} ({f'95%: {between}' if between else 'one replicate: no interval'})"


def section(claims: Sequence[Mapping[str, Any]], figures: Collection[str]) -> str:
    """The claims as HTML: a table per study, grouped by paper with counts, one line per claim.

    One notice above says which studies are small versions; beside others these are folded.

    Args:
      claims: those of all folders, each with `small`, and `folder` where there are several.
      figures: names of the figures that are on the page; others are not linked.
    """
    parts = []
    studies = list(dict.fromkeys(c["study"] for c in claims))
    for study in studies:
        own = [c for c in claims if c["study"] == study]
        small = all(c.get("small") for c in own)
        title = study[:1].upper() + study[1:]
        parts.append(
            f'<details class="claims{" idle" if small else ""}"'
            f"{'' if small and len(studies) > 1 else ' open'}>"
            f"<summary><h3>{e(title)}</h3> <span class=count>{e(tally(own))}</span></summary>"
            f"{_table(title, own, figures)}</details>"
        )
    return small_versions.above_claims(claims) + "".join(parts)


def tally(claims: Sequence[Mapping[str, Any]]) -> str:
    """`count`, in fewer words where the claims are of small versions.

    >>> tally([{"verdict": "supported", "small": "configs/tour/saturation.py"}])
    '1 claim of a small version'
    """
    if not all(c.get("small") for c in claims):
        return count(claims)
    return f"{_claims(claims)} of a small version"


def _table(title: str, claims: Sequence[Mapping[str, Any]], figures: Collection[str]) -> str:
    """One study's claims: a group of lines per paper. The page's script makes it sortable."""
    several = len({c.get("folder", "") for c in claims}) > 1
    bodies = []
    for source in dict.fromkeys(c["source"] for c in claims):
        own = [c for c in claims if c["source"] == source]
        groups: dict[tuple, list] = {}
        for c in own:
            groups.setdefault((c.get("same", c["id"]), c["sentence"]), []).append(c)
        make = _together if several else lambda group, figures: _line(group[0], figures)
        lines = "".join(make(group, figures) for group in groups.values())
        bodies.append(
            "<tbody role=rowgroup><tr role=row class=paper>"
            f"<th role=rowheader scope=rowgroup colspan=4>{e(paper(source))}"
            f" <span class=count>{e(tally(own))}</span></th></tr>{lines}</tbody>"
        )
    return (
        f"<table role=table{'' if several else ' class=sortable'}>"
        f"<caption class=unseen>Claims of {e(title)}</caption><thead><tr>"
        "<th scope=col class=claim>Claim</th><th scope=col class=estimate>Estimate</th>"
        "<th scope=col class=interval>95% interval</th><th scope=col class=verdict>Verdict</th>"
        f"</tr></thead>{''.join(bodies)}</table>"
    )


def paper(source: str) -> str:
    """What a group of claims is headed.

    >>> paper("Kim et al. 2024"), paper("lmdyn")
    ('Kim et al. 2024', 'Further questions, not in the paper')
    """
    return "Further questions, not in the paper" if source == "lmdyn" else source


def _line(claim: Mapping[str, Any], figures: Collection[str]) -> str:
    """One claim: its sentence, which opens to how it was decided; estimate, interval, verdict."""
    more = f"{e(claim['how'])} {e(measured(claim))}.{_link(claim, figures)}"
    return (
        f'<tr role=row id="claim-{e(claim["id"])}" class="{_kind(claim)}">'
        "<th role=rowheader scope=row class=claim>"
        f"<details><summary>{e(claim['sentence'])}</summary><p>{more}</p></details></th>"
        f"{_found(claim, _reach([claim]))}</tr>"
    )


def _together(claims: Sequence[Mapping[str, Any]], figures: Collection[str]) -> str:
    """One sentence, and a line per folder; their bars have the same scale."""
    reach, first = _reach(claims), claims[0]
    lines = "".join(
        f'<tr role=row id="claim-{e(c["id"])}" class="{_kind(c)} one">'
        "<th role=rowheader scope=row class=claim>"
        f"<b>{e(c['folder'])}</b>{' <small>small version</small>' if c.get('small') else ''}"
        f"{_link(c, figures)}</th>{_found(c, reach)}</tr>"
        for c in claims
    )
    return (
        "<tr role=row class=several><th role=rowheader colspan=4 class=claim>"
        f"<details><summary>{e(first['sentence'])}"
        f"</summary><p>{e(first['how'])}</p></details></th></tr>{lines}"
    )


def _found(claim: Mapping[str, Any], reach: float) -> str:
    """The cells of estimate, interval and verdict; `data-value` is what they are sorted by."""
    verdict = claim["verdict"]
    value = "" if claim["measured"] is None else claim["measured"]
    return (
        f'<td role=cell class=estimate data-value="{value}">{e(estimate(claim))}</td>'
        f"<td role=cell class=interval>{_bar(claim, reach)}<span>{e(interval(claim))}</span></td>"
        f'<td role=cell class=verdict data-value="{list(SIGNS).index(verdict)}">'
        f"<span aria-hidden=true>{SIGNS[verdict]}</span> {verdict}</td>"
    )


def _kind(claim) -> str:
    return claim["verdict"].replace(" ", "-") + (" idle" if claim.get("small") else "")


def _link(claim, figures) -> str:
    return f' <a href="#{e(claim["figure"])}">Figure</a>' if claim["figure"] in figures else ""


def _reach(claims) -> float:
    """The number at the end of the bars of some claims, so that all of them fit."""
    ends = [abs(c[k]) for c in claims for k in ("low", "high") if c[k] is not None]
    return max([*ends, 1e-12]) * 1.08


def _bar(claim, reach) -> str:
    """The interval beside 0, as a small picture; the words beside it say the same."""
    low, high, value = claim["low"], claim["high"], claim["measured"]
    if value is None or low is None or high is None:
        return ""
    left, right, middle = (round(60 + 60 * x / reach, 1) for x in (low, high, value))
    return (
        '<svg class=bar viewBox="0 0 120 16" aria-hidden=true><path class=zero d="M60 0V16"/>'
        f'<path d="M{left} 8H{right}"/><circle cx="{middle}" cy="8" r="3.5"/></svg>'
    )
