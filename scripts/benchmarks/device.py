"""lmdyn against PyTorch on one GPU, in one run of at most 8 minutes: parity, then speed and memory.

    bash scripts/benchmarks/device.sh --out results/device

writes `device.json` and `device.md`, a table for docs/benchmarks.md. Parity comes first: float32
against PyTorch in float32 to 1e-5, bfloat16 within its rounding; a side that computes something
else is not timed. Then every row: tokens a second of lmdyn as it comes, and of PyTorch eager,
compiled (`torch.compile`) and as a CUDA graph; MFU; peak memory of the process. Each row and side
runs in a process of its own. What the time does not reach is said to be missing. Without a GPU,
`--small` runs all of it on a CPU at sizes that mean nothing.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import device_jobs

PARITY = {"float32": 1e-5, "bfloat16": 2e-2}
"""Relative. bfloat16 has 8 bits; a norm of gradients adds up roundings of every layer."""


def child(order):
    """What one process does; its last line is JSON."""
    shape, side = order["shape"], order["side"]
    if order["job"] == "parity":
        given = (shape, order["dtype"], order["length"])
        parity = device_jobs.lmdyn_parity if side == "lmdyn" else device_jobs.torch_parity
        return parity(*given) if side == "lmdyn" else parity(*given, order["device"])
    make = device_jobs.lmdyn_side if side == "lmdyn" else device_jobs.torch_side
    found = {}
    for way, tokens, run in make(shape, order["job"], order):
        seconds, runs, warm = device_jobs.timed(run, order["seconds"])
        found[way] = {"tokens_per_second": tokens / seconds, "runs": runs, "first": warm}
        print(json.dumps({"found": found, "peak": device_jobs.peak_bytes(side)}), flush=True)
    return {"found": found, "peak": device_jobs.peak_bytes(side)}


def fresh(order, limit):
    """`child(order)` in a process of its own; what it had found where it runs past the limit."""
    if limit < 5:
        return {"found": {}, "peak": None, "error": "no time left"}
    environment = os.environ | {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, __file__, "--child", json.dumps(order)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=limit
        )
        said, error = done.stdout, done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode()
        error = ["no time left"]
    lines = [line for line in said.splitlines() if line.startswith("{")]
    found = json.loads(lines[-1]) if lines else {"found": {}, "peak": None}
    return {**found, "error": error[0][:200]} if error else found


def device_of(small):
    """What both sides run on, by a process of its own: this one must hold no device."""
    program = (
        "import jax, torch; d = jax.devices()[0]; from lmdyn.costs import peak_flops;"
        " gpu = d.platform == 'gpu' and torch.cuda.is_available();"
        " print(gpu, d.device_kind, peak_flops(d) or 0, jax.__version__, torch.__version__,"
        " sep='|')"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if said.returncode:
        sys.exit(f"no device: {said.stderr.strip().splitlines()[-1]}")
    gpu, name, flops, jax, torch = said.stdout.split("\n")[-2].split("|")
    if gpu != "True" and not small:
        sys.exit("no GPU that JAX and PyTorch both see; --small runs all of it on a CPU")
    name = name if gpu == "True" else f"CPU ({platform.machine()})"
    device = "cuda" if gpu == "True" else "cpu"
    return {"device": device, "name": name, "flops": float(flops), "jax": jax, "torch": torch}


def parity(common, shape, length, left):
    """`{dtype: {number: (lmdyn, torch, relative difference)}}`, and whether all are within."""
    found, same = {}, True
    for dtype, bound in PARITY.items():
        order = {"job": "parity", "shape": shape, "dtype": dtype, "length": length, **common}
        ours, theirs = (fresh({**order, "side": side}, left()) for side in ("lmdyn", "torch"))
        if "error" in ours or "error" in theirs:
            return {dtype: {"lmdyn": ours, "torch": theirs}}, False
        pairs = {name: (ours[name], theirs[name]) for name in ours}
        found[dtype] = {name: (a, b, abs(a - b) / abs(b)) for name, (a, b) in pairs.items()}
        same &= all(gap <= bound for _, _, gap in found[dtype].values())
    return found, same


def flops_per_token(job, shape, setting):
    """By lmdyn's formula; None where MFU says nothing."""
    from lmdyn.costs import step_flops
    from lmdyn.costs.flop_counts import ChunkSizes, forward_flops
    from lmdyn.models import ModelConfig

    config, length = ModelConfig(**shape), setting.get("length", setting.get("chunk"))
    if job in ("train", "online"):
        return step_flops(config, 1, length) / length
    if job in device_jobs.METRICS:
        pairs = ChunkSizes(count=1, encoded=length, scored=length).pairs
        return forward_flops(config, length, 0 if job == "entropy" else length, pairs) / length
    return None


def table(results, flops):
    """The rows as Markdown."""
    lines = [
        "| job | lmdyn | MFU | peak | PyTorch eager | compiled | graph | peak | of the best |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results:
        ours, theirs = row["lmdyn"]["found"], row["torch"]["found"]
        speed = max((way["tokens_per_second"] for way in ours.values()), default=None)
        best = max((way["tokens_per_second"] for way in theirs.values()), default=None)
        share = speed and flops and row["flops"] and speed * row["flops"] / flops
        number = lambda n: "-" if n is None else f"{n:,.0f}"
        gib = lambda n: "-" if not n else f"{n / 2**30:.1f} GiB"
        cells = [
            row["name"],
            number(speed) if speed else row["lmdyn"].get("error", "-"),
            f"{share:.0%}" if share else "-",
            gib(row["lmdyn"]["peak"]),
            *[
                number(theirs.get(way, {}).get("tokens_per_second"))
                for way in ("eager", "compiled", "graph")
            ],
            gib(row["torch"]["peak"]),
            f"{speed / best:.2f}" if speed and best else "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(folder, made):
    """The JSON and the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "device.json").write_text(json.dumps(made, indent=1))
    head = f"{made['name']}, jax {made['jax']}, PyTorch {made['torch']}; tokens per second"
    text = f"{head}\n\n{table(made['rows'], made['flops'])}\n"
    (folder / "device.md").write_text(text)


def shrunk(setting):
    """A row's sizes for `--small`."""
    most = {"rows": 2, "length": 32, "chunk": 16, "documents": 2}
    return {name: min(size, most[name]) for name, size in setting.items()}


def main():
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(json.loads(sys.argv[2]))))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/device"), help="a folder")
    parser.add_argument("--seconds", type=float, default=440, help="for all of it")
    parser.add_argument("--rows", default="", help="only jobs with this in their name")
    parser.add_argument("--small", action="store_true", help="on a CPU, at sizes that mean nothing")
    args = parser.parse_args()
    begin = time.monotonic()
    left = lambda: args.seconds - (time.monotonic() - begin)
    common = device_of(args.small)
    shapes = dict.fromkeys(device_jobs.SHAPES, device_jobs.SMALL)
    shapes = shapes if args.small else device_jobs.SHAPES
    checked = {**shapes["135m"], "depth": 2 if args.small else 6}
    same, ok = parity(common, checked, 32 if args.small else 256, left)
    for dtype, numbers in same.items():
        print(f"parity, {dtype}: {numbers}", file=sys.stderr)
    made = {**common, "parity": same, "rows": [], "xla_flags": os.environ.get("XLA_FLAGS", "")}
    for job, shape, setting in device_jobs.ROWS if ok else []:
        name = f"{job}, {shape}, {' x '.join(f'{n:,}' for n in setting.values())}"
        if args.rows not in name:
            continue
        setting = shrunk(setting) if args.small else setting
        order = {"job": job, "shape": shapes[shape], **setting, **common}
        order |= {"dtype": "float32" if args.small else "bfloat16"}
        order["seconds"] = 0.1 if args.small else 3.0
        row = {"name": name, "flops": flops_per_token(job, shapes[shape], setting)}
        row |= {side: fresh({**order, "side": side}, left()) for side in ("lmdyn", "torch")}
        made["rows"].append(row)
        write(args.out, made)  # after each: what is measured is not lost
        print(f"{name}: {left():.0f} s left", file=sys.stderr)
    write(args.out, made)
    print((args.out / "device.md").read_text())
    return 0 if ok else "FAIL: lmdyn and PyTorch do not compute the same; nothing was timed"


if __name__ == "__main__":
    sys.exit(main())
