"""Compares lmdyn with scripts/reference.py: the same model and texts, every metric, adaptation.

    python scripts/compare.py --model gguf:model.gguf --data text:book.txt --data text:other.txt \\
      --tokens 12288

Prints a table of the worst relative difference over layers; exit code 1 if any exceeds the
tolerance, or a row is missing. Both sides run as subprocesses, one after the other. `--keep FOLDER`
keeps their rows, and a later run reuses those of the reference (same model, text and settings).
Needs `pip install .[bench]`. SmolLM2-135M, 12,288 predictions, 2 cores: about 5 minutes per text
for the reference, and as long for lmdyn.
"""

import argparse
import hashlib
import json
import math
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

METRICS = "nll,knowledge_entropy,attention_entropy,prediction_entropy,anisotropy,singular_entropy"
REFERENCE = Path(__file__).with_name("reference.py")


def run(command, out, reuse=False):
    """Runs `command --out out`; returns its rows. With `reuse`, rows that are already there are
    taken as they are.
    """
    if not (reuse and out.exists()):
        print("$", shlex.join([*command, "--out", str(out)]), file=sys.stderr)
        done = subprocess.run([*command, "--out", str(out)], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"exit code {done.returncode} from: {shlex.join(command)}\n{done.stdout}")
    return [json.loads(line) for line in out.read_text().splitlines()]


def name(value):
    """A file name for anything: its readable letters, and a hash that tells things apart."""
    return (
        re.sub(r"[^\w.-]+", "_", value)[-40:] + "-" + hashlib.sha256(value.encode()).hexdigest()[:8]
    )


# The metrics whose rows name a site; that of the others is not compared.
SITED = ("knowledge_entropy", "anisotropy", "singular_entropy", "flops")


def table(rows):
    """{(metric, site, layer): value} of rows; the site where it is fixed; `final` has no layer."""
    values = {}
    for row in rows:
        site = row["site"] if row["metric"] in SITED else None
        key = row["metric"], site, None if site == "final" else row["layer"]
        if key not in values and isinstance(row["value"], int | float):
            values[key] = row["value"]
    return values


def relative(ours, theirs):
    """|ours - theirs| / |theirs|; infinite where either is missing or not finite."""
    if ours is None or not math.isfinite(ours) or not math.isfinite(theirs):
        return math.inf
    return abs(ours - theirs) / max(abs(theirs), 1e-30)


def compare(ours, theirs, tolerance):
    """Lines (what, count, worst, at, lmdyn, PyTorch, ok), one a metric and site; whole-model values
    apart.
    """
    ours, theirs = table(ours), table(theirs)
    groups = {}
    for metric, site, layer in theirs:
        groups.setdefault((metric, site, layer is not None), []).append((metric, site, layer))
    for (metric, site, layered), keys in groups.items():
        worst = max(keys, key=lambda key: relative(ours.get(key), theirs[key]))
        difference = relative(ours.get(worst), theirs[worst])
        judged = (
            None if metric == "flops" else difference <= tolerance
        )  # FLOPs are a count by another convention
        where = f"layer {worst[2]}" if layered else ""
        what = metric + (f" {site}" if site else "")
        yield what, len(keys), difference, where, ours.get(worst), theirs[worst], judged


def compare_traces(ours, theirs, tolerance):
    """Lines for each token's nll: mean and largest difference, relative to the mean nll."""
    with np.load(ours) as a, np.load(theirs) as b:
        for run_name in ("static", "online"):
            x, y = a[run_name].astype(np.float64), b[run_name].astype(np.float64)
            if x.shape != y.shape:
                yield f"trace {run_name}", len(y), math.inf, f"shape {x.shape}", None, None, False
                continue
            gap, scale = np.abs(x - y), y.mean()
            at = int(gap.argmax())
            mean = gap.mean() / scale
            yield f"trace {run_name}, mean", len(y), mean, "", x.mean(), scale, mean <= tolerance
            yield (
                f"trace {run_name}, worst",
                len(y),
                gap[at] / scale,
                f"token {at}",
                x[at],
                y[at],
                None,
            )


def show(lines, tolerance):
    """Prints a table; True if all that is judged is within the tolerance."""

    def number(value):
        return "missing" if value is None else f"{value:.6g}"

    good = True
    print(
        f"{'what':<28}{'values':>7}  {'worst':>9}  {'at':<12}{'lmdyn':>12}{'PyTorch':>12}  "
        f" tolerance {tolerance:g}"
    )
    for what, count, worst, where, ours, theirs, ok in lines:
        good &= ok is not False
        verdict = "(not judged)" if ok is None else "ok" if ok else "FAIL"
        print(
            f"{what:<28}{count:>7}  {worst:>9.1e} "
            f" {where:<12}{number(ours):>12}{number(theirs):>12}   {verdict}"
        )
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="gguf:PATH or dir:PATH")
    parser.add_argument(
        "--data", action="append", required=True, help="text:GLOB; may be given again"
    )
    parser.add_argument("--tokens", type=int, default=12288)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--metrics", default=METRICS)
    parser.add_argument("--jobs", default="measure,online")
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument(
        "--contexts", default="none", help="any of none, cache, overlap, joined by commas"
    )
    parser.add_argument("--window", type=int, help="default: cache 512, overlap twice the chunk")
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--lr", default="0.01")
    parser.add_argument("--adapt", default="all")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument(
        "--lmdyn", default=f"{shlex.quote(sys.executable)} -m lmdyn", help="the command to test"
    )
    parser.add_argument(
        "--keep", type=Path, help="folder for the rows; those of the reference are reused"
    )
    args = parser.parse_args()

    jobs = []
    if "measure" in args.jobs.split(","):
        jobs.append(("measure", ["--length", str(args.length), "--metrics", args.metrics]))
    if "online" in args.jobs.split(","):
        rule = [
            "--chunk",
            str(args.chunk),
            "--optimizer",
            args.optimizer,
            "--lr",
            args.lr,
            "--adapt",
            args.adapt,
        ]
        windows = {
            "none": None,
            "cache": args.window or 512,
            "overlap": args.window or 2 * args.chunk,
        }
        for context in args.contexts.split(","):
            window = ["--window", str(windows[context])] if windows[context] else []
            jobs.append(("online", [*rule, "--context", context, *window]))

    good = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for data in args.data:
            for verb, options in jobs:
                command = [verb, args.model, "--data", data, "--tokens", str(args.tokens), *options]
                theirs, ours = (
                    folder / f"{side}-{verb}-{name(shlex.join(command))}.jsonl"
                    for side in ("torch", "lmdyn")
                )
                reference = [sys.executable, str(REFERENCE), args.model, verb, *command[2:]]
                reference_rows = run(reference, theirs, reuse=True)
                lmdyn_rows = run([*shlex.split(args.lmdyn), *command], ours)
                lines = list(compare(lmdyn_rows, reference_rows, args.tolerance))
                if verb == "online":
                    trace = [path.with_name(path.name + ".trace.npz") for path in (ours, theirs)]
                    lines += compare_traces(*trace, args.tolerance)
                print(f"\n{data}: {shlex.join([verb, *command[4:]])}")
                good &= show(lines, args.tolerance)
    print("\nall within the tolerance" if good else "\nFAIL: differences beyond the tolerance")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
