"""Output heads behind one protocol.

A full head, `softmax(x W)`, has logits of rank D at most, however large V is. The others have less
(`low_rank`) or more: a mixture of softmaxes, sigsoftmax, a wider projection (`projected`). All of
them train on any model's final states with one loss, on a frozen body
(`lmdyn.training.fit_heads`), or jointly, as the head of a model whose config names it
(`ModelConfig(head="mixture:4")`).
"""

from lmdyn.models.heads.base import Head, output_kernel, output_matrix, project
from lmdyn.models.heads.full import FullHead
from lmdyn.models.heads.low_rank import LowRankHead, truncations
from lmdyn.models.heads.mixture import MixtureHead
from lmdyn.models.heads.projected import ProjectedHead
from lmdyn.models.heads.registry import HEADS, head_of, make_head
from lmdyn.models.heads.sigsoftmax import SigsoftmaxHead

__all__ = [
    "HEADS",
    "FullHead",
    "Head",
    "LowRankHead",
    "MixtureHead",
    "ProjectedHead",
    "SigsoftmaxHead",
    "head_of",
    "make_head",
    "output_kernel",
    "output_matrix",
    "project",
    "truncations",
]
