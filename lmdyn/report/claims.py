"""The claims that a study ends with, as the first part of its page: sentence, verdict, and the
number that decides.
"""

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmdyn.errors import InputError
from lmdyn.report import small
from lmdyn.report.markup import e

FIELDS = (
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
      InputError: the file is no list of claims.
    """
    path = Path(folder) / "claims.json"
    if not path.exists():
        return []
    try:
        claims = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise InputError(f"{path} cannot be read: {err}; run the study's command again") from err
    if not isinstance(claims, list):
        raise InputError(f"{path} is no list of claims; run the study's command again")
    for number, claim in enumerate(claims, 1):
        missing = [f for f in FIELDS if not isinstance(claim, dict) or f not in claim]
        if missing:
            raise InputError(
                f"{path}: claim {number} lacks {', '.join(missing)}; run the study's command again"
            )
        if claim["verdict"] not in SIGNS:
            raise InputError(
                f"{path}: claim {number}: verdict '{claim['verdict']}'; it is one of:"
                f" {', '.join(SIGNS)}"
            )
    return claims


def count(claims: Sequence[Mapping[str, Any]]) -> str:
    """How many there are of each verdict; those of small versions of studies are counted apart,
    whatever their verdict.

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


def number(value: float) -> str:
    """A number to three significant digits, with a real minus.

    >>> [number(x) for x in (0.21614, -2.4425, 1234.5, -0.00035219, 0)]
    ['0.216', '\u22122.44', '1,234', '\u22120.000352', '0']
    """
    if value == 0:
        return "0"
    digits = min(9, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{digits}f}".replace("-", "\u2212")


def measured(claim: Mapping[str, Any]) -> str:
    """The number that decides, with its interval and unit, in words.

    >>> measured({"measured": 0.5, "low": -0.25, "high": 1.25, "unit": "nats"})
    '0.500 nats (95%: \u22120.250 to 1.25)'
    >>> measured({"measured": 0.0317, "low": None, "high": None, "unit": "share"})
    '3.17% (one replicate: no interval)'
    """
    if claim["measured"] is None:
        return "no number: it takes two seeds or more"
    by, sign = (100, "%") if claim["unit"] == "share" else (1, "")
    unit = "" if claim["unit"] in ("share", "correlation") else f" {claim['unit']}"
    value = f"{number(by * claim['measured'])}{sign}{unit}"
    if claim["low"] is None or claim["high"] is None:
        return f"{value} (one replicate: no interval)"
    return f"{value} (95%: {number(by * claim['low'])}{sign} to {number(by * claim['high'])}{sign})"


def section(claims: Sequence[Mapping[str, Any]], figures: Collection[str]) -> str:
    """The claims as HTML: study by study where there are several; what several folders say on the
    same claim stands together.

    Before all of them it is said which studies are small versions, whose verdicts decide nothing;
    it stands at each of these, too.

    Args:
      figures: names of the figures that are on the page; others are not linked.
    """
    parts, studies = [], list(dict.fromkeys(c["study"] for c in claims))
    for study in studies:
        own = [c for c in claims if c["study"] == study]
        folders = list(dict.fromkeys(c.get("folder", "") for c in own))
        head = f"<h3>{e(study[:1].upper() + study[1:])}</h3>" if len(studies) > 1 else ""
        groups: dict[tuple, list] = {}
        for c in own:
            groups.setdefault((c.get("same", c["id"]), c["sentence"]), []).append(c)
        made = "".join(
            _together(g, figures) if len(folders) > 1 else _claim(g[0], figures)
            for g in groups.values()
        )
        parts.append(f"{head}<ul class=claims>{made}</ul>")
    return small.above_claims(claims) + "".join(parts)


def _claim(claim, figures):
    return (
        f'<li id="claim-{e(claim["id"])}" class="{_kind(claim)}">{_verdict(claim)}'
        f"<div>{_sentence(claim)}<p"
        f" class=measured>{_bar(claim, _reach([claim]))}{e(measured(claim))}{_link(claim, figures)}</p>"
        f"<p class=how>{e(claim['how'])}</p></div></li>"
    )


def _together(claims, figures):
    """One sentence, and what each folder says on it; their bars have the same scale, and stand
    below one another.
    """
    reach, longest = _reach(claims), max(len(c["folder"]) for c in claims)
    lines = "".join(
        f'<div class="one {_kind(c)}" id="claim-{e(c["id"])}">{_verdict(c)}<p'
        f" class=measured><b>{e(c['folder'])}</b>"
        f" {_bar(c, reach)}{e(measured(c))}{_link(c, figures)}</p></div>"
        for c in claims
    )
    return (
        f'<li class=several style="--name: {min(longest, 28)}ch">{_sentence(claims[0])}{lines}<p'
        f" class=how>{e(claims[0]['how'])}</p></li>"
    )


def _kind(claim) -> str:
    return claim["verdict"].replace(" ", "-") + (" idle" if claim.get("small") else "")


def _verdict(claim) -> str:
    note = "<small>small version: decides nothing</small>" if claim.get("small") else ""
    return (
        f"<p class=verdict><span aria-hidden=true>{SIGNS[claim['verdict']]}</span>"
        f" {claim['verdict']}{note}</p>"
    )


def _sentence(claim) -> str:
    return f"<p class=sentence>{e(claim['sentence'])} <small>{e(claim['source'])}</small></p>"


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
