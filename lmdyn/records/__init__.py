"""Tidy rows, one measurement a line, and the provenance beside them."""

from lmdyn.records.quantities import Quantity, describe, quantity_of
from lmdyn.records.rows import dumps, read_meta, read_rows, read_traces, row, write_rows

__all__ = [
    "Quantity",
    "describe",
    "dumps",
    "quantity_of",
    "read_meta",
    "read_rows",
    "read_traces",
    "row",
    "write_rows",
]
