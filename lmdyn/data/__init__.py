"""Text in, token batches out: sources, tokenizers, windows."""

from lmdyn.data import tokenizers
from lmdyn.data.sources import Documents, documents
from lmdyn.data.windows import Batch, Windows, batches, check_tokens, check_vocabulary, join, tokenize, windows

__all__ = [
    "Batch",
    "Documents",
    "Windows",
    "batches",
    "check_tokens",
    "check_vocabulary",
    "documents",
    "join",
    "tokenize",
    "tokenizers",
    "windows",
]
