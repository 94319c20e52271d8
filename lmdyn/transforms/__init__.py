"""Pure changes: which parameters, how much, and to what."""

from lmdyn.transforms.partition import Partition, partition
from lmdyn.transforms.selectors import flatten, select, unflatten

__all__ = ["Partition", "flatten", "partition", "select", "unflatten"]
