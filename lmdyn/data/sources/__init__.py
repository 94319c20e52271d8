"""Where text comes from, a module per format."""

from lmdyn.data.sources.references import Documents, documents

__all__ = ["Documents", "documents"]
