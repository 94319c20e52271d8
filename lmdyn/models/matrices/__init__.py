"""What may stand where a matrix stands: quantized, low-rank beside it, gradient-norm probe."""
