"""Attention: one module per kernel, what a query may see, and the choice of a kernel by device."""

from lmdyn.models.attention.blocked import blocked_attention, query_blocks
from lmdyn.models.attention.choice import attend, choose_kernel
from lmdyn.models.attention.cudnn import cudnn_attention
from lmdyn.models.attention.flash import flash_attention
from lmdyn.models.attention.reach import CAUSAL, Reach
from lmdyn.models.attention.splash import splash_attention

__all__ = [
    "CAUSAL",
    "Reach",
    "attend",
    "blocked_attention",
    "choose_kernel",
    "cudnn_attention",
    "flash_attention",
    "query_blocks",
    "splash_attention",
]
