"""Attention, one module per kernel."""
