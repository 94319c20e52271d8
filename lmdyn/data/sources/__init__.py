"""Where text comes from: one module per format."""

from lmdyn.data.lazy_documents import Documents
from lmdyn.data.sources.parser import SOURCES, documents

__all__ = ["SOURCES", "Documents", "documents"]
