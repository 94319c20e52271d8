"""The job `streams` of `benchmark.py`: documents with an adapter each, read side by side.

They share one model, and are compared with the same documents one after another.

8 documents of random tokens, low-rank adapters of rank 8 at the MLPs, Adam, chunks of 16 to 512; a
document has 2 chunks at least, and 1,024 tokens (128 for the large shape) at least. PyTorch does
the same with plain modules: one document at a time, and all in one batch, whose adapters are
batched products. All must find the same nll.
"""

import functools
import statistics
import time
from pathlib import Path

import numpy as np
from training_steps import SHAPES, make, plain

STREAMS, RANK, RATE = 8, 8, 1e-3
LEAST = {"tiny": 1024, "135m": 128}
LENGTHS = (16, 32, 64, 128, 256, 512)
ROOM = 1024
"""Positions that the models have: enough for the longest chunk."""


def documents(shape, chunk):
    """`[8, N + 1]` token ids, N a multiple of the chunk."""
    length = chunk * max(2, LEAST[shape] // chunk)
    return np.random.default_rng(chunk).integers(0, SHAPES[shape]["vocab"], (STREAMS, length + 1))


def timed(run, repeats):
    """`(median seconds, what it found)` after one run that warms up."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), found


def lmdyn_streams(order):
    import optax

    from lmdyn import checkpoints, models, online
    from lmdyn.allocator import keep_memory
    from lmdyn.params import flatten, low_rank

    keep_memory()
    path = f"{order['out']}.{order['shape']}"
    model, params = checkpoints.load(
        make(order["shape"])(path),
        models.Compute(dtype=order["dtype"], unroll=4 if order["shape"] == "tiny" else 1),
    )[:2]
    low, optimizer = low_rank("blocks.mlp", rank=RANK), optax.adam(RATE)
    fresh = flatten(low.partition(params).init(params))
    np.savez(
        f"{path}.adapters.npz", **{"/".join(key): np.asarray(leaf) for key, leaf in fresh.items()}
    )
    found = {}
    for chunk in order["lengths"]:
        for name, parallel in (("alone", 1), ("together", STREAMS)):
            run = functools.partial(
                online.evaluate,
                model,
                params,
                list(documents(order["shape"], chunk)),
                optimizer,
                online.OnlineConfig(chunk, adapt=low, reset="document", parallel=parallel),
            )
            seconds, outcome = timed(run, order["repeats"])
            found[f"{chunk} {name}"] = {"speed": len(outcome.nll) / seconds, "nll": outcome.mean}
    return found


def torch_streams(order):
    import torch
    from given_models import use_onednn

    shape, path = SHAPES[order["shape"]], f"{order['out']}.{order['shape']}"
    model = plain(torch, {**shape, "positions": ROOM}, np.load(f"{path}.npz"), order["device"])
    model.requires_grad_(False)
    if order["side"] == "onednn":
        use_onednn(torch, model)
    model = model.to(order["device"])
    start = {
        key: torch.tensor(array, device=order["device"])
        for key, array in np.load(f"{path}.adapters.npz").items()
    }
    held = {}

    def beside(name, layer, plain_forward, x):
        a, b = held[f"{name}/a"][:, layer], held[f"{name}/b"][:, layer]  # [S, in, R], [S, R, out]
        return plain_forward(x) + torch.bmm(torch.bmm(x, a), b)

    for layer, block in enumerate(model.blocks):
        for name in ("gate", "up", "down"):
            module = getattr(block, name)
            module.forward = functools.partial(beside, f"blocks/mlp/{name}", layer, module.forward)
    mixed = torch.autocast(order["device"], torch.bfloat16, order["dtype"] == "bfloat16")

    def adapt(texts, chunk):
        """All rows of `texts` side by side."""
        held.update(
            {
                key: leaf.expand(len(texts), *leaf.shape).clone().requires_grad_()
                for key, leaf in start.items()
            }
        )
        optimizer, scores = torch.optim.Adam(list(held.values()), RATE), []
        for at in range(0, texts.shape[1] - 1, chunk):
            window = texts[:, at : at + chunk + 1]
            with mixed:
                logits = model(window[:, :-1])
                nll = torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1).float(), window[:, 1:].flatten(), reduction="none"
                )
            (nll.sum() / chunk).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            scores.append(nll.detach())
        return torch.cat(scores).double().mean().item()

    found = {}
    for chunk in order["lengths"]:
        texts = torch.from_numpy(documents(order["shape"], chunk)).to(order["device"])
        for name, groups in (("alone", texts.split(1)), ("together", (texts,))):
            seconds, nll = timed(
                lambda groups=groups, chunk=chunk: float(
                    np.mean([adapt(group, chunk) for group in groups])
                ),
                order["repeats"],
            )
            found[f"{chunk} {name}"] = {
                "speed": STREAMS * (texts.shape[1] - 1) / seconds,
                "nll": nll,
            }
    return found


def streams(order):
    """One side, in a fresh process."""
    if order["side"] != "lmdyn":
        import torch

        torch.set_num_threads(order["threads"])
        return torch_streams(order)
    return lmdyn_streams(order)


def show_streams(shape, results):
    """Prints the curve; True if all sides found the same nll to 1e-3."""
    print(
        f"\nstreams, {shape}: {STREAMS} documents with adapters of rank {RANK} at the MLPs and"
        " Adam; tokens per second, all together"
    )
    print(
        f"{'chunk':>6}"
        + "".join(
            f"{f'{side}, {name}':>19}" for side in results for name in ("alone", "together", "gain")
        )
    )
    lengths = dict.fromkeys(int(key.split()[0]) for key in results["lmdyn"])
    for chunk in lengths:
        cells = []
        for side in results.values():
            alone, together = (side[f"{chunk} {name}"]["speed"] for name in ("alone", "together"))
            cells += [f"{alone:,.0f}", f"{together:,.0f}", f"{together / alone:.2f}"]
        print(f"{chunk:>6}" + "".join(f"{cell:>19}" for cell in cells))
    wanted = results["lmdyn"]
    return all(
        abs(side[key]["nll"] / wanted[key]["nll"] - 1) < 1e-3
        for side in results.values()
        for key in wanted
    )


def run_streams(fresh, common, out, repeats, shapes, lengths):
    """The whole job.

    Args:
      fresh: runs one side's order in a process of its own, see `benchmark.py`.
    """
    found, same = {}, []
    for shape in shapes:
        found[shape] = {}
        for side in ["lmdyn", "torch"] + ["onednn"] * (
            common["device"] == "cpu" and common["dtype"] == "float32"
        ):
            order = {
                **common,
                "shape": shape,
                "side": side,
                "out": str(Path(out) / "streams"),
                "repeats": repeats,
                "lengths": list(lengths),
            }
            found[shape][side] = fresh(order)
        same.append(show_streams(shape, found[shape]))
    return found, same
