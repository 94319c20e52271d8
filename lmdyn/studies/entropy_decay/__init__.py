"""The study `entropy_decay`."""
