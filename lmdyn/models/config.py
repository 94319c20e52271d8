"""What a decoder language model is: every architectural choice is one field.

No field names a family; a family is a set of values (`lmdyn.checkpoints.families` reads them from
`config.json` and GGUF). Shape letters: D width, L depth, H heads, G key-value heads, K head width,
F MLP width, V vocabulary, P positions.
"""

import dataclasses
from typing import Literal

import jax

from lmdyn.errors import InputError, choose
from lmdyn.models.heads.registry import check_head


@dataclasses.dataclass(frozen=True)
class RotaryScaling:
    """How rotary frequencies are stretched beyond the trained length.

    `linear` divides every frequency by `factor`; `llama3` (Llama 3.1) interpolates between low and
    high frequencies; `yarn` (Peng et al. 2023, arXiv 2309.00071) ramps between them and scales the
    attention.

    >>> longer = ModelConfig(
    ...     vocab=11,
    ...     width=6,
    ...     depth=2,
    ...     heads=3,
    ...     head_width=2,
    ...     mlp_width=10,
    ...     positions=64,
    ...     rotary_scaling=RotaryScaling("linear", 4.0),
    ... )
    >>> longer.rotary_scaling.factor
    4.0
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    original_positions: int = 0
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The architecture of a decoder language model.

    >>> tiny = ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> tiny.kv_heads, tiny.rotary_width
    (3, 2)
    """

    vocab: int
    """V, tokens in the vocabulary."""
    width: int
    """D, numbers per token in the residual stream."""
    depth: int
    """L, blocks: each is attention and an MLP."""
    heads: int
    """H, query heads per block."""
    head_width: int
    """K, width of one head."""
    mlp_width: int
    """F, hidden units of each MLP."""
    positions: int
    """Longest sequence it was made for; with learned positions, the size of their table."""
    kv_heads: int = 0
    """Key-value heads; 0 means as many as `heads`."""
    norm: Literal["rms", "layer"] = "rms"
    """RMS norm, or layer norm (which subtracts the mean)."""
    norm_place: Literal["input", "output"] = "input"
    """`input`: before each sublayer (pre-norm). `output`: on each sublayer's output, before the sum
    (OLMo 2)."""
    norm_scale: bool = True
    """Norms multiply by a trained scale."""
    norm_bias: bool = False
    """Norms add a trained bias."""
    norm_eps: float = 1e-5
    """What norms add to the mean square, or the variance, before the root."""
    query_key_norm: Literal["none", "head", "all"] = "none"
    """RMS norm of queries and keys: over each head (Qwen 3) or over all heads together (OLMo 2)."""
    clip_qkv: float | None = None
    """Queries, keys and values are clipped to [-clip_qkv, clip_qkv] (OLMo)."""
    position: Literal["rotary", "learned"] = "rotary"
    """Rotary embeddings of positions, or a learned table that is added to the tokens'."""
    rotary_share: float = 1.0
    """The share of each head's width that rotates."""
    rotary_base: float = 10000.0
    """Rotary wavelengths go from 2 pi up to nearly 2 pi times this."""
    rotary_scaling: RotaryScaling | None = None
    """How rotary frequencies are stretched beyond the trained length; None does not."""
    parallel: bool = False
    """Attention and MLP read the same residual, and both are added to it (GPT-NeoX)."""
    gated: bool = True
    """`act(x gate) * (x up)` rather than `act(x up)`."""
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    """`act` of the MLPs."""
    qkv_bias: bool = False
    """Queries, keys and values have a bias."""
    output_bias: bool = False
    """The output of attention has a bias."""
    mlp_bias: bool = False
    """The MLPs' matrices have a bias."""
    tied_head: bool = False
    """The head uses the embedding's matrix."""
    head: str = "full"
    """What predicts from the final states: `full`, `low_rank:R`, `mixture:K`, `sigsoftmax`,
    `projected:P`, or a head of your own by its dotted name (`lmdyn.models.heads.make_head`)."""
    init: Literal["normal", "depth", "small"] = "normal"
    """`normal`: all matrices normal(0, init_std). `depth`: as `normal`, with the two matrices that
    write to the residual divided by sqrt(2 L) (GPT-2). `small`: std sqrt(2 / (5 D)), and
    2 / (L sqrt(D)) for those two (GPT-NeoX)."""
    init_std: float = 0.02
    """Standard deviation of the matrices at initialisation; `small` has its own."""

    def __post_init__(self) -> None:
        if not self.kv_heads:
            object.__setattr__(self, "kv_heads", self.heads)
        for field in (
            "vocab",
            "width",
            "depth",
            "heads",
            "kv_heads",
            "head_width",
            "mlp_width",
            "positions",
        ):
            if getattr(self, field) < 1:
                raise InputError(f"{field}={getattr(self, field)}: a model needs {field}>=1")
        if self.heads % self.kv_heads:
            raise InputError(
                f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}; heads share"
                " key-value heads evenly"
            )
        for field in dataclasses.fields(self):
            allowed = getattr(field.type, "__args__", ())
            if allowed and all(isinstance(a, str) for a in allowed):
                choose(field.name, getattr(self, field.name), allowed)
        check_head(self)
        if self.position == "rotary" and (self.rotary_width % 2 or self.rotary_width < 2):
            raise InputError(
                f"rotary_share={self.rotary_share} of head_width={self.head_width} rotates"
                f" {self.rotary_width} numbers; an even number >= 2 is needed"
            )

    @property
    def rotary_width(self) -> int:
        """How many of a head's K numbers rotate."""
        return int(self.head_width * self.rotary_share)


@dataclasses.dataclass(frozen=True)
class Compute:
    """How the model is run; never what it computes (beyond rounding).

    `dtype`: of activations and products; parameters and accumulators stay float32. `auto` is
    bfloat16 where the device has it fast (GPU, TPU) and float32 on a CPU. `attention`: the kernel,
    `blocked` (plain, in blocks of queries, on any device), `cudnn` or `flash` (NVIDIA GPU) or
    `splash` (TPU); none of them stores `[T, T]` numbers. `auto` takes the fastest that fits.
    `unroll`: how many layers of the scan are compiled side by side. `remat`: what is computed again
    in the backward pass, so that it need not be kept: nothing (`none`), the MLP, attention,
    everything but products of weights (`dots`), or all of a layer (`full`), whose input `offload`
    keeps in the host's memory. `auto` is `none`, except in training, where it is the first of these
    that fits.

    >>> import numpy as np
    >>> from lmdyn.models import LanguageModel, init, logits
    >>> config = ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> params = init(LanguageModel(config))
    >>> plain, unrolled = (
    ...     logits(LanguageModel(config, compute), params, np.array([[1, 2, 3]]))
    ...     for compute in (Compute(), Compute(unroll=2))
    ... )
    >>> bool(abs(plain - unrolled).max() < 1e-6)
    True
    """

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What is computed in; `auto`: float32 on a CPU, else bfloat16."""
    attention: Literal["auto", "blocked", "cudnn", "flash", "splash"] = "auto"
    """The attention kernel; `auto` chooses by device, dtype and what queries may see."""
    unroll: int = 1
    """How many layers of the scan are compiled side by side."""
    remat: Literal["auto", "none", "mlp", "attention", "dots", "full", "offload"] = "auto"
    """What is computed again in the backward pass to save memory: `none`, the MLP (`mlp`), the
    attention (`attention`), everything but products of weights (`dots`), or all of a layer
    (`full`); `offload` is `full` with the layers' inputs in the host's memory. `auto` is what fits
    in training, else `none`."""

    def resolved(self) -> "Compute":
        """The same with `dtype` and `remat` decided for the device that JAX runs on.

        The attention kernel is chosen call by call (`lmdyn.models.attention.choose_kernel`).
        """
        dtype = self.dtype
        if dtype == "auto":
            dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        remat = "none" if self.remat == "auto" else self.remat
        return dataclasses.replace(self, dtype=dtype, remat=remat)
