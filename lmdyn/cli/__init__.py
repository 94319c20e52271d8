"""The command `lmdyn`: a module per verb."""

from lmdyn.cli.command_line import main, parse

__all__ = ["main", "parse"]
