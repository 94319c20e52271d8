"""Speed and memory of lmdyn against PyTorch doing the same work, in the same run.

    python scripts/benchmarks/benchmark.py entropy online gradients --model gguf:model.gguf
    python scripts/benchmarks/benchmark.py tiny 135m lesson watch

entropy    knowledge entropy over windows of 512: the model's body only, no output head
online     adaptation in chunks of 512, no context, plain SGD on all parameters; every token is
           scored before the update on it
gradients  norms of each sequence's own gradient, attention and MLP of every layer; 32 sequences of
           40 tokens whose last 4 are the span
tiny       training steps: 4 layers of width 128, 16 x 256 tokens of bytes, clipping and AdamW
135m       training steps: the shape of SmolLM2-135M, random weights, 1 x 512 tokens; `train` is
           tiny and 135m
lesson     three models go through the same continual training, with probes before, between and
           after
streams    8 documents with an adapter each, one after another and side by side, over chunks of 16
           to 512, tiny and 135m
watch      what measuring the whole default set every 50 steps adds to the time of training `tiny`;
           lmdyn alone

Each side runs in a fresh process of its own, in turns, with the same threads and numbers (float32
on a CPU); PyTorch once as installed and, on a CPU, once more with oneDNN's matrix products. Where a
side can choose its batch size, the first turn tries each and keeps the fastest. The results are
compared: different work is no benchmark. Compilation and warm-up are timed apart. A GPU that both
see is used. Each job is a function per side, in JOBS (given_models.py, training_steps.py,
lessons.py). Needs `pip install .[bench]`.

Memory of the process (of the device, on a GPU): `loaded`, held once the model is loaded; `run`, the
most in the timed run; `peak`, the most from loading on, compilation included; `whole`, the most
ever, reading the file included. For `entropy` with `gguf:`, lmdyn holds quantised weights and
PyTorch float32 ones (with `dir:` both hold float32).
"""

import argparse
import contextlib
import ctypes
import functools
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
from pathlib import Path

import document_streams
import given_models
import lessons
import numpy as np
import training_steps
from given_models import LENGTH, Setting

JOBS = given_models.JOBS | training_steps.JOBS | lessons.JOBS


# --- one side in its own process


def peak(library):
    """Bytes: the most the process (library None) or the GPU has held, since the start or the last
    `held`.
    """
    if library == "torch":
        return sys.modules["torch"].cuda.max_memory_allocated()
    if library == "lmdyn":
        return sys.modules["jax"].devices()[0].memory_stats()["peak_bytes_in_use"]
    with contextlib.suppress(OSError, TypeError):
        return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def held(library):
    """Bytes held now. The peak starts afresh, where that can be done (Linux; PyTorch)."""
    if library == "lmdyn":
        return sys.modules["jax"].devices()[0].memory_stats()["bytes_in_use"]
    if library == "torch":
        sys.modules["torch"].cuda.reset_peak_memory_stats()
        return peak(library)
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(
            0
        )  # what reading the file left unused goes back to the system
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak(library)


def machine_seconds():
    """CPU seconds that all processes of this machine have used; Linux only, else NaN."""
    with contextlib.suppress(OSError):
        fields = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
        return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf(
            "SC_CLK_TCK"
        )  # all but idle and waiting
    return math.nan


def compile_clock():
    """A list that collects the seconds of every compilation by JAX from now on."""
    import jax

    name, seconds = "/jax/core/compile/backend_compile_duration", []
    listen = jax.monitoring.register_event_duration_secs_listener
    listen(lambda event, duration, **_: seconds.append(duration) if event == name else None)
    return seconds


def limit_cores(order):
    """Keeps this process to as many cores as it is to have threads: XLA makes one per core."""
    if order["device"] == "cpu" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: order["threads"]])


def work(order):
    """The numbers of one side of a job: loads, warms up, runs. Called in a fresh process."""
    limit_cores(order)
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
    wall, cpu, machine = (
        time.perf_counter() - wall,
        time.process_time() - cpu,
        machine_seconds() - machine,
    )
    seconds, tokens = wall - sum(compiled), JOBS[order["job"]].timed or len(setting.stream) - 1
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


def make_model(order):
    """The reference of a job's model: the one given, or one that the job makes."""
    make = JOBS[order["job"]].model
    return {"model": order["model"] if make is None else make(f"{order['out']}.model")}


def watch(order):
    """What measuring inside a run costs."""
    return training_steps.watch(order)


def streams(order):
    """Documents side by side, one side of the comparison."""
    limit_cores(order)
    return document_streams.streams(order)


def tokens_of(order):
    """Token ids [N + 1] of a text, by lmdyn's tokenizer, to a file: both sides read the same."""
    from lmdyn import checkpoints, data

    tokenizer = checkpoints.load(order["model"]).tokenizer
    stream = data.join(data.tokenize(order["data"], tokenizer), tokenizer.end_of_text)
    if len(stream) < (need := order["tokens"] + 1):
        sys.exit(
            f"{order['data']} has {len(stream)} tokens; --tokens {order['tokens']} needs {need}"
        )
    np.save(f"{order['out']}.npy", np.asarray(stream[:need], np.int32))
    return {}


def devices(order):
    """What both sides can run on."""
    import jax
    import torch

    if jax.devices()[0].platform == "gpu" and torch.cuda.is_available():
        return {"device": "cuda", "name": torch.cuda.get_device_name()}
    found = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if sys.platform == "linux"
        else None
    )
    return {"device": "cpu", "name": found[1] if found else platform.machine()}


def fresh(function, order):
    """`function(order)` in a process of its own."""
    environment = os.environ | {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, __file__, "--worker", function.__name__, json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(
            f"{function.__name__} failed with exit code {done.returncode}\n{done.stderr[-3000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


# --- the whole benchmark


def benchmark(name, common, repeats, batches=None):
    """{side: results, one per turn} of a job; the first turn chooses each side's batch size."""
    sides = ["lmdyn", "torch"] + ["onednn"] * (
        common["device"] == "cpu" and common["dtype"] == "float32"
    )
    results, best = {side: [] for side in sides}, {}
    for turn in range(repeats):
        for side in results:
            tried = []
            for batch in [best[side]] if turn else batches or JOBS[name].batches:
                tried.append(
                    fresh(work, {"job": name, "side": side, "batch": batch, **common})
                    | {"batch": batch}
                )
                speed = tried[-1]["tokens_per_second"]
                print(
                    f"  {name} {turn + 1}/{repeats} {side:<6} batch {batch}: {speed:,.0f} tokens/s",
                    file=sys.stderr,
                )
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

    print(
        f"\n{name}: {JOBS[name].what}; PyTorch"
        f" {'with oneDNN' if which == 'onednn' else 'as installed'}"
    )
    print(f"{'':<22}{'lmdyn':>12}{which:>12}   ratio, median (range)")
    line("tokens_per_second", "tokens/s")
    line("cpu", "tokens/s of CPU time")
    for row in ours + theirs:
        row["run - loaded"], row["peak - loaded"] = (
            max(row[key] - row["loaded"], 1) for key in ("run", "peak")
        )
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
        function = {f.__name__: f for f in (work, make_model, watch, streams, tokens_of, devices)}[
            sys.argv[2]
        ]
        print(json.dumps(function(json.loads(sys.argv[3]))))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*JOBS, "train", "watch", "streams"]
    parser.add_argument("jobs", nargs="+", choices=names, metavar="job", help=", ".join(names))
    parser.add_argument("--model", help="gguf:PATH or dir:PATH; for entropy, online and gradients")
    parser.add_argument("--data", default="builtin:docs", help="any text reference of lmdyn")
    parser.add_argument("--tokens", type=int, default=12 * LENGTH, help=f"a multiple of {LENGTH}")
    parser.add_argument(
        "--batches",
        type=lambda text: [int(n) for n in text.split(",")],
        help="default: the job's own",
    )
    parser.add_argument("--shapes", default="tiny,135m", help="of streams")
    parser.add_argument(
        "--lengths", default=",".join(map(str, document_streams.LENGTHS)), help="chunks of streams"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path, help="every turn's numbers, JSON")
    args = parser.parse_args()
    if args.tokens < LENGTH or args.tokens % LENGTH:
        parser.error(f"--tokens {args.tokens}: use a multiple of {LENGTH}")
    wanted = [
        name for job in args.jobs for name in (("tiny", "135m") if job == "train" else (job,))
    ]
    jobs = {name: JOBS[name] for name in wanted if name in JOBS}
    if args.model is None and (needy := [name for name, job in jobs.items() if job.model is None]):
        parser.error(f"--model is needed for {', '.join(needy)}")
    found = fresh(devices, {})
    with tempfile.TemporaryDirectory() as folder:
        common = {"threads": args.threads, "dtype": args.dtype, **found}
        where = found["name"] + (f", {args.threads} threads" if found["device"] == "cpu" else "")
        print(
            f"{where}; {args.dtype}; {args.tokens:,} tokens of {args.data}; {args.repeats} turns",
            flush=True,
        )
        results = {}
        for name, job in jobs.items():
            order = {
                "model": args.model,
                "data": args.data,
                "tokens": job.tokens or args.tokens,
                "job": name,
            }
            order |= {"out": str(Path(folder) / name)}
            model = fresh(make_model, order)["model"]
            fresh(tokens_of, order | {"model": model})
            order = common | {"model": model, "stream": f"{order['out']}.npy"}
            results[name] = benchmark(name, order, args.repeats, args.batches)
        if "watch" in wanted:
            training_steps.show_watch(fresh(watch, common))
        same = []
        if "streams" in wanted:
            lengths = [int(n) for n in args.lengths.split(",")]
            results["streams"], same = document_streams.run_streams(
                functools.partial(fresh, streams),
                common,
                folder,
                args.repeats,
                args.shapes.split(","),
                lengths,
            )
    same += [
        show(name, r["lmdyn"], r[side], side)
        for name, r in results.items()
        if name in jobs
        for side in r
        if side != "lmdyn"
    ]
    if args.out:
        args.out.write_text(json.dumps({**common, "results": results}, indent=1))
    return 0 if all(same) else "FAIL: the two sides did not compute the same number"


if __name__ == "__main__":
    sys.exit(main())
