"""Which parameters: selectors, groups, partitions, adapters."""

from lmdyn.params.adapters import Adapters, LowRank, low_rank
from lmdyn.params.groups import GROUPS
from lmdyn.params.partitions import Partition, partition
from lmdyn.params.selectors import flatten, select, unflatten

__all__ = [
    "GROUPS",
    "Adapters",
    "LowRank",
    "Partition",
    "flatten",
    "low_rank",
    "partition",
    "select",
    "unflatten",
]
