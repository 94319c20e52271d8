"""Which checkpoints of a run are kept."""

import dataclasses
from collections.abc import Sequence

from lmdyn.errors import InputError


@dataclasses.dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept when a new one has been written; the newest always is.

    `every`: multiples of it (None: none). `powers_of_two`: steps 0, 1, 2, 4, 8, ...: most of what a
    model learns, it learns early. `last`: how many of the newest.

    >>> Retention(every=10, last=2).kept([0, 1, 2, 3, 4, 10, 11, 16, 20, 22, 23])
    [0, 1, 2, 4, 10, 16, 20, 22, 23]
    """

    every: int | None = None
    powers_of_two: bool = True
    last: int = 2

    def __post_init__(self) -> None:
        if self.last < 1:
            raise InputError(f"last={self.last}: the newest checkpoint is always kept; use last>=1")
        if self.every is not None and self.every < 1:
            raise InputError(f"every={self.every}: use every>=1, or None")

    def keep(self, step: int, steps: Sequence[int]) -> bool:
        """Whether `step` is kept, of all the `steps` there are.

        >>> Retention(last=1).keep(3, [3, 4])
        False
        """
        return (
            step in sorted(steps)[-self.last :]
            or (self.every is not None and step % self.every == 0)
            or (self.powers_of_two and step & (step - 1) == 0)
        )

    def kept(self, steps: Sequence[int]) -> list[int]:
        """Those of `steps` that are kept.

        >>> Retention(last=1).kept([3, 4, 5])
        [4, 5]
        """
        return [step for step in sorted(steps) if self.keep(step, steps)]
