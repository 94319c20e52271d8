"""Which parameters: selectors, groups, partitions, adapters."""

from lmdyn.params.adapters import Adapters, LowRank, low_rank
from lmdyn.params.fingerprints import fingerprint
from lmdyn.params.groups import GROUPS, group_layers, group_members, group_names
from lmdyn.params.partitions import Partition, partition
from lmdyn.params.selectors import flatten, select, unflatten

__all__ = [
    "GROUPS",
    "Adapters",
    "LowRank",
    "Partition",
    "fingerprint",
    "flatten",
    "group_layers",
    "group_members",
    "group_names",
    "low_rank",
    "partition",
    "select",
    "unflatten",
]
