"""How SmolLM2-135M uses its memories: every metric over text that comes with Python.

Shows: knowledge entropy near its ceiling of log 1536 = 7.34 nats in most layers and falling in the
last three; a head whose spectrum is nearly flat.
Expect: nll 2.701 nats (perplexity 14.89), knowledge entropy 214.93 nats in all, singular entropy
0.127 (Python 3.11; the text is the documentation of the Python that runs it).
Takes: about 35 seconds on 2 cores, after `bash scripts/quickstart.sh` has fetched the model.
Run: lmdyn measure --config configs/smollm2_measure.py
"""

import os

from lmdyn.cli.measure import Measure

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lmdyn")


def config():
    return Measure(
        models=(f"gguf:{CACHE}/SmolLM2-135M-Instruct.Q4_1.gguf",),
        data="builtin:docs",
        tokens=12288,
        out="results/smollm2/measure.jsonl",
    )
