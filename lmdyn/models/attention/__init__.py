"""Attention: one module a kernel, and one that chooses."""

from lmdyn.models.attention.blocked import blocked_attention, query_blocks
from lmdyn.models.attention.choice import attend, choose_kernel
from lmdyn.models.attention.dot_product import dot_product_attention
from lmdyn.models.attention.reach import Reach

__all__ = [
    "Reach",
    "attend",
    "blocked_attention",
    "choose_kernel",
    "dot_product_attention",
    "query_blocks",
]
