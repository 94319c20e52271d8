"""Measure and steer how a language model's knowledge changes."""

__version__ = "0.1.0"
