"""What a language model is, and how to run one."""

from lmdyn.models.adapters import Adapted
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
from lmdyn.models.modules import LanguageModel
from lmdyn.models.packed import Packed
from lmdyn.models.watched import Watched

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
