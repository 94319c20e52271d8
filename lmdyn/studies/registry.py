"""The studies that a page knows: what each asks, its figures, and how to run it larger."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lmdyn.report import scaling_law as scaling
from lmdyn.report import small
from lmdyn.report.figures import Figure
from lmdyn.studies.entropy_decay import figures as entropy_decay
from lmdyn.studies.fact_learning import figures as fact_learning
from lmdyn.studies.gradient_localization import figures as gradient_localization
from lmdyn.studies.knowledge_entropy import figures as knowledge_entropy
from lmdyn.studies.online_adaptation import figures as online_adaptation
from lmdyn.studies.saturation import figures as saturation


class Larger(NamedTuple):
    """One way to run a study larger."""

    what: str
    """What changes, and what it takes."""
    options: tuple[str, ...] = ()
    """Words that are added to the command, in place of those that it has for the same options."""


class Kind(NamedTuple):
    """One study."""

    asks: str
    source: str
    config: str
    """The configuration that ships with it; empty for what is no `lmdyn study`."""
    figures: Callable[[Sequence[Mapping[str, Any]]], list[Figure]]
    larger: tuple[Larger, ...]


SEEDS = Larger("More seeds narrow the intervals: {cost}.", ("--seeds", "{seeds}"))
PYTHIA = "hf:EleutherAI/pythia-70m@step1000,step16000,step143000"
KINDS = {
    "knowledge entropy": Kind(
        "On how many of its memories does a model draw, how does that change over pretraining, and"
        " does it decide what can still be learnt?",
        "Kim et al. 2024, arXiv 2410.01380",
        "configs/knowledge_entropy.py",
        knowledge_entropy.figures,
        (
            SEEDS,
            Larger(
                "The paper's own checkpoints, which the hub has, and its facts (paraphrase70.json,"
                " published with its code); a GPU is wanted.",
                (
                    "--series",
                    "hf:allenai/OLMo-1B-hf@step1000-tokens4B,step117850-tokens494B,step330000-tokens1384B",
                    "--known",
                    "None",
                    "--tell.facts",
                    "paraphrase70.json",
                    "--further.length",
                    "1024",
                ),
            ),
        ),
    ),
    "entropy decay": Kind(
        "When does knowledge entropy fall over training, and which choice of model and rate"
        " makes it?",
        "after Kim et al. 2024, arXiv 2410.01380",
        "configs/entropy_decay.py",
        entropy_decay.figures,
        (
            Larger(
                "Widths, steps and levels stand in the first lines of configs/entropy_decay.py:"
                " copy the file, change them, and run the copy. Runs go side by side, one a core:"
                " {cores}.",
                ("--workers", "16"),
            ),
        ),
    ),
    "fact learning": Kind(
        "What does a pretrained model learn from being told: the words, the facts, what follows"
        " from them?",
        "Chang et al. 2024, arXiv 2406.11813",
        "configs/fact_learning.py",
        fact_learning.figures,
        (
            Larger(
                "All facts of the file in place of some; the time grows with their number.",
                ("--tell.count", "None"),
            ),
        ),
    ),
    "gradient localization": Kind(
        "Which layers do new facts light up, and is it enough to update those?",
        "Fernandez et al. 2024, arXiv 2411.04448",
        "configs/gradient_localization.py",
        gradient_localization.figures,
        (
            SEEDS,
            Larger(
                "A pretrained model: in a copy of the configuration, give model= in place of"
                " pretrain=, with probes, data and rates that fit it."
            ),
        ),
    ),
    "online adaptation": Kind(
        "What does a model gain by learning from the text that it reads, at what cost, and where"
        " in it?",
        "Rannen-Triki et al. 2024, arXiv 2403.01518; Krause et al. 2018, arXiv 1709.07432",
        "configs/online_adaptation.py",
        online_adaptation.figures,
        (
            SEEDS,
            Larger(
                "A pretrained model, by every rule, on texts of your own.",
                (
                    "--model",
                    "hf:EleutherAI/pythia-70m@step143000",
                    "--given.streams",
                    "text:first.txt",
                    "text:second.txt",
                ),
            ),
        ),
    ),
    "saturation": Kind(
        "Do narrow models end worse than they should because their output head is a bottleneck?",
        "Godey et al. 2024, arXiv 2404.07647",
        "configs/saturation.py",
        saturation.figures,
        (
            SEEDS,
            Larger(
                "The paper's own models, which the hub has.",
                (
                    "--series",
                    PYTHIA,
                    "hf:EleutherAI/pythia-410m@step143000",
                    "--narrow",
                    "512",
                    "--tokens-per-step",
                    "2097152",
                    "--vocabulary",
                    "0:50254",
                    "--length",
                    "1024",
                    "--batch",
                    "1",
                    "--also",
                    "none",
                ),
            ),
        ),
    ),
    "scaling law": Kind(
        "What loss does a law of size and tokens expect, and how far from it does each model end?",
        "Hoffmann et al. 2022, arXiv 2203.15556, as Godey et al. 2024 use it",
        "",
        scaling.figures,
        (
            Larger(
                "More runs in the table: each line of it is a checkpoint; three sizes or more, over"
                " a factor of ten, make a law."
            ),
        ),
    ),
}
"""The studies by name."""
STUDIES = {name: kind.figures for name, kind in KINDS.items()}
"""The figures of a study, from its rows, by the study's name."""


def larger(study: str, meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How to run a study larger than the rows at hand.

    Args:
      study: a name in `KINDS`. meta: what made the rows.

    Returns:
      (what changes, the command; empty where none is meant) pairs. Of the small version of a study:
      first its real size, then that larger.

    >>> for what, command in larger(
    ...     "online adaptation",
    ...     {
    ...         "command": "lmdyn study --config c.py --seeds 3 --out o",
    ...         "wall_seconds": 600,
    ...         "config": {"seeds": 3},
    ...     },
    ... ):
    ...     print(what, "|", command)
    More seeds narrow the intervals: 3 took 10 minutes here, 10 take about 33. | lmdyn study --config c.py --seeds 10 --out o-larger
    A pretrained model, by every rule, on texts of your own. | lmdyn study --config c.py --model hf:EleutherAI/pythia-70m@step143000 --given.streams text:first.txt text:second.txt --seeds 3 --out o-larger
    """
    if config := small.whole(meta):  # of what a small version takes, nothing follows for the whole
        rest = larger(study, {"command": small.command(config)})
        return [
            (
                (
                    "At its real size; the file's first lines say what to expect, and how long it"
                    " takes."
                ),
                small.command(config),
            ),
            *rest,
        ]
    kind, minutes = KINDS[study], meta.get("wall_seconds", 0) / 60
    seeds = meta.get("config", {}).get("seeds")
    more = 3 * seeds if seeds and seeds >= 10 else 10
    if seeds and minutes:
        took, unit = (minutes, "minutes") if minutes >= 1 else (60 * minutes, "seconds")
        cost = f"{seeds} took {took:,.0f} {unit} here, {more} take about {took * more / seeds:,.0f}"
    else:
        cost = "the time grows with their number"
    cores = f"these took {minutes:,.0f} minutes" if minutes >= 1 else "more cores take less time"
    found = []
    for way in kind.larger:
        options = [word.replace("{seeds}", str(more)) for word in way.options]
        command = enlarged(_words(meta.get("command"), kind.config), options) if options else ()
        found.append((way.what.format(cost=cost, cores=cores), shlex.join(command)))
    return found


def _words(command, config: str) -> list[str]:
    words = shlex.split(command) if isinstance(command, str) else []
    return words if "study" in words else small.words(config)


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
