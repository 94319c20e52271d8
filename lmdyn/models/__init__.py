"""What a language model is, and how to run one."""

from lmdyn.models.config import Compute, ModelConfig, RotaryScaling
from lmdyn.models.forward import (
    SITES,
    Forward,
    forward,
    init,
    logits,
    loss,
    new_cache,
    observe,
    shapes,
    token_nll,
)
from lmdyn.models.matrices.grad_norm import Watched
from lmdyn.models.matrices.lora import Adapted
from lmdyn.models.matrices.quantized import Packed
from lmdyn.models.modules import LanguageModel

__all__ = [
    "SITES",
    "Adapted",
    "Compute",
    "Forward",
    "LanguageModel",
    "ModelConfig",
    "Packed",
    "RotaryScaling",
    "Watched",
    "forward",
    "init",
    "logits",
    "loss",
    "new_cache",
    "observe",
    "shapes",
    "token_nll",
]
