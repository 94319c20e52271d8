"""Studies that ran as a small version of themselves: what the page says of them, so that nobody
takes their verdicts for findings.

How far a verdict may be trusted cannot be told from its interval: two seeds of models that hardly
learnt anything may agree. So a study says itself that it is small: its config names the one that it
is the small version of (`small_version_of`), and the rows' provenance holds the config.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lmdyn.report.markup import e

SAYS = (
    "This is the small version of a study: it shows how the study goes, on too little training to"
    " find anything out."
)
"""What every notice says; `lmdyn.report.claims` says it in fewer words at each verdict."""


def whole(meta: Mapping[str, Any]) -> str:
    """The config at whose size a study decides something, where its rows are of a small version;
    empty where they are not.

    Args:
      meta: what made the rows.

    >>> (
    ...     whole({"config": {"seeds": 2, "small_version_of": "configs/saturation.py"}}),
    ...     whole({"config": {"seeds": 1}}),
    ... )
    ('configs/saturation.py', '')
    """
    config = meta.get("config")
    named = config.get("small_version_of") if isinstance(config, Mapping) else None
    return named if isinstance(named, str) else ""


def command(config: str) -> str:
    """What runs a study at its real size.

    >>> command("configs/saturation.py")
    'lmdyn study --config configs/saturation.py --out out/saturation'
    """
    return shlex.join(words(config))


def words(config: str) -> list[str]:
    """The same, word by word."""
    return [
        "lmdyn",
        "study",
        "--config",
        config,
        "--out",
        "out/" + config.rpartition("/")[2].removesuffix(".py"),
    ]


def above_claims(claims: Sequence[Mapping[str, Any]]) -> str:
    """What stands before all claims, as HTML: which of the studies are small; nothing where none
    is.
    """
    found = {claim["study"]: claim["small"] for claim in claims if claim.get("small")}
    if not found:
        return ""
    which = (
        "Every study here is"
        if len(found) == len({claim["study"] for claim in claims})
        else f"{listed(list(found))} {'is' if len(found) == 1 else 'are'} here"
    )
    one = len(found) == 1
    return _box(
        f"{which} a small version, which shows how {'it goes' if one else 'each goes'}."
        f" {'Its' if one else 'Their'} verdicts decide nothing: they show how a verdict is come to,"
        f" on too little training to find anything out. What runs {'it' if one else 'them'} at"
        f" {'its' if one else 'their'} real size:",
        [command(config) for config in found.values()],
    )


def in_study(metas: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> str:
    """What stands at the head of a study's section, as HTML; nothing where none of its folders is
    of a small version.

    Args:
      metas: of each folder. parts: the folders' names, where there are several.
    """
    found = {
        part: config for meta, part in zip(metas, parts, strict=True) if (config := whole(meta))
    }
    if not found:
        return ""
    which = f"In {listed(list(found))}: " if len(found) < len(metas) else ""
    said = (
        f"{which}{SAYS} Its figures and verdicts decide nothing. What runs it at its real size (the"
        " file's first lines say what to expect, and how long it takes):"
    )
    return _box(said, [command(config) for config in dict.fromkeys(found.values())])


def listed(names: Sequence[str]) -> str:
    """Names in a sentence's first words.

    >>> listed(["saturation"]), listed(["knowledge entropy", "saturation", "online adaptation"])
    ('Saturation', 'Knowledge entropy, saturation and online adaptation')
    """
    text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return text[:1].upper() + text[1:]


def _box(text: str, commands: Sequence[str]) -> str:
    lines = "\n".join(commands)
    return f"<div class=small role=note><p>{e(text)}</p><pre><code>{e(lines)}</code></pre></div>"
