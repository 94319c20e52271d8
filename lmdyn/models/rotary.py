"""Rotary positions (Su et al. 2021, arXiv 2104.09864).

They are in the layout of Hugging Face: halves, not pairs.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lmdyn.models.config import ModelConfig
from lmdyn.types import Array


def frequencies(config: ModelConfig) -> tuple[np.ndarray, float]:
    """The angle per position of every rotating pair, and the factor that cosines and sines carry.

    Returns:
      `[rotary_width / 2]` float64 radians per position, and a float (1.0 unless yarn).

    >>> config = ModelConfig(
    ...     vocab=2, width=4, depth=1, heads=1, head_width=4, mlp_width=4, positions=8
    ... )
    >>> frequencies(config)[0].tolist()
    [1.0, 0.01]
    """
    width, base, scaling = config.rotary_width, config.rotary_base, config.rotary_scaling
    plain = base ** -(np.arange(0, width, 2, dtype=np.float64) / width)
    if scaling is None:
        return plain, 1.0
    if scaling.kind == "linear":
        return plain / scaling.factor, 1.0
    original = scaling.original_positions or config.positions
    if scaling.kind == "llama3":
        wavelength = 2 * math.pi / plain
        blend = (original / wavelength - scaling.low_frequency) / (
            scaling.high_frequency - scaling.low_frequency
        )
        blend = np.clip(blend, 0.0, 1.0)
        return plain * (blend + (1 - blend) / scaling.factor), 1.0

    def dimension(rotations):  # the pair that turns `rotations` times over the original length
        return width * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = np.clip((np.arange(width // 2) - low) / max(high - low, 1e-3), 0.0, 1.0)
    attention = scaling.attention_factor
    if attention is None:
        attention = 1.0 if scaling.factor <= 1 else 0.1 * math.log(scaling.factor) + 1.0
    return plain * (1 - ramp) + plain / scaling.factor * ramp, attention


def angles(config: ModelConfig, positions: Array) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines for `rotate`.

    Args:
      config: the architecture.
      positions: `[..., T]` integers.

    Returns:
      Two float32 arrays `[..., T, 1, rotary_width / 2]` (the axis of length 1 is for heads).

    >>> from lmdyn.models import ModelConfig
    >>> tiny = ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> angles(tiny, jnp.arange(5))[0].shape
    (5, 1, 1)
    """
    per_position, factor = frequencies(config)
    angle = positions[..., None, None].astype(jnp.float32) * per_position.astype(np.float32)
    return jnp.cos(angle) * factor, jnp.sin(angle) * factor


def rotate(x: Array, cos_sin: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns the first `rotary_width` numbers of every head by its position's angle.

    Args:
      x: `[..., T, H, K]`.
      cos_sin: what `angles` returns.

    Returns:
      `[..., T, H, K]`; the rest of each head passes unchanged.

    >>> quarter = jnp.zeros([1, 1, 1]), jnp.ones([1, 1, 1])
    >>> rotate(jnp.array([[[1.0, 0.0, 7.0]]]), quarter).tolist()
    [[[0.0, 1.0, 7.0]]]
    """
    cos, sin = (part.astype(x.dtype) for part in cos_sin)
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin, rest], -1)
