"""Numbers in, numbers out: curves, scaling laws, statistics, factorial designs. No model."""
