"""Studies that ran as a small version of themselves: what the page says of them.

How far a verdict may be trusted cannot be told from its interval: two seeds of models that hardly
learnt anything may agree. So a study says itself that it is small: its config names the one that it
is the small version of (`small_version_of`), and the rows' provenance holds the config.

How far a verdict may be trusted cannot be told from its interval: two seeds of models that hardly
learnt anything may agree. So a study says itself that it is small: its config names the one that it
is the small version of (`small_version_of`), and the rows' provenance holds the config.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lmdyn.report.markup import e


def whole(meta: Mapping[str, Any]) -> str:
    """The config at whose size a study decides something, where its rows are of a small version.

    Empty where they are not.

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
    """`command`, word by word.

    >>> words("configs/saturation.py")[-2:]
    ['--out', 'out/saturation']
    """
    return [
        "lmdyn",
        "study",
        "--config",
        config,
        "--out",
        "out/" + config.rpartition("/")[2].removesuffix(".py"),
    ]


def above_claims(claims: Sequence[Mapping[str, Any]]) -> str:
    """The one notice of a page, as HTML: which studies are small; nothing where none is.

    >>> above_claims([{"study": "saturation", "small": ""}])
    ''
    """
    found = {claim["study"]: claim["small"] for claim in claims if claim.get("small")}
    if not found:
        return ""
    one = len(found) == 1
    if len(found) < len({claim["study"] for claim in claims}):
        which = f"{listed(list(found))} {'is' if one else 'are'} a small version here"
    else:
        which = f"{'This study' if one else 'Every study here'} is a small version"
    text = (
        f"{which}, to show what {'the study does' if one else 'the studies do'}."
        f" {'Its' if one else 'Their'} verdicts decide nothing, since the models are trained too"
        f" little. To run {'it' if one else 'them'} at full size:"
    )
    commands = "\n".join(command(config) for config in found.values())
    return (
        f'<div class=small id=small role=note aria-label="Small version"><p>{e(text)}</p>'
        f"<pre><code>{e(commands)}</code></pre></div>"
    )


def in_study(metas: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> str:
    """A few words at the head of a study's section, as HTML, that point to the notice.

    Nothing where none of its folders is of a small version.

    Args:
      metas: of each folder.
      parts: the folders' names, where there are several.

    >>> in_study([{"config": {}}], ["one"])
    ''
    """
    found = [part for meta, part in zip(metas, parts, strict=True) if whole(meta)]
    if not found:
        return ""
    which = f"{listed(found)}: a small" if len(found) < len(metas) else "A small"
    return (
        f'<p class=ran><b>{e(which)} version</b>, which <a href="#small">decides nothing</a>.</p>'
    )


def listed(names: Sequence[str]) -> str:
    """Names in a sentence's first words.

    >>> listed(["saturation"]), listed(["knowledge entropy", "saturation", "online adaptation"])
    ('Saturation', 'Knowledge entropy, saturation and online adaptation')
    """
    text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return text[:1].upper() + text[1:]
