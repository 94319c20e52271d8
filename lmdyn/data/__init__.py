"""Text in, token batches out: sources, tokenizers, windows."""

from lmdyn.data import tokenizers, worlds
from lmdyn.data.fact_injection import Fact, check_fit, read_facts, world_facts
from lmdyn.data.mix_review import MixReview
from lmdyn.data.packing import Packing
from lmdyn.data.probes import Probe, ProbeBatch, encode_probes, read_probes
from lmdyn.data.random_spans import random_spans
from lmdyn.data.sources import Documents, check_texts, documents
from lmdyn.data.token_store import Tokens, store
from lmdyn.data.training_stream import TrainingStream, mix
from lmdyn.data.windows import (
    Batch,
    Windows,
    batches,
    check_tokens,
    check_vocabulary,
    join,
    tokenize,
    windows,
)

__all__ = [
    "Batch",
    "Documents",
    "Fact",
    "MixReview",
    "Packing",
    "Probe",
    "ProbeBatch",
    "Tokens",
    "TrainingStream",
    "Windows",
    "batches",
    "check_fit",
    "check_texts",
    "check_tokens",
    "check_vocabulary",
    "documents",
    "encode_probes",
    "join",
    "mix",
    "random_spans",
    "read_facts",
    "read_probes",
    "store",
    "tokenize",
    "tokenizers",
    "windows",
    "world_facts",
    "worlds",
]
