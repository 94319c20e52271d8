"""Where text comes from: one module per format."""

from lmdyn.data.lazy_documents import Documents
from lmdyn.data.sources.parser import SOURCES, check_texts, documents

__all__ = ["SOURCES", "Documents", "check_texts", "documents"]
