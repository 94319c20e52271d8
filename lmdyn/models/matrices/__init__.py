"""What may replace a matrix: quantised, low-rank beside it, gradient-norm probe."""

from lmdyn.models.matrices.base import (
    Matrix,
    apply,
    check_array,
    concatenate,
    dense,
    is_substitute,
    sides,
    stored,
)
from lmdyn.models.matrices.grad_norm import GradNormProbe
from lmdyn.models.matrices.lora import LoRAMatrix
from lmdyn.models.matrices.quantized import QuantizedMatrix

__all__ = [
    "GradNormProbe",
    "LoRAMatrix",
    "Matrix",
    "QuantizedMatrix",
    "apply",
    "check_array",
    "concatenate",
    "dense",
    "is_substitute",
    "sides",
    "stored",
]
