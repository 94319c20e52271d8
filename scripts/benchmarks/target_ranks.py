"""The rank of the target at full size, on a text of 1e8 tokens whose rank is known.

The text is counted in bounded memory, and its leading singular values are found.

    python scripts/benchmarks/target_ranks.py
    python scripts/benchmarks/target_ranks.py --tokens 1e6 --vocab 5000 --classes 32 --values 64

Every word belongs to one of `--classes` classes, and what follows a word is Zipf's law over an
order of the vocabulary that is its class's own. So the distributions of the language have that
rank, whatever the vocabulary; what a text needs beyond it is sampling noise.

Prints what counting and each decomposition took, and the error of the best approximation by rank.
The last line is an error, with exit code 1, where the values do not fall by half or more after the
last class.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from lmdyn.metrics.targets import ngram_counts, target_rank

STREAMS = 10_000
"""Documents that are written side by side."""


def write(
    path: Path, tokens: int, vocab: int, classes: int, exponent: float, seed: int
) -> np.ndarray:
    """Writes the text, and returns where its documents end; the last word of one is no context of
    the next.
    """
    rng = np.random.default_rng(seed)
    order = np.stack([rng.permutation(vocab) for _ in range(classes)]).astype(np.int32)
    kinds = rng.integers(0, classes, vocab)
    edges = np.cumsum(1 / np.arange(1, vocab + 1) ** exponent)
    edges /= edges[-1]
    streams = min(STREAMS, tokens // 2)
    length = tokens // streams
    text = np.lib.format.open_memmap(path, "w+", np.int32, (streams, length))
    now = rng.integers(0, vocab, streams)
    for step in range(length):
        now = order[kinds[now], np.minimum(np.searchsorted(edges, rng.random(streams)), vocab - 1)]
        text[:, step] = now
    text.flush()
    return np.arange(1, streams + 1) * length


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=lambda text: int(float(text)), default=100_000_000)
    parser.add_argument("--vocab", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=256)
    parser.add_argument(
        "--values",
        type=lambda text: [int(part) for part in text.split(",")],
        default=[200, 2000],
        help="how many, such as 200,2000",
    )
    parser.add_argument("--exponent", type=float, default=1.05, help="of Zipf's law")
    parser.add_argument("--seed", type=int, default=0)
    order = parser.parse_args()
    if not (order.tokens >= 4 and 1 <= order.classes < order.vocab and min(order.values) >= 1):
        parser.error(
            f"tokens={order.tokens}, vocab={order.vocab}, classes={order.classes},"
            f" values={order.values}: give 4 tokens or more, fewer classes than words, at least 1"
            " class and value"
        )

    def took(what, cpu, wall):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            2**30 if sys.platform == "darwin" else 2**20
        )
        print(
            f"{what}: {time.process_time() - cpu:.0f} CPU s, {time.perf_counter() - wall:.0f} s,"
            f" peak memory {peak:.2f} GiB",
            flush=True,
        )

    now = lambda: (time.process_time(), time.perf_counter())
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "text.npy", now()
        ends = write(path, order.tokens, order.vocab, order.classes, order.exponent, order.seed)
        took(f"writing {ends[-1]:,} tokens", *start)
        start, text = now(), np.load(path, mmap_mode="r").reshape(-1)
        counts = ngram_counts(text, order.vocab, 1, ends=ends)
        took(f"counting {counts.nnz:,} pairs after {counts.shape[0]:,} words", *start)
        del text
    for k in order.values:
        start = now()
        found = target_rank(counts, k)
        took(f"{k} singular values", *start)
        ranks = sorted(
            {
                1,
                *(order.classes * part // 4 for part in (1, 2, 3, 4)),
                order.classes + 1,
                *(order.classes * 2**i for i in (1, 2)),
                k,
            }
        )
        print(
            "  error by rank:",
            ", ".join(
                f"{rank}: {found.errors[rank]:.4f}"
                for rank in ranks
                if 1 <= rank < len(found.errors)
            ),
        )
    if len(found.values) > order.classes:
        last, after = found.values[order.classes - 1 : order.classes + 1]
        print(f"values {order.classes} and {order.classes + 1}: {last:.3f}, {after:.3f}")
        if after > last / 2:
            print(f"error: the planted rank of {order.classes} does not show", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
