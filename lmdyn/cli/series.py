"""`lmdyn series`: what a series holds, before anything is downloaded or measured."""

import dataclasses

from lmdyn.cli import common


@dataclasses.dataclass(frozen=True)
class Series:
    """List the checkpoints of a series: steps, sizes, digests, and what is wrong with them.

    Of the hub nothing but lists and config.json is fetched. Named are checkpoints that cannot be
    read, that hold the same parameters as another one, or shards of it, that have another
    architecture than the one before, and steps that are missing.
    """

    models: common.Models


OPTIONS = Series


def run(options: Series, command: list[str]) -> None:
    """Prints a line for each checkpoint, and how many have remarks.

    Args:
      options: of the verb.
      command: the words of the command line.
    """
    from lmdyn import checkpoints
    from lmdyn.checkpoints import integrity

    references = [r for ref in options.models for r in checkpoints.series(ref)]
    listings = []
    for number, reference in enumerate(references, 1):
        common.say(f"{reference} ({number} of {len(references)})")
        listings.append(integrity.list_checkpoint(reference))
    print("\n".join(integrity.table(listings)))
    noted = integrity.remarks(listings)
    print(f"{len(listings)} checkpoints, {len(noted)} with remarks")
