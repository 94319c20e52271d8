"""Speed and memory of lmdyn against PyTorch doing the same work, in the same run, on the same machine.

    python scripts/benchmark.py entropy online --model gguf:model.gguf --data text:book.txt

entropy  knowledge entropy over windows of 512: the model's body only, no output head on either side
online   adaptation in chunks of 512, no context, plain SGD on all parameters, every token scored before its update

Each side runs in a fresh process of its own, in turns, with the same threads and numbers (float32 on a CPU); PyTorch
once as installed and, on a CPU, once more with oneDNN's matrix products. Where a side can choose its batch size, the
first turn tries each and keeps the fastest. The results are compared: different work is no benchmark. Compilation and
warm-up are timed apart. A GPU that both see is used. A job is a function a side, in JOBS. Needs `pip install .[bench]`.

Memory of the process (of the device, on a GPU): `loaded`, held once the model is there; `run`, the most in the timed
run; `peak`, the most from loading on, compilation included; `whole`, the most ever, reading the file included.
For `entropy` with `gguf:`, lmdyn holds quantised weights and PyTorch float32 ones (with `dir:` both hold float32).
"""

import argparse
import contextlib
import ctypes
import gc
import json
import math
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

LENGTH, RATE = 512, 0.01


class Job(NamedTuple):
    """One piece of work: `lmdyn` and `torch` map Setting to Side; `batches` are the batch sizes worth trying."""

    lmdyn: Callable
    torch: Callable
    batches: tuple
    what: str


class Setting(NamedTuple):
    """What a side is told: the model's reference, token ids [N + 1], batch size, device, dtype, and itself."""

    model: str
    stream: np.ndarray
    batch: int
    device: str
    dtype: str
    side: str


class Side(NamedTuple):
    """A loaded model and its work: `warm()` compiles, `run()` does all of it and returns one number to compare."""

    warm: Callable
    run: Callable


# --- lmdyn -----------------------------------------------------------------------------------------------------------


def lmdyn_model(setting, packed=False):
    """(model, params), computing in the setting's dtype; `packed` keeps a GGUF file's weights quantised in memory."""
    from lmdyn import checkpoints, models

    return checkpoints.load(setting.model, models.Compute(dtype=setting.dtype), packed)[:2]


def lmdyn_entropy(setting):
    from lmdyn import data, metrics

    model, params = lmdyn_model(setting, packed=True)  # as `lmdyn measure` does; the numbers are the same
    metric, windows = metrics.build("knowledge_entropy"), data.windows(setting.stream, LENGTH, setting.batch)

    def run():
        return metrics.measure(metric, model, params, windows)["knowledge_entropy"].total

    return Side(run, run)


def lmdyn_online(setting):
    import optax

    from lmdyn import online

    model, params = lmdyn_model(setting)
    rule = {"optimizer": optax.sgd(RATE), "chunk": LENGTH, "context": online.none(), "adapt": "all"}

    def run():
        return online.evaluate(model, params, [setting.stream], **rule).mean

    return Side(run, run)


# --- PyTorch, as someone who knows it would write it ---------------------------------------------------------------


def torch_model(setting):
    """(torch, the model of `transformers` with fused attention)."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_float32_matmul_precision("high")  # as JAX: float32 products on a GPU may use its tensor cores
    kind, _, path = setting.model.partition(":")
    folder, file = (Path(path).parent, {"gguf_file": Path(path).name}) if kind == "gguf" else (path, {})
    model = AutoModelForCausalLM.from_pretrained(str(folder), **file, dtype=torch.float32, attn_implementation="sdpa")
    if setting.side == "onednn":
        use_onednn(torch, model)
    return torch, model.eval().to(setting.device)


def use_onednn(torch, model):
    """Linear layers by oneDNN, which comes with PyTorch, and their gradients too.

    PyTorch's default, MKL, uses only half the vector width of an AMD processor: 95 GFLOP/s a core where oneDNN and XLA
    reach 210. Without this, a comparison there is one of matrix libraries.
    """

    def product(x, w):  # x [N, D], w [F, D] -> x w^T
        return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")

    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return product(x, w)

        @staticmethod
        def backward(ctx, g):
            (x, w), g = ctx.saved_tensors, g.contiguous()
            flat_g, flat_x = g.flatten(0, -2), x.flatten(0, -2)
            return product(g, w.t().contiguous()), product(flat_g.t().contiguous(), flat_x.t().contiguous())

    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.bias is None:
            module.forward = lambda x, module=module: Linear.apply(x, module.weight)


def torch_entropy(setting):
    torch, model = torch_model(setting)
    body = model.base_model.to(getattr(torch, setting.dtype))
    downs = [layer.mlp.down_proj for layer in body.layers]
    tokens = torch.from_numpy(setting.stream[:-1]).long().to(setting.device)
    windows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    sums = torch.zeros(len(downs), downs[0].in_features, device=setting.device)

    def remember(layer, c):
        sums[layer] += c.abs().flatten(0, 1).sum(0, dtype=torch.float32)  # flat: 20 times the speed of sum((0, 1))

    for layer, down in enumerate(downs):
        down.register_forward_pre_hook(lambda _, args, layer=layer: remember(layer, args[0]))

    def run(count=None):
        sums.zero_()
        with torch.inference_mode():
            for batch in windows[:count].split(setting.batch):
                body(batch, use_cache=False)
        p = sums.double() / sums.double().sum(1, keepdim=True)
        return torch.special.entr(p).sum().item()

    return Side(lambda: run(setting.batch), run)


def torch_online(setting):
    torch, model = torch_model(setting)
    tokens = torch.from_numpy(setting.stream).long().to(setting.device)
    parameters = list(model.parameters())
    mixed = torch.autocast(setting.device, torch.bfloat16, setting.dtype == "bfloat16")

    def run(stop, rate):
        scores = []
        for start in range(0, stop, LENGTH):
            window = tokens[start : start + LENGTH + 1]
            with mixed:
                logits = model(window[None, :-1], use_cache=False).logits[0]
                nll = torch.nn.functional.cross_entropy(logits, window[1:], reduction="none")
            nll.mean().backward()
            with torch.no_grad():
                for p in parameters:
                    p.add_(p.grad, alpha=-rate)
                    p.grad = None
            scores.append(nll.detach())
            del logits, nll
        return torch.cat(scores).double().mean().item()

    return Side(lambda: run(LENGTH, 0.0), lambda: run(len(tokens) - 1, RATE))


JOBS = {
    "entropy": Job(lmdyn_entropy, torch_entropy, (1, 4), f"knowledge entropy, windows of {LENGTH}"),
    "online": Job(lmdyn_online, torch_online, (1,), f"SGD {RATE} on all parameters, chunks of {LENGTH}, no context"),
}


# --- one side in its own process -------------------------------------------------------------------------------------


def peak(library):
    """Bytes: the most the process (library None) or the GPU has held, since the start or the last `held`."""
    if library == "torch":
        return sys.modules["torch"].cuda.max_memory_allocated()
    if library == "lmdyn":
        return sys.modules["jax"].devices()[0].memory_stats()["peak_bytes_in_use"]
    with contextlib.suppress(OSError, TypeError):
        return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def held(library):
    """Bytes held now. The peak starts afresh, where that can be done (Linux; PyTorch)."""
    if library == "lmdyn":
        return sys.modules["jax"].devices()[0].memory_stats()["bytes_in_use"]
    if library == "torch":
        sys.modules["torch"].cuda.reset_peak_memory_stats()
        return peak(library)
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what reading the file left unused goes back to the system
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak(library)


def machine_seconds():
    """CPU seconds that all processes of this machine have used; Linux only, else NaN."""
    with contextlib.suppress(OSError):
        fields = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
        return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting
    return math.nan


def compile_clock():
    """A list that collects the seconds of every compilation by JAX from now on."""
    import jax

    name, seconds = "/jax/core/compile/backend_compile_duration", []
    listen = jax.monitoring.register_event_duration_secs_listener
    listen(lambda event, duration, **_: seconds.append(duration) if event == name else None)
    return seconds


def work(order):
    """Loads, warms up and runs one side of a job; returns its numbers. Called in a fresh process."""
    if order["device"] == "cpu" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: order["threads"]])  # what XLA counts
    if order["side"] != "lmdyn":
        import torch

        torch.set_num_threads(order["threads"])
    told = [order[key] for key in ("batch", "device", "dtype", "side")]
    setting = Setting(order["model"], np.load(order["stream"]), *told)
    side = getattr(JOBS[order["job"]], "lmdyn" if order["side"] == "lmdyn" else "torch")(setting)
    library = None if order["device"] == "cpu" else order["side"]
    compiled = compile_clock() if order["side"] == "lmdyn" else []
    result = {"whole": peak(library), "loaded": held(library)}
    side.warm()
    result |= {"compile": sum(compiled), "peak": peak(library)}
    compiled.clear()
    held(library)
    wall, cpu, machine = time.perf_counter(), time.process_time(), machine_seconds()
    result["value"] = side.run()
    wall, cpu, machine = time.perf_counter() - wall, time.process_time() - cpu, machine_seconds() - machine
    seconds, tokens = wall - sum(compiled), len(setting.stream) - 1
    result |= {
        "seconds": seconds,
        "compiled_again": sum(compiled),
        "run": peak(library),
        "others": (machine - cpu) / wall,
    }
    result |= {"tokens_per_second": tokens / seconds, "cpu": tokens / cpu}
    result["peak"] = max(result["peak"], result["run"])
    result["whole"] = max(result["whole"], result["peak"])
    return result


def tokens_of(order):
    """Token ids [N + 1] of a text, by lmdyn's tokenizer, to a file: both sides read the same."""
    from lmdyn import checkpoints, data

    tokenizer = checkpoints.load(order["model"]).tokenizer
    stream = data.join(data.tokenize(order["data"], tokenizer), tokenizer.end_of_text)
    if len(stream) < (need := order["tokens"] + 1):
        sys.exit(f"{order['data']} has {len(stream)} tokens; --tokens {order['tokens']} needs {need}")
    np.save(order["out"], np.asarray(stream[:need], np.int32))
    return {}


def devices(order):
    """What both sides can run on."""
    import jax
    import torch

    if jax.devices()[0].platform == "gpu" and torch.cuda.is_available():
        return {"device": "cuda", "name": torch.cuda.get_device_name()}
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    return {"device": "cpu", "name": found[1] if found else platform.machine()}


def fresh(function, order):
    """`function(order)` in a process of its own."""
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, __file__, "--worker", function.__name__, json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{function.__name__} failed with exit code {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- the whole benchmark ---------------------------------------------------------------------------------------------


def benchmark(name, common, repeats, batches=None):
    """{side: list of results, one a turn} of a job; the first turn chooses each side's batch size."""
    sides = ["lmdyn", "torch"] + ["onednn"] * (common["device"] == "cpu" and common["dtype"] == "float32")
    results, best = {side: [] for side in sides}, {}
    for turn in range(repeats):
        for side in results:
            tried = []
            for batch in [best[side]] if turn else batches or JOBS[name].batches:
                tried.append(fresh(work, {"job": name, "side": side, "batch": batch, **common}) | {"batch": batch})
                speed = tried[-1]["tokens_per_second"]
                print(f"  {name} {turn + 1}/{repeats} {side:<6} batch {batch}: {speed:,.0f} tokens/s", file=sys.stderr)
            fastest = max(tried, key=lambda result: result["tokens_per_second"])
            best[side] = fastest["batch"]
            results[side].append(fastest)
    return results


def show(name, ours, theirs, which):
    """Prints a job's table; True if both sides computed the same number to 1e-3."""

    def line(key, label, unit=1):
        a, b = (statistics.median(row[key] for row in rows) / unit for rows in (ours, theirs))
        pairs = [x[key] / y[key] for x, y in zip(ours, theirs, strict=True)]
        ratio = f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"
        print(f"{label:<22}{a:>12,.0f}{b:>12,.0f}   {ratio}")

    print(f"\n{name}: {JOBS[name].what}; PyTorch {'with oneDNN' if which == 'onednn' else 'as installed'}")
    print(f"{'':<22}{'lmdyn':>12}{which:>12}   ratio, median (range)")
    line("tokens_per_second", "tokens/s")
    line("cpu", "tokens/s of CPU time")
    for row in ours + theirs:
        row["run - loaded"], row["peak - loaded"] = (max(row[key] - row["loaded"], 1) for key in ("run", "peak"))
    for key in ("loaded", "run", "peak", "whole", "run - loaded", "peak - loaded"):
        line(key, f"{key}, MiB", 2**20)
    print(f"{'compile, s':<22}{statistics.median(row['compile'] for row in ours):>12.1f}")
    print(f"{'batch size':<22}{ours[0]['batch']:>12}{theirs[0]['batch']:>12}")
    print(f"{'result':<22}{ours[0]['value']:>12.5g}{theirs[0]['value']:>12.5g}")
    if (again := max(row["compiled_again"] for row in ours)) > 0.1:
        print(f"note: compiled again in the timed run ({again:.1f} s, not counted)")
    if (busy := max(row["others"] for row in ours + theirs)) > 0.2:
        print(f"note: other processes kept up to {busy:.1f} cores busy; do not trust these speeds")
    return abs(ours[0]["value"] - theirs[0]["value"]) <= 1e-3 * abs(theirs[0]["value"])


def main():
    if sys.argv[1:2] == ["--worker"]:
        function = {f.__name__: f for f in (work, tokens_of, devices)}[sys.argv[2]]
        print(json.dumps(function(json.loads(sys.argv[3]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", choices=JOBS, metavar="job", help=", ".join(JOBS))
    parser.add_argument("--model", required=True, help="gguf:PATH or dir:PATH")
    parser.add_argument("--data", default="builtin:docs", help="any text reference of lmdyn")
    parser.add_argument("--tokens", type=int, default=12 * LENGTH, help=f"a multiple of {LENGTH}")
    parser.add_argument("--batches", type=lambda text: [int(n) for n in text.split(",")], help="default: the job's own")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path, help="every turn's numbers, JSON")
    args = parser.parse_args()
    if args.tokens < LENGTH or args.tokens % LENGTH:
        parser.error(f"--tokens {args.tokens}: use a multiple of {LENGTH}")
    found = fresh(devices, {})
    with tempfile.TemporaryDirectory() as folder:
        stream = str(Path(folder) / "stream.npy")
        fresh(tokens_of, {"model": args.model, "data": args.data, "tokens": args.tokens, "out": stream})
        common = {"model": args.model, "stream": stream, "threads": args.threads, "dtype": args.dtype, **found}
        where = found["name"] + (f", {args.threads} threads" if found["device"] == "cpu" else "")
        print(f"{where}; {args.dtype}; {args.tokens:,} tokens of {args.data}; {args.repeats} turns", flush=True)
        results = {name: benchmark(name, common, args.repeats, args.batches) for name in args.jobs}
    same = [show(name, r["lmdyn"], r[side], side) for name, r in results.items() for side in r if side != "lmdyn"]
    if args.out:
        args.out.write_text(json.dumps({**common, "results": results}, indent=1))
    return 0 if all(same) else "FAIL: the two sides did not compute the same number"


if __name__ == "__main__":
    sys.exit(main())
