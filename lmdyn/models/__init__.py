"""What a language model is, and how to run one."""

from lmdyn.models.config import Compute, ModelConfig, RotaryScaling
from lmdyn.models.forward import Forward, forward, init, new_cache, shapes
from lmdyn.models.loss import SITES, logits, loss, observe, token_nll
from lmdyn.models.matrices import GradNormProbe, LoRAMatrix, QuantizedMatrix
from lmdyn.models.modules import LanguageModel
from lmdyn.models.positions import check_positions, trained_length

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
    "check_positions",
    "forward",
    "init",
    "logits",
    "loss",
    "new_cache",
    "observe",
    "shapes",
    "token_nll",
    "trained_length",
]
