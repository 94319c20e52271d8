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
from lmdyn.models.matrices.grad_norm import GradNormProbe
from lmdyn.models.matrices.lora import LoRAMatrix
from lmdyn.models.matrices.quantized import QuantizedMatrix
from lmdyn.models.modules import LanguageModel

__all__ = [
    "SITES",
    "Compute",
    "Forward",
    "GradNormProbe",
    "LanguageModel",
    "LoRAMatrix",
    "ModelConfig",
    "QuantizedMatrix",
    "RotaryScaling",
    "forward",
    "init",
    "logits",
    "loss",
    "new_cache",
    "observe",
    "shapes",
    "token_nll",
]
