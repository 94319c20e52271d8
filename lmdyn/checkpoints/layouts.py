"""How one of our tensors is stored in a tensor of a file: transposed, fused, or permuted.

Our kernels are `[in, out]`; queries, keys and values are separate; rotary dimensions are in halves.
A `Layout` converts from a file's form to ours, and back. Shape letters: D width, H heads, G
key-value heads, K head width.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lmdyn.models.config import ModelConfig


class Layout(NamedTuple):
    """One way in which a file holds a tensor.

    >>> LAYOUTS["transposed"].shape((10, 6), None)
    (6, 10)
    >>> LAYOUTS["transposed"].take(np.zeros([6, 10]), 0, None).shape
    (10, 6)
    """

    shape: Callable[[tuple[int, ...], ModelConfig], tuple[int, ...]]
    """the file's shape, from the shape of ours"""
    take: Callable[[np.ndarray, int, ModelConfig], np.ndarray]
    """ours, from the file's tensor and which part of it (a view where possible)"""
    give: Callable[[list[np.ndarray], ModelConfig], np.ndarray]
    """the file's, from all the parts of ours that it holds"""


def _kv_width(config: ModelConfig, part: int) -> tuple[int, int]:
    """Where part 0, 1, 2 (query, key, value) starts and ends among the fused outputs."""
    query, key = config.heads * config.head_width, config.kv_heads * config.head_width
    start = (0, query, query + key)[part]
    return start, start + (query if part == 0 else key)


def _fused_width(config: ModelConfig) -> int:
    return (config.heads + 2 * config.kv_heads) * config.head_width


def _take_columns(tensor, part, config):
    start, stop = _kv_width(config, part)
    return tensor[..., start:stop]


def _take_rows(tensor, part, config):
    start, stop = _kv_width(config, part)
    return tensor[start:stop].T


def _take_interleaved(tensor, part, config):
    heads = tensor.reshape(config.heads, 3, config.head_width, *tensor.shape[1:])
    return heads[:, part].reshape(config.heads * config.head_width, *tensor.shape[1:]).T


def _give_interleaved(parts, config):
    rows = [p.T.reshape(config.heads, 1, config.head_width, *p.T.shape[1:]) for p in parts]
    stacked = np.concatenate(rows, axis=1)
    return stacked.reshape(-1, *stacked.shape[3:])


def halves_from_pairs(rows: np.ndarray, head_width: int) -> np.ndarray:
    """Rows of queries or keys from rotary pairs (x0 y0 x1 y1) to halves (x0 x1 y0 y1).

    Args:
      rows: `[H K, ...]`.
      head_width: K.

    >>> halves_from_pairs(np.arange(4), 4).tolist()
    [0, 2, 1, 3]
    """
    heads = rows.reshape(-1, head_width // 2, 2, *rows.shape[1:])
    return heads.swapaxes(1, 2).reshape(rows.shape)


def pairs_from_halves(rows: np.ndarray, head_width: int) -> np.ndarray:
    """The inverse of `halves_from_pairs`.

    >>> pairs_from_halves(np.array([0, 2, 1, 3]), 4).tolist()
    [0, 1, 2, 3]
    """
    heads = rows.reshape(-1, 2, head_width // 2, *rows.shape[1:])
    return heads.swapaxes(1, 2).reshape(rows.shape)


def _with_last(shape, width):
    return (*shape[:-1], width)


# The same layouts serve kernels [in, out] and biases [out]: a transposed vector is itself.
LAYOUTS: dict[str, Layout] = {
    "plain": Layout(
        shape=lambda ours, c: ours,
        take=lambda tensor, part, c: tensor,
        give=lambda parts, c: parts[0],
    ),
    "transposed": Layout(  # torch.nn.Linear: [out, in]
        shape=lambda ours, c: ours[::-1],
        take=lambda tensor, part, c: tensor.T,
        give=lambda parts, c: parts[0].T,
    ),
    "fused_columns": Layout(  # GPT-2's Conv1D: [in, query key value]
        shape=lambda ours, c: _with_last(ours, _fused_width(c)),
        take=_take_columns,
        give=lambda parts, c: np.concatenate(parts, axis=-1),
    ),
    "fused_rows": Layout(  # GGUF's attn_qkv: [query key value, in]
        shape=lambda ours, c: (_fused_width(c), *ours[:-1]),
        take=_take_rows,
        give=lambda parts, c: np.concatenate([p.T for p in parts], axis=0),
    ),
    "halved_rows": Layout(  # OLMo's ff_proj: [up gate, in]
        shape=lambda ours, c: (2 * ours[-1], *ours[:-1]),
        take=lambda tensor, part, c: np.split(tensor, 2)[part].T,
        give=lambda parts, c: np.concatenate([p.T for p in parts], axis=0),
    ),
    "interleaved": Layout(  # GPT-NeoX: [head, (query key value), in]
        shape=lambda ours, c: (_fused_width(c), *ours[:-1]),
        take=_take_interleaved,
        give=_give_interleaved,
    ),
    "pairs": Layout(  # GGUF of Llama and OLMo: rotary numbers in pairs, [out, in]
        shape=lambda ours, c: ours[::-1],
        take=lambda tensor, part, c: halves_from_pairs(tensor, c.head_width).T,
        give=lambda parts, c: pairs_from_halves(parts[0].T, c.head_width),
    ),
}
