"""What a study contributes to a page, and how it is found from the study's folder.

A study is a package (or a module) that exports `PAGE`, a `StudyPage`. The rows' provenance names
the package by its dotted name, so that the report draws a study of somebody else's package as it
draws those that ship with lmdyn, and knows none of them by name.
"""

import importlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lmdyn.report import small_versions
from lmdyn.report.figures import Figure


class Larger(NamedTuple):
    """One way to run a study larger.

    >>> Larger("Five seeds, {cost}.", "--seeds 5").options
    '--seeds 5'
    """

    what: str
    """What changes, and what it takes; may hold {cost} and {cores}, see `larger`."""
    options: str = ""
    """Added to the command, in place of what it has for the same options; split as a shell does."""


class StudyPage(NamedTuple):
    """What a study's package exports as `PAGE`.

    >>> StudyPage("Second reading", "Does it help?", "lmdyn", "", figures=lambda rows: []).title
    'Second reading'
    """

    title: str
    """The heading, such as "Knowledge entropy"."""
    question: str
    """What the study asks, in a sentence."""
    source: str
    """The paper, with its arXiv number."""
    config: str
    """The configuration that ships with it; empty for what is no `lmdyn study`."""
    figures: Callable[[Sequence[Mapping[str, Any]]], list[Figure]]
    """From all rows of the study to its figures, in the order of the page."""
    larger: tuple[Larger, ...] = ()
    """Ways to run it larger."""


MORE_SEEDS = Larger("More seeds narrow the intervals: {cost}.", "--seeds {seeds}")
"""For every study that is repeated over seeds."""


def package_of(meta: Mapping[str, Any]) -> str:
    """The dotted name of the package that made some rows; empty where no study did.

    Args:
      meta: the rows' provenance: `package`, or a dotted `study`. Of folders from before packages
        were named, `study` is the name in words of one that ships with lmdyn.

    >>> (
    ...     package_of({"study": "mine", "package": "my_pkg.mine"}),
    ...     package_of({"study": "my_pkg.mine"}),
    ... )
    ('my_pkg.mine', 'my_pkg.mine')
    >>> package_of({"study": "entropy decay"}), package_of({})
    ('lmdyn.studies.entropy_decay', '')
    """
    if package := meta.get("package"):
        return package
    name = meta.get("study") or ""
    return name if "." in name or not name else f"lmdyn.studies.{name.replace(' ', '_')}"


def find(package: str) -> StudyPage:
    """The `PAGE` of a package; of one that cannot be imported, a page without figures that says so.

    Args:
      package: a dotted name.

    >>> find("no_such.study").figures([])
    []
    >>> find("no_such.study").question
    "The figures are missing: no_such.study cannot be imported here (No module named 'no_such')."
    """
    try:
        page = importlib.import_module(package).PAGE
    except Exception as err:  # whatever somebody's package raises; the page is still wanted
        title = package.rpartition(".")[2].replace("_", " ")
        why = f"The figures are missing: {package} cannot be imported here ({err})."
        return StudyPage(title[:1].upper() + title[1:], why, "", "", lambda rows: [])
    return page


def larger(page: StudyPage, meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How to run a study larger than the rows at hand.

    Args:
      page: the study's.
      meta: what made the rows.

    Returns:
      (what changes, the command; empty where none is meant) pairs. Of the small version of a study:
      first its real size, then that larger.

    >>> page = StudyPage("S", "Why?", "", "s.py", lambda rows: [], (MORE_SEEDS,))
    >>> for what, command in larger(
    ...     page,
    ...     {
    ...         "command": "lmdyn study --config c.py --seeds 3 --out o",
    ...         "wall_seconds": 600,
    ...         "config": {"seeds": 3},
    ...     },
    ... ):
    ...     print(what)
    ...     print(command)
    More seeds narrow the intervals: 3 took 10 minutes here, 10 take about 33.
    lmdyn study --config c.py --seeds 10 --out o-larger
    """
    if config := small_versions.whole(
        meta
    ):  # of what a small version takes, nothing follows for the whole
        rest = larger(page, {"command": small_versions.command(config)})
        real = "At its real size; the file's first lines say what to expect, and how long it takes."
        return [(real, small_versions.command(config)), *rest]
    minutes, seeds = meta.get("wall_seconds", 0) / 60, meta.get("config", {}).get("seeds")
    more = 3 * seeds if seeds and seeds >= 10 else 10
    if seeds and minutes:
        took, unit = (minutes, "minutes") if minutes >= 1 else (60 * minutes, "seconds")
        cost = f"{seeds} took {took:,.0f} {unit} here, {more} take about {took * more / seeds:,.0f}"
    else:
        cost = "the time grows with their number"
    cores = f"these took {minutes:,.0f} minutes" if minutes >= 1 else "more cores take less time"
    found = []
    for way in page.larger:
        options = [word.replace("{seeds}", str(more)) for word in shlex.split(way.options)]
        command = enlarged(_words(meta.get("command"), page.config), options) if options else ()
        found.append((way.what.format(cost=cost, cores=cores), shlex.join(command)))
    return found


def _words(command, config: str) -> list[str]:
    words = shlex.split(command) if isinstance(command, str) else []
    return words if "study" in words else small_versions.words(config)


def enlarged(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command with some options set otherwise, and a folder of its own.

    >>> enlarged("lmdyn study --config c.py --seeds 3 --out=o".split(), ("--seeds", "10"))
    ['lmdyn', 'study', '--config', 'c.py', '--seeds', '10', '--out', 'o-larger']
    """
    taken = {word for word in options if word.startswith("--")} | {"--out"}
    kept, out, skipping = [], "out/study", ""
    for word in words:
        name, _, value = word.partition("=") if word.startswith("--") else ("", "", word)
        skipping = name if name in taken else "" if name else skipping
        if skipping == "--out" and value:
            out = value
        if not skipping:
            kept.append(word)
    head = kept.index("--config") + 2 if "--config" in kept else len(kept)
    return [*kept[:head], *options, *kept[head:], "--out", f"{out.rstrip('/')}-larger"]
