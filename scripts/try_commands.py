"""Tries every command that the README, the docs and the configs show, at a small size.

    python scripts/try_commands.py              all of them: 20 minutes of CPU, mostly compiling
    python scripts/try_commands.py saturation   those that match a regular expression, and what they
                                                need
    python scripts/try_commands.py --list

Run it before a release. Each command runs in a process of its own, in a temporary folder with
stand-ins for what is not here (documented.py), and what it made is looked at: rows and their
numbers, checkpoints, claims and their verdicts, figures, pages. One line per command: seconds of
CPU, what it made, the command. Exit code 1 if one failed; what it said is printed. The scripts that
compare with PyTorch need `pip install ".[bench]"`. Runs on the CPU, as 8 devices.
"""

import argparse
import json
import math
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

try:
    from scripts import documented
except ImportError:  # run as a script, which has its own folder on the path
    import documented

from lmdyn import checkpoints, records
from lmdyn.cli import command_line
from lmdyn.report import claims_table
from lmdyn.report.markup import e
from lmdyn.studies.claims import Verdict

VERDICTS = typing.get_args(Verdict)
SAYS = {
    "compare.py": "all within the tolerance",
    "benchmark.py": "ratio|gain|more",
    "profile_gradients.py": r"norms of each sequence.* s CPU",
    "target_ranks.py": "values 16 and 17",
}
"""What a script that measures prints at its end."""


class Failed(Exception):
    """A command did not do what it is there for."""


class Ended(NamedTuple):
    """A process that has ended: exit code, and what it said."""

    code: int
    out: str
    err: str


def need(holds: Any, what: str) -> None:
    """Raises `Failed` unless something holds."""
    if not holds:
        raise Failed(what)


# --- running


def in_a_process(words: list[str], devices: int = 8) -> Ended:
    """Runs a command line in the current folder, on the CPU, with the stand-ins before other
    programs.
    """
    flags = re.sub(
        r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", "")
    )
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(
            [str(documented.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "XLA_FLAGS": (
            f"{flags} --xla_force_host_platform_device_count={devices}" if devices else flags
        ),
        "PATH": f"{Path('bin').absolute()}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(Path("calls").absolute()),
        "PYTHON": sys.executable,
        "BENCHMARK_SMALL": "1",
    }
    ended = subprocess.run(words, env=env, capture_output=True, text=True)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def ours(words: list[str]) -> Ended:
    """`lmdyn ...` in a process of its own."""
    return in_a_process([sys.executable, "-m", "lmdyn", *words])


class Tried:
    """Commands that were tried in the current folder.

    Args:
      run: what runs `lmdyn` and gives how it ended; the tests do it in their own process.
    """

    def __init__(self, run: Callable[[list[str]], Ended] = ours) -> None:
        self.run, self.done, self.lines = run, [], set()

    def __call__(self, line: str) -> str:
        """Tries a command, and before it those whose results it takes.

        Returns:
          What it made, in a few words.

        Raises:
          Failed: exit code, or what it made; with what it said.
        """
        for other in documented.needs(line):
            if other not in self.lines:
                self(other)
        self.lines.add(line)
        words = documented.small(line)
        if words[0] == "lmdyn":
            return self._lmdyn(words[1:])
        if words[0] in ("bash", "sbatch"):
            return self._launched(line, words)
        ended = in_a_process([sys.executable, *words[1:]], devices=0)
        checked(ended, line)
        need(
            re.search(SAYS[Path(words[1]).name], ended.out),
            f"{line} printed no result:\n{ended.out}",
        )
        return ended.out.strip().splitlines()[-1][:60].strip()

    def _lmdyn(self, words: list[str]) -> str:
        options = command_line.parse(words)
        if any(options == known for known in self.done):
            return "the same as one before"
        self.done.append(options)
        run = getattr(options, "run", options)
        if (
            words[0] in ("train", "study") and Path(run.out).exists()
        ):  # else it would go on with what is there
            words = [*documented.without(words, "--out"), "--out", f"{run.out}-{len(self.done)}"]
            options = command_line.parse(words)
        if "results/one" in words:  # two folders to lay beside one another
            for name in ("one", "other"):
                copy(Path("results").glob("series.jsonl*"), Path("results") / name)
        ended = self.run(words)
        checked(ended, shlex.join(["lmdyn", *words]))
        return MADE[words[0]](options, ended)

    def _launched(self, line: str, words: list[str]) -> str:
        """Launchers: the local one really, the others with stand-ins that write down what every
        host would start.
        """
        calls = Path("calls")
        calls.unlink(missing_ok=True)
        ended = in_a_process(words, devices=0)
        checked(ended, line)
        if "launch_local" in line:
            return trained(command_line.parse(["train", *words[words.index("--config") :]]), ended)
        asked = re.findall(r"-m lmdyn (train .*?)(?:>|$)", calls.read_text(), re.M)
        need(len(asked) == 1, f"{line} would start {len(asked)} programs:\n{calls.read_text()}")
        given = words[words.index("--config") :]
        need(
            shlex.split(asked[0]) == ["train", *given, "--hosts", "auto"],
            f"{line} would start: {asked[0]}",
        )
        command_line.parse(shlex.split(asked[0]))
        return "would start " + asked[0].strip()


def copy(files: Iterable[Path], folder: Path) -> None:
    """Copies files into a folder."""
    folder.mkdir(exist_ok=True)
    for file in files:
        (folder / file.name).write_bytes(file.read_bytes())


def checked(ended: Ended, line: str) -> None:
    """Raises `Failed` for an exit code other than 0."""
    need(
        ended.code == 0,
        f"exit code {ended.code} from {line}\n{ended.out[-1500:]}{ended.err[-3000:]}",
    )


# --- what they made


def rows_of(path: str | Path) -> list[dict]:
    """Rows that are there, each a finite number, with what made them beside them."""
    rows = records.read_rows(path)
    need(rows, f"{path} is empty")
    need(
        json.loads(Path(f"{path}.meta.json").read_text())["command"],
        f"{path}.meta.json does not say which command made it",
    )
    for row in rows:
        need(
            isinstance(row["value"], int | float) and math.isfinite(row["value"]),
            f"{path}: {row['metric']} is {row['value']}",
        )
    return rows


def holds(rows: list[dict], metrics: Iterable[str], path: str | Path) -> str:
    """Raises `Failed` where a metric is missing; says how many rows there are."""
    missing = set(metrics) - {row["metric"] for row in rows}
    need(not missing, f"{path} has no {', '.join(sorted(missing))}")
    return f"{len(rows)} rows"


def measured(options: Any, ended: Ended) -> str:
    """`lmdyn measure`: every metric of every checkpoint."""
    rows = rows_of(options.out)
    series = [reference for model in options.models for reference in checkpoints.series(model)]
    need(
        {row["step"] for row in rows} == {reference.step for reference in series},
        f"{options.out} is not of {len(series)} checkpoints",
    )
    names = (name.rpartition(".")[2] for name in options.metrics.split(","))  # my_package.metric
    return holds(rows, names, options.out)


def probed(options: Any, ended: Ended) -> str:
    """`lmdyn gradients`."""
    return holds(rows_of(options.out), ("gradient_norm", "relative_gradient_norm"), options.out)


def adapted(options: Any, ended: Ended) -> str:
    """`lmdyn online`: rows, and every token's nll."""
    need(Path(f"{options.out}.trace.npz").exists(), f"{options.out}.trace.npz is not there")
    return holds(rows_of(options.out), ("static_nll", "online_nll", "flops"), options.out)


def reactivated(options: Any, ended: Ended) -> str:
    """`lmdyn reactivate`: a model that can be read, and what was measured."""
    need(
        (Path(options.out) / "reactivation.json").exists(),
        f"{options.out}/reactivation.json is not there",
    )
    return f"a model of {checkpoints.load(f'dir:{options.out}').model.config.depth} layers"


def scaled(options: Any, ended: Ended) -> str:
    """`lmdyn scaling`."""
    return f"{len(rows_of(options.out))} rows"


def trained(options: Any, ended: Ended) -> str:
    """`lmdyn train`: a run that came to its end, with a checkpoint of its last step, and
    measurements of it.
    """
    run = options.run
    steps = [reference.step for reference in checkpoints.series(f"run:{run.out}@*")]
    need(run.steps in steps, f"{run.out} has checkpoints {steps}, and not {run.steps}")
    rows = rows_of(Path(run.out) / "rows.jsonl")
    need(
        max(row["step"] for row in rows) == run.steps,
        f"{run.out}/rows.jsonl does not reach step {run.steps}",
    )
    wanted = run.evaluation.metrics.split(",")
    return f"{holds(rows, wanted, run.out)}, {len(steps)} checkpoints"


def planned(options: Any, ended: Ended) -> str:
    """`lmdyn plan`: memory, operations and devices of the mesh that was asked for."""
    data, fsdp, tensor = options.run.mesh
    signs = ["memory of one device", "operations of one step"]
    if options.topology is None:  # a TPU's compiler does not tell what is sent
        signs.append("received by one device")
    if not options.search:  # which chooses the mesh; -1 is what is left
        signs.append(f"{f'data {data}' if data > 0 else ''} x fsdp {fsdp} x tensor {tensor}")
    for sign in signs:
        need(sign in ended.out, f"lmdyn plan does not say '{sign}':\n{ended.out}")
    return "a plan"


def studied(options: Any, ended: Ended) -> str:
    """`lmdyn study`: rows, claims with verdicts that are known, figures, and a page that says every
    claim.
    """
    out = Path(options.out)
    rows, claims = (
        records.read_rows(out / "rows.jsonl"),
        json.loads((out / "claims.json").read_text(encoding="utf-8")),
    )
    need(rows and claims, f"{out} has {len(rows)} rows and {len(claims)} claims")
    page, figures = (
        (out / "report.html").read_text(encoding="utf-8"),
        {path.stem for path in (out / "figures").glob("*.svg")},
    )
    need(figures, f"{out}/figures is empty")
    for claim in claims:
        need(
            claim["verdict"] in VERDICTS,
            f"{out}: the verdict of {claim['id']} is '{claim['verdict']}'",
        )
        need(claim["sentence"] in ended.out, f"{out}: {claim['id']} is not printed")
        need(e(claim["sentence"]) in page, f"{out}/report.html does not say: {claim['sentence']}")
    for name in figures:
        need(f'download="{name}.svg"' in page, f"{out}/report.html lacks the figure {name}")
    return f"{claims_table.count(claims)}; {len(rows)} rows, {len(figures)} figures"


def reported(options: Any, ended: Ended) -> str:
    """`lmdyn report`: a page with figures."""
    page = Path(options.out or Path(options.folders[0]) / "report.html")
    html = page.read_text(encoding="utf-8")
    charts = html.count("<div class=chart data-figure=")
    need(charts and "</html>" in html, f"{page} has no figure, or no end")
    return f"a page, charts: {charts}"


MADE = {
    "measure": measured,
    "gradients": probed,
    "online": adapted,
    "reactivate": reactivated,
    "scaling": scaled,
    "train": trained,
    "plan": planned,
    "study": studied,
    "report": reported,
}


# --- all of them


def cpu_seconds() -> float:
    """Of this process and those that it has waited for."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pattern",
        nargs="?",
        default="",
        metavar="PATTERN",
        help="only commands in which this regular expression is found",
    )
    parser.add_argument("--list", action="store_true", help="say what would be run, and how")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="work in this new folder, and leave it"
    )
    given = parser.parse_args()
    lines = [line for line in documented.ALL if re.search(given.pattern, line)]
    if given.list:
        for line in lines:
            print(
                f"{line}\n   "
                f" {documented.reason_elsewhere(line) or shlex.join(documented.small(line))}"
            )
        return 0
    if not lines:
        parser.error(f"no command matches {given.pattern}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary if given.keep is None else given.keep).absolute()
        folder.mkdir(parents=True, exist_ok=given.keep is None)
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        documented.furnish(folder)
        attempt, failed, left, whole = Tried(), 0, 0, cpu_seconds()
        for line in lines:
            began = cpu_seconds()
            try:
                said = documented.reason_elsewhere(line)
                left += said is not None
                said = said or attempt(line)
            except Exception as err:
                failed += 1
                said = (
                    f"FAILED: {err}"
                    if isinstance(err, Failed)
                    else f"FAILED: {type(err).__name__}: {err}"
                )
            print(f"{cpu_seconds() - began:6.1f} s  {line}\n          {said}", flush=True)
        print(
            f"{len(lines) - left} commands tried, {failed} failed; {left} are tried elsewhere;"
            f" {cpu_seconds() - whole:.0f} seconds of CPU"
        )
        os.chdir(documented.ROOT)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
