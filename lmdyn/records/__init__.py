"""Tidy rows, one measurement a line, and the provenance beside them."""

from lmdyn.records.rows import read_meta, read_rows, read_traces, row, write_rows

__all__ = ["read_meta", "read_rows", "read_traces", "row", "write_rows"]
