"""Where parameters come from and go to: references, series, Hugging Face, GGUF, training runs."""

from lmdyn.checkpoints import runs
from lmdyn.checkpoints.exporting import export
from lmdyn.checkpoints.loading import Loaded, load, prefetch, stamp
from lmdyn.checkpoints.references import Reference, parse, series

__all__ = ["Loaded", "Reference", "export", "load", "parse", "prefetch", "runs", "series", "stamp"]
