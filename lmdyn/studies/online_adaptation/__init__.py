"""The study `online_adaptation`."""
