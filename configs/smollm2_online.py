"""SmolLM2-135M adapts to a text while it reads it: plain SGD, chunks of 512, no context (Krause et
al. 2018).

Shows: online below static likelihood from the first thousand tokens on, and the gap growing.
Expect: perplexity 14.89 static, 13.02 online (Python 3.11; the text is the documentation of the
Python that runs it).
Takes: about 75 seconds on 2 cores, after `bash scripts/quickstart.sh` has fetched the model.
Run: lmdyn online --config configs/smollm2_online.py
"""

import os

from lmdyn.cli.online import Online

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lmdyn")


def config():
    return Online(
        model=f"gguf:{CACHE}/SmolLM2-135M-Instruct.Q4_1.gguf",
        data="builtin:docs",
        chunk=512,
        optimizer="sgd",
        learning_rate=0.01,
        tokens=12288,
        out="results/smollm2/online.jsonl",
    )
