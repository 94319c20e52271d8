"""What the name of a published checkpoint says: stage, seed, step, tokens."""

import re
from typing import NamedTuple

_SCALES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_STEP = re.compile(
    r"(?:^|(?<=[^a-z]))(?:global_?step|step|checkpoint|ckpt|iter(?:ation)?)[-_]?(\d+)([km](?![a-z\d]))?"
    # Tokens right after it, without the word: step-50K-105b, step-001000-2BT.
    r"(?:[-_](\d+(?:\.\d+)?)([bt])t?(?![a-z\d]))?",
    re.IGNORECASE,
)
_TOKENS = re.compile(r"tokens?[-_]?(\d+(?:\.\d+)?)([kmbt])?(?![a-z\d])", re.IGNORECASE)
_STAGE = re.compile(r"(?:stage|phase)[-_]?(\d+)", re.IGNORECASE)
_SEED = re.compile(r"(?:^|(?<=[^a-z]))seed(?:[-_](.+)|(\d+))", re.IGNORECASE)


class RevisionName(NamedTuple):
    """What `read_name` finds in a name; None for what the name does not say."""

    branch: str
    """the name without step and tokens; checkpoints of one branch follow each other"""
    stage: int | None = None
    """of pretraining: 1, 2, ..."""
    seed: str | None = None
    """of the run; some series name theirs, as in `small-aux-2`"""
    step: int | None = None
    """of training"""
    tokens: int | None = None
    """trained on so far, to the precision of the name"""

    @property
    def order(self) -> tuple:
        """A key that sorts the checkpoints of a series as they were trained.

        >>> names = ["stage2-step10-tokens3B", "stage1-step900-tokens2B", "main"]
        >>> sorted(names, key=lambda name: read_name(name).order)
        ['stage1-step900-tokens2B', 'stage2-step10-tokens3B', 'main']
        """
        at = self.step if self.step is not None else self.tokens
        return (at is None, self.stage or 0, self.branch, at or 0)


def read_name(name: str) -> RevisionName:
    """What the name of a branch, tag or folder says of its checkpoint.

    Args:
      name: such as `step1000` (Pythia), `stage1-step140000-tokens294B` (OLMo 2),
        `step69369-seed-default` (DataDecide), `step-50K-105b` (TinyLlama), `step-001000-2BT`
        (FineWeb), or `ckpt_000` (Amber).

    >>> read_name("stage2-ingredient1-step11931-tokens50B")
    RevisionName(branch='stage2-ingredient1', stage=2, seed=None, step=11931, tokens=50000000000)
    >>> read_name("step-480k-token-1007B")[3:]
    (480000, 1007000000000)
    """
    step, tokens, rest = None, None, name
    if found := _STEP.search(rest):
        step = int(found[1]) * _SCALES[(found[2] or "").lower()]
        if found[3]:
            tokens = _scaled(found[3], found[4])
        rest = rest[: found.start()] + rest[found.end() :]
    if found := _TOKENS.search(rest):
        tokens = _scaled(found[1], found[2])
        rest = rest[: found.start()] + rest[found.end() :]
    if step is None and tokens is None and re.fullmatch(r"\d{1,12}", name):
        step, rest = int(name), ""
    branch = re.sub(r"(?<=[-_])[-_]+", "", rest).strip("-_")
    stage, seed = _STAGE.search(branch), _SEED.search(branch)
    return RevisionName(
        branch,
        int(stage[1]) if stage else None,
        (seed[1] or seed[2]) if seed else None,
        step,
        tokens,
    )


def _scaled(number: str, unit: str | None) -> int:
    return round(float(number) * _SCALES[(unit or "").lower()])
