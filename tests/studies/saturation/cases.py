"""Rows of a saturation study in which everything is planted, so that its claims and figures can be
compared with what was put in.
"""

import math

import numpy as np

from lmdyn import records

WIDTHS, NARROW, V, STEPS, EVERY, PER_STEP = (8, 16, 24, 32, 64), 16, 1024, 640, 16, 2048
E, A, B, a, b = 1.5, 60.0, 300.0, 0.3, 0.35
ABOVE, RISE, TURN = 0.05, 0.12, 0.6
"""Narrow models end this share above the law; of it so many nats are a rise that begins at this
share of training."""
GAIN = {"mixture:2": 0.05, "sigsoftmax": -0.02}


def size(width):
    return 2 * V * width + 24 * width**2


def law(width, step):
    return E + A / size(width) ** a + B / max(1, step * PER_STEP) ** b


def nll(width, step, seed=0, head="full"):
    """Nats; narrow models fall as the law does, below what they will end at, and rise over the last
    part.
    """
    found = law(width, step)
    if width <= NARROW:
        end = law(width, STEPS) * ABOVE - RISE
        found += end + RISE * max(0.0, (step / STEPS - TURN) / (1 - TURN))
        # as steep a fall as the law has would hide the rise: from TURN on, the law stands still
        found += (
            law(width, min(step, TURN * STEPS))
            - law(width, step)
            - (law(width, TURN * STEPS) - law(width, STEPS)) * min(1, step / (TURN * STEPS))
        )
    return found - GAIN.get(head, 0.0)


def entropy(width, step):
    """Singular entropy as a share of log D: in narrow models down from 0.3 to 0.1 at half of
    training, and up to 0.2; wide ones only fall.
    """
    at = step / STEPS
    if width <= NARROW:
        return 0.3 - 0.4 * at if at < 0.5 else 0.1 + 0.2 * (at - 0.5)
    return 0.3 - 0.2 * at


def anisotropy(width, step, layer):
    """0.1 a block; in the last layer of narrow models it rises from 0.2 to 0.4 over the second
    half.
    """
    rise = 0.2 * max(0.0, step / STEPS - 0.5) / 0.5 if width <= NARROW and layer == 2 else 0.0
    return 0.1 * layer + rise


def model(seed, width, head="full", noise=0.002):
    rng = np.random.default_rng([seed, width, len(head)])
    tags = {
        "kind": "ladder" if head == "full" else "joint",
        "name": f"width {width}",
        "seed": seed,
        "width": width,
        "narrow": width <= NARROW,
        "head": head,
        "parameters": size(width) + 32 * (head != "full") * width,
        "run": f"seed{seed}-width{width}-{head}",
    }
    rows = []
    for step in range(0, STEPS + 1, EVERY):
        row = lambda metric, value, unit, *, step=step, **more: records.row(
            metric, value, unit, model="run:r", step=step, trained=step * PER_STEP, **more, **tags
        )
        rows.append(
            row(
                "nll",
                (nll(width, step, seed, head) if step else 6.9) + rng.normal(0, noise),
                "nats",
            )
        )
        if head == "full":
            rows += [
                row(
                    "anisotropy",
                    anisotropy(width, step, layer),
                    "cosine",
                    site="residual",
                    layer=layer,
                )
                for layer in range(3)
            ]
            rows.append(row("anisotropy", anisotropy(width, step, 1), "cosine", site="final"))
            values = np.linspace(1, 0.2, width).round(4).tolist()
            rows.append(
                row(
                    "head_spectrum",
                    entropy(width, step) * math.log(width),
                    "nats",
                    site="head",
                    directions=width,
                    values=values,
                    index=list(range(1, width + 1)),
                    largest=3.0,
                    effective_rank=width * 0.8,
                )
            )
    return rows


def heads(seed):
    """Ranks of a head of width 64 that need 32 directions; below, a halving of the rank costs 0.1
    nats. And two other kinds.
    """
    rows, rng = [], np.random.default_rng(seed)
    for start, extra in (
        ("as it is", 0.3),
        ("trained from there", 0.0),
        ("trained from random", 0.05),
    ):
        for rank in (4, 8, 16, 32, 64):
            loss = (
                3.0 + 0.1 * max(0, math.log2(32 / rank)) + extra * (rank < 64) + rng.normal(0, 1e-4)
            )
            rows.append(
                records.row(
                    "head_rank",
                    loss,
                    "nats",
                    model="run:r",
                    rank=rank,
                    start=start,
                    seed=seed,
                    climb=0.01,
                    kind="frozen",
                    width=64,
                    body="r",
                )
            )
    for head, gain in {"full": 0.0, **GAIN}.items():
        numbers = V * 16 + 512 * head.startswith("mix")
        rows.append(
            records.row(
                "head_kind",
                4.0 - gain + rng.normal(0, 1e-4),
                "nats",
                model="run:r",
                head=head,
                numbers=numbers,
                size=numbers / V / 16,
                seed=seed,
                kind="frozen",
                width=16,
                body="r",
            )
        )
    return rows


def target(seed):
    """Needs 100 directions at half of the text and 120 at all of it, after one token."""
    rows = []
    for share, needed in ((0.25, 80 + seed), (0.5, 100 - seed), (1.0, 120)):
        tags = {
            "kind": "target",
            "context": 1,
            "share": share,
            "size": int(1e6 * share),
            "seed": seed,
        }
        rows += [
            records.row(
                "target_error",
                error,
                "share",
                model="builtin:code",
                site="target",
                rank=rank,
                **tags,
            )
            for rank, error in ((1, 0.9), (16, 0.6), (256, 0.1))
        ]
        rows.append(
            records.row(
                "target_rank",
                needed,
                "directions",
                model="builtin:code",
                error=0.2,
                contexts=1024,
                **tags,
            )
        )
        rows.append(
            records.row(
                "target_effective_rank",
                3.0 * needed,
                "directions",
                model="builtin:code",
                contexts=1024,
                **tags,
            )
        )
    return rows


def study(seeds=3):
    rows = []
    for seed in range(seeds):
        for width in WIDTHS:
            rows += model(seed, width)
        for head in GAIN:
            rows += model(seed, 16, head)
        rows += heads(seed) + target(seed)
    return rows
