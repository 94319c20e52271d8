"""The commands that README.md, docs/ and the configs show, and what makes each small enough to try.

A command is tried as it is written, but for two things, which both stand here:

- stand-ins: a random model of two layers for a downloaded one, short texts, stand-ins for `sbatch`,
  `srun` and `gcloud` (STAND_INS, furnish);
- size: options that are appended (SMALL; those that the line has itself are replaced), and for
  studies whose parts no option reaches (lists of methods, runs, sizes) a stand-in config, which
  reads the real one and takes less of everything (LESS).

scripts/try_commands.py runs all of them, tests/test_commands.py those that are cheap (`is_cheap`).
What neither runs is in ELSEWHERE.
"""

import ast
import dataclasses
import json
import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmdyn.cli.command_line import VERBS

HERE = Path(__file__).resolve()
ROOT = HERE.parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if path.parent.name != "api"
}
"""The pages of docs/ that somebody wrote, by path; docs/api is made of docstrings."""
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))


# --- what the texts show


def commands(text: str) -> list[str]:
    """The lines of a shell text; a backslash at the end of one joins the next."""
    return [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def files(text: str) -> dict[str, str]:
    """The files that a page has its reader write: code below a line that ends in "`NAME.py`:".

    >>> fence = "`" * 3
    >>> files(f"Save this as `a/b.py`:\\n\\n{fence}python\\nx = 1\\n{fence}\\n")
    {'a/b.py': 'x = 1\\n'}
    """
    return dict(
        re.findall(r"`([\w/]+\.py)`:\n\n```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    )


EXTENSIONS = {
    name: code
    for path, text in PAGES.items()
    if path.startswith("docs/extend/")
    for name, code in files(text).items()
}
"""The metric, transform, family, head and study that docs/extend adds."""


def write_extensions(folder: Path) -> None:
    """Writes the files of docs/extend below a folder."""
    for name, code in EXTENSIONS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code, encoding="utf-8")


def in_page(text: str) -> list[str]:
    """Lines of a page's shell blocks; and what stands in code within a sentence or a table, also
    across the end of a line, and has options. In a table `study --config FILE` is short for `lmdyn
    study --config FILE`.
    """
    shell = [line for block in blocks(text, "bash") for line in commands(block)]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    code = [
        " ".join(found.split())
        for paragraph in prose.split("\n\n")
        for found in re.findall(r"`([^`]+)`", paragraph)
    ]
    code = [
        f"lmdyn {line}" if re.match(rf"({'|'.join(VERBS)}) .*--", line) else line for line in code
    ]
    return shell + [line for line in code if re.match(r"(lmdyn|python|bash) .*--(?!help)", line)]


def in_config(path: Path) -> list[str]:
    """A command in a docstring ends its line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return [
        found[0]
        for line in commands(docstring)
        if (found := re.search(rf"lmdyn ({'|'.join(VERBS)}) .*", line))
    ]


ALL = list(
    dict.fromkeys(
        [line for text in (README, *PAGES.values()) for line in in_page(text)]
        + [line for path in CONFIGS for line in in_config(path)]
    )
)
"""README's in their order, since later ones take what earlier ones made; then the pages' and the
configs'."""


def words_of(line: str) -> list[str]:
    """A line as the shell reads it."""
    return shlex.split(line, comments=True)


# --- where each is tried

ELSEWHERE = {
    r"bash scripts/benchmarks/device\.sh --out [^ ]+$": "it needs a GPU; `--small` runs on a CPU",
    r"lmdyn series ": "tests/checkpoints/test_integrity.py runs it on a hub that it serves itself",
    r"bash scripts/quickstart\.sh$": (
        "its commands, which are those of configs/tour and of `lmdyn report`, are tried here; the"
        " script itself by tests/test_scripts.py, with stand-ins for pip and lmdyn, and as written"
        " in a fresh clone before a release"
    ),
    r"bash scripts/test\.sh$": "it is what runs the tests",
    r"pip install ": (
        "tests/test_commands.py reads its options: extras that setup.py has, files that are there"
    ),
}
"""What is not tried, and why."""

HEAVY = (
    (
        r"lmdyn study --config configs/(tour/)?(entropy_decay|gradient_localization"
        r"|knowledge_entropy|online_adaptation|saturation)\.py"
    ),
    r"bash scripts/launch_local\.sh",
    r"python scripts/",
)
"""More than about ten seconds of CPU, most of it compiling: scripts/try_commands.py alone."""
LIGHT = (r"--experiments none", r"--series \"hf:", r"lmdyn study .*--model gguf:")
"""Of those: the studies that are given models, and train no series."""

NEEDS = {
    "run:runs/tiny@": "lmdyn train --config configs/tiny.py",
    "lmdyn report results$": (
        "lmdyn measure gguf:model.gguf --data text:book.txt --tokens 12288 --out"
        " results/measure.jsonl"
    ),
    "report results/one": (
        'lmdyn measure "hf:EleutherAI/pythia-70m@step1000,step143000" --data builtin:docs --metrics'
        " nll,knowledge_entropy --out results/series.jsonl"
    ),
}
"""What a command takes from another one."""


def reason_elsewhere(line: str) -> str | None:
    """Why a command is not tried; None: it is."""
    return next((why for sign, why in ELSEWHERE.items() if re.match(sign, line)), None)


def is_cheap(line: str) -> bool:
    """Whether a command is tried by the tests, too."""
    if reason_elsewhere(line) is not None:
        return False
    return not any(re.match(sign, line) for sign in HEAVY) or any(
        re.search(sign, line) for sign in LIGHT
    )


def needs(line: str) -> list[str]:
    """The commands whose results this one takes."""
    return [other for sign, other in NEEDS.items() if re.search(sign, line)]


# --- smaller options

STAND_INS = (
    (r"gguf:\S+?\.gguf", "dir:model"),
    (r"hf:ORG/NAME", "dir:model"),
    (r"hf:\w+/", "dir:hub/"),
    (r"text:PLAY1\.txt \.\.\.", "text:play1.txt"),
    (r"text:TEXT\.txt|(?<=--data )TEXT\b", "text:book.txt"),
    (r"(?<= )MODEL\b", "dir:model"),
    (r"(?<=--out )ROWS\b", "results/rows.jsonl"),
    (r"(?<=--out )DIR\b", "out/study"),
    (r"(?<=train --config )FILE\b", "configs/tiny.py"),
    (r"(?<=study --config )FILE\b", "configs/fact_learning.py"),
    (r"\bscripts/", f"{ROOT}/scripts/"),
)
"""What stands in a line for what is not here, and what it is replaced by."""

RUN = "--steps 2 --optimizer.warmup 0 --data.length 32"
SHAPE = (
    "--model.vocab 257 --model.depth 2 --model.heads 8 --model.kv-heads 8 --model.head-width 8"
    " --model.width 64 --model.mlp-width 64"
)
BIG = f"{SHAPE} --data.tokenizer bytes --data.batch 16 --evaluation.tokens 512"
INJECTION = (
    "--injection.count 2 --injection.rounds 2 --injection.every 2 --injection.ask-every 1"
    " --continual.steps-after 1 --continual.length 64 --continual.optimizer.warmup 0"
)
SMALL = (
    (r"^lmdyn (measure|online) --config", "dir:model"),
    (r"^lmdyn measure ", "--tokens 128 --length 32 --batch 2"),
    (r"^lmdyn measure .*--mesh", "--tokens 512 --batch 8"),
    (r"^lmdyn gradients ", "--limit 2 --spans 4 --tokens 512 --resamples 20"),
    (r"^lmdyn online ", "--tokens 256 --chunk 32"),
    (r"^lmdyn online .*--(learning-)?rates ", "--prefix 128"),
    (r"^lmdyn online .*--statistics ", "--batches 2"),
    (r"^lmdyn reactivate ", "--tokens 128 --length 32"),
    (
        r"^lmdyn train .*(/tiny\.py|FILE)",
        f"{RUN} --data.batch 2 --evaluation.tokens 64 --mesh 1,1,1",
    ),
    (
        r"^lmdyn train .*/olmo_1b\.py",
        f"{RUN} {BIG}",
    ),  # its mesh, as written: all devices along fsdp
    (r"^lmdyn train .*/pythia_(14|70)m\.py", f"{RUN} {BIG} --mesh 1,1,1"),
    (r"^lmdyn train .*/pythia_6_9b\.py", f"{RUN} {BIG} --mesh 2,2,2"),
    (r"^lmdyn plan ", SHAPE),  # of 6.9 billion parameters: tests/training/test_step_plan.py
    (
        r"launch_local\.sh",
        (
            f"{RUN} --data.batch 8 --evaluation.tokens 256 --evaluation.metrics nll"
            " --model.depth 1 --out runs/local"
        ),
    ),
    (
        r"^lmdyn study .*(/fact_learning\.py|FILE)",
        f"--model dir:model --injection.facts paraphrase70.json {INJECTION} --tokens 64",
    ),
    (
        r"^lmdyn study .*/knowledge_entropy\.py .*--series",
        f"{INJECTION} --continual.batch 2 --tokens 128 --ratios 0.5 --gains 1.0 --seeds 1",
    ),
    (r"^lmdyn study .*/saturation(_smollm2)?\.py .*--series", "--tokens 256 --length 64"),
    (
        r"^lmdyn study .*/saturation_smollm2\.py .*--heads.text",
        (
            "--series dir:model --heads.ranks 2 4 --heads.tokens 256 --heads.steps 2 --heads.batch"
            " 64 --tokens 256 --length 64"
        ),
    ),
    (
        r"^lmdyn study .*/online_adaptation\.py .*--model",
        "--given.tokens 128 --given.prefix 64 --given.chunk 32 --given.rms-batches 2",
    ),
    (r"^lmdyn study my_studies\.", "--length 16 --passages 2 --seeds 2 --workers 1"),
    (r"scripts/compare\.py", "--tokens 256 --length 64 --chunk 64"),
    (r"benchmarks/benchmark\.py", "--repeats 1"),
    (r"benchmarks/benchmark\.py .*--tokens", "--tokens 512"),
    (r"benchmarks/profile_gradients\.py", "--sequences 2 --repeats 1"),
    (r"benchmarks/target_ranks\.py", "--tokens 2e5 --vocab 500 --classes 16 --values 20"),
)
"""Options that make a line small, by what it is; of two that say the same the later one counts."""


def small(line: str) -> list[str]:
    """The words of a command, made small, with stand-ins for what is not here.

    >>> " ".join(
    ...     small("lmdyn online gguf:MODEL.gguf --data text:book.txt --tokens 12288 --out a")
    ... )
    'lmdyn online dir:model --data text:book.txt --out a --tokens 256 --chunk 32'
    """
    more = [
        words for sign, options in SMALL if re.search(sign, line) for words in _options(options)
    ]
    for sign, instead in STAND_INS:
        line = re.sub(sign, instead, line)
    words = words_of(line)
    for option in more:
        words = without(words, option[0]) + option
    return words


def _options(text: str) -> list[list[str]]:
    """`--a 1 2 --b 3` as `[["--a", "1", "2"], ["--b", "3"]]`; what comes before them, by itself."""
    found: list[list[str]] = []
    for word in text.split():
        if word.startswith("--") or not found:
            found.append([word])
        else:
            found[-1].append(word)
    return found


def without(words: list[str], option: str) -> list[str]:
    """The words without an option and its values.

    >>> without(["a", "--b", "1", "2", "--c", "3"], "--b")
    ['a', '--c', '3']
    """
    if option not in words:
        return words
    at = words.index(option)
    end = next((i for i in range(at + 1, len(words)) if words[i].startswith("--")), len(words))
    return words[:at] + words[end:]


# --- smaller configs


def smaller(value: Any, changes: dict[str, Any]) -> Any:
    """A config with some fields changed.

    Args:
      value: a dataclass or a tuple. changes: what a field becomes, by its path, such as
        `pretrain.model.width`; `*` is every element of a tuple. A function is given what the field
        was. All fields of one dataclass change at once, so that it is checked as it will be.
    """
    below: dict[str, dict[str, Any]] = {}
    for path, new in changes.items():
        name, _, rest = path.partition(".")
        below.setdefault(name, {})[rest] = new

    def one(old: Any, parts: dict[str, Any]) -> Any:
        if "" not in parts:
            return smaller(old, parts)
        return parts[""](old) if callable(parts[""]) else parts[""]

    if isinstance(value, tuple):
        return tuple(one(old, below["*"]) for old in value)
    return dataclasses.replace(
        value, **{name: one(getattr(value, name), parts) for name, parts in below.items()}
    )


def text(old: Any) -> Any:
    """A reference or references: the smaller part of the text that comes with Python, a smaller
    world.
    """
    if isinstance(old, tuple):
        return tuple(map(text, old))
    old = re.sub(r"(builtin:\w+):train", r"\1:test", old)
    return re.sub(
        r"people=\d+,places=\d+,new=[\d.]+,updated=([\d.]+)",
        lambda found: (
            f"people={'24,places=8' if float(found[1]) else '10,places=5'},new=0.4,"
            f"updated={0.4 if float(found[1]) else 0.0}"
        ),
        old,
    )


def first(count: int) -> Callable:
    """So many of a tuple."""
    return lambda old: old[:count]


def replaced(**fields: Any) -> Callable:
    """A dataclass with fields changed, or None where there is none; of a function the field is
    given what it was.
    """
    return lambda old: (
        old
        and dataclasses.replace(
            old,
            **{
                name: new(getattr(old, name)) if callable(new) else new
                for name, new in fields.items()
            },
        )
    )


def _shape(depth: int, **more: Any) -> dict[str, Any]:
    fields = {
        "vocab": 257,
        "width": 12,
        "depth": depth,
        "heads": 2,
        "kv_heads": 2,
        "head_width": 6,
        "mlp_width": 20,
        "positions": 640,
        **more,
    }
    return {f"pretrain.model.{name}": value for name, value in fields.items()}


def _run(name: str, steps: int, length: int, batch: int) -> dict[str, Any]:
    fields = {
        "steps": steps,
        "optimizer.warmup": 0,
        "data.sources.*.ref": text,
        "data.length": length,
        "data.batch": batch,
        "checkpoints.save": steps,
        "compute.unroll": 1,
        "mesh": (1, 1, 1),
    }
    return {f"{name}.{field}": value for field, value in fields.items()}


ONE = {"seeds": 1, "workers": 1}
LESS: dict[str, dict[str, Any]] = {
    "entropy_decay": {
        "workers": 1,
        "runs.*.train.steps": lambda steps: steps // 96,
        "runs.*.train.optimizer.warmup": 0,
        "runs.*.train.data.sources.*.ref": text,
        "runs.*.train.data.length": 32,
        "runs.*.train.data.batch": 2,
        "runs.*.train.model.width": lambda width: width // 3,
        "runs.*.train.model.head_width": lambda width: width // 3,
        "runs.*.train.model.mlp_width": lambda width: width // 3,
        "runs.*.train.model.depth": 2,
        "runs.*.train.evaluation.every": 2,
        "runs.*.train.evaluation.tokens": 64,
        "runs.*.train.compute.unroll": 1,
        "runs.*.train.mesh": (1, 1, 1),
    },
    "gradient_localization": {
        **ONE,
        **_shape(3),
        **_run("pretrain", steps=8, length=96, batch=4),
        "pretrain.data.tokenizer": "bytes",
        "probes": text,
        "text": text,
        "reference": text,
        "data.sources.*.ref": text,
        "data.length": 48,
        "data.batch": 3,
        "methods.*.review": replaced(ref=text),
        "steps": 4,
        "learning_rate_factors": (1.0, 4.0),
        "online.text": text,
        "online.tokens": 96,
        "online.chunk": 32,
        "online.learning_rates": (1e-3,),
        "profile_limit": 20,
        "ask_limit": 10,
        "spans": 12,
        "tokens": 144,
        "compute.unroll": 1,
    },
    "knowledge_entropy": {
        **ONE,
        **_shape(2),
        **_run("pretrain", steps=12, length=96, batch=4),
        "pretrain.data.tokenizer": "bytes",
        "pretrain.evaluation.every": 4,
        "pretrain.evaluation.tokens": 384,
        "pretrain.checkpoints.every": 4,
        "compare_steps": (4, 8, 12),
        "variants.*.interventions.*": replaced(every=4, until=8, tokens=384, data=text),
        "known_probes": text,
        "known_limit": 10,
        "injection.facts": text,
        "injection.count": 3,
        "injection.rounds": 2,
        "injection.every": 3,
        "injection.ask_every": 1,
        "continual.text": text,
        "continual.length": 640,
        "continual.batch": 2,
        "continual.steps_after": 1,
        "continual.optimizer.warmup": 0,
        "ratios": first(1),
        "gains": first(1),
        "tokens": 640,
        "compute.unroll": 1,
    },
    "online_adaptation": {
        **ONE,
        **_shape(2),
        **_run("pretrain", steps=12, length=48, batch=4),
        **_run("fine_tune", steps=4, length=48, batch=4),
        "pretrain.data.tokenizer": "bytes",
        "pretrain.checkpoints.every": 4,
        "pretrain.evaluation": replaced(every=4, tokens=192),
        "sizes.*.model": replaced(
            vocab=257,
            width=lambda width: width // 8,
            depth=2,
            heads=2,
            kv_heads=2,
            head_width=4,
            mlp_width=16,
        ),
        "grid.home": text,
        "grid.tokens": 320,
        "grid.prefix": 64,
        "grid.chunk": 16,
        "grid.rms_batches": 2,
        "grid.rank": 2,
        "grid.ranks": (1, 2),
        "grid.learning_rates": lambda rates: {rule: tried[:2] for rule, tried in rates.items()},
        "grid.low_rank_learning_rates": first(1),
        "windows": (("none", 0, 16), ("none", 0, 32), ("cache", 24, 16), ("overlap", 32, 16)),
        "document_tokens": 64,
        "segment_tokens": 64,
        "meta.text": text,
        "meta.chunks": 2,
        "meta.episodes": 2,
        "meta.updates": 2,
    },
    "saturation": {
        **ONE,
        **_shape(2, width=16, heads=4, kv_heads=4, head_width=4, mlp_width=32),
        **_run("pretrain", steps=8, length=32, batch=4),
        "pretrain.data.tokenizer": "bytes",
        "pretrain.evaluation.every": 2,
        "pretrain.evaluation.tokens": 256,
        "pretrain.evaluation.batch": 8,
        "widths": (4, 8, 12, 16),
        "narrow": 4,
        "heads.text": text,
        "heads.tokens": 256,
        "heads.ranks": (1, 2, 4),
        "heads.steps": 2,
        "heads.batch": 64,
        "target.text": text,
        "target.contexts": (1,),
        "target.shares": (0.5, 1.0),
        "tokens": 256,
        "length": 32,
        "batch": 8,
        "compute.unroll": 1,
    },
}
"""What a study's config becomes, by its name; those of configs/tour become the same."""


def small_config(path: str) -> Any:
    """The real config of a file of configs/, with less of everything; its own `out`."""
    return smaller(runpy.run_path(str(ROOT / path))["config"](), LESS[Path(path).stem])


# --- what the commands find

STAND_IN = '''"""Stands in for {path}: the same, with less of everything (scripts/documented.py)."""

import runpy


def config():
    return runpy.run_path({here!r})["small_config"]({path!r})
'''
PROGRAMS = {
    "sbatch": (
        'while [[ $1 == --* ]]; do shift 2; done\nSLURM_JOB_ID=7 exec bash "$@"'
    ),  # starts the job, here and at once
    "srun": (
        'printf "%q " "$@" >>"$CALLS"; echo >>"$CALLS"'
    ),  # writes down what every process would be
    "scontrol": "true",
    "gcloud": 'printf "%s\\n" "$*" >>"$CALLS"',  # writes down what every host would be told
}
TEXT = "Of arms and of a man I sing, and of the long way home. "
FACTS = (("Ada Quill", "Norwich"), ("Ben Sallow", "Dover"), ("Cleo Marsh", "Hull"))


def furnish(folder: Path) -> None:
    """Writes what the commands name into the current folder, `folder`: models, texts, probes,
    tables, configs, programs.
    """
    from lmdyn import checkpoints, models
    from lmdyn.data import tokenizers

    shape = models.ModelConfig(
        vocab=257, width=12, depth=2, heads=2, head_width=6, mlp_width=20, positions=1024
    )
    wide = dataclasses.replace(shape, width=130)  # of the two sizes of a series the larger one
    names = {
        found
        for line in ALL
        for ref in re.findall(r"hf:\w+/([\w.-]+@[^\s\"]+)", line)
        for found in _revisions(ref)
    }
    for seed, name in enumerate(("model", *sorted(names))):
        made = models.LanguageModel(wide if "410m" in name else shape)
        checkpoints.export(
            made, models.init(made, seed=seed), tokenizers.byte_tokenizer(), folder / name
        )
    for path in CONFIGS:
        name = str(path.relative_to(ROOT))
        (folder / name).parent.mkdir(exist_ok=True)
        if path.stem in LESS:
            (folder / name).write_text(STAND_IN.format(path=name, here=str(HERE)), encoding="utf-8")
        else:
            (folder / name).symlink_to(path)
    for name in ("book", "valid", "train", "play1", "play2"):
        (folder / f"{name}.txt").write_text(TEXT * 30)
    (folder / "plays").mkdir()
    for i in range(6):
        (folder / f"plays/{i}.txt").write_text(f"Act {i}. " + TEXT * 2)
    (folder / "data").mkdir()
    for name in ("pile", "pile_validation", "dolma", "dolma_validation"):
        (folder / f"data/{name}.jsonl").write_text(json.dumps({"text": TEXT * 40}) + "\n")
    (folder / "probes.jsonl").write_text(
        "".join(
            json.dumps(
                {"prompt": f"The mayor of place {i} is", "target": f"person {i}.", "kind": kind}
            )
            + "\n"
            for i in range(3)
            for kind in ("new", "updated")
        )
    )
    runs = [
        (n, t, 1.7 + 400 / n**0.34 + 410 / t**0.28)
        for n in (1e8, 4e8, 8e8, 2e9)
        for t in (1e9, 4e9, 2e10)
    ]
    (folder / "runs.csv").write_text(
        "N,T,loss\n" + "".join(f"{n},{t},{loss}\n" for n, t, loss in runs)
    )
    (folder / "paraphrase70.json").write_text(
        json.dumps(
            [
                {
                    "train_context": f"{who} paints bells in {town}.",
                    "paraphrases": [f"In {town}, {who} paints bells."],
                    "mem_input": [f"{who} paints bells in"],
                    "mem_target": [town],
                    "gen_input": [f"The town of {who} is"],
                    "gen_target": [town],
                    "hard_gen_input": [f"The bells of {who} ring in"],
                    "hard_gen_target": [town],
                }
                for who, town in FACTS
            ]
        )
    )
    write_extensions(folder)
    (folder / "bin").mkdir()
    for name, does in PROGRAMS.items():
        (folder / "bin" / name).write_text(f"#!/usr/bin/env bash\n{does}\n")
        (folder / "bin" / name).chmod(0o755)


def _revisions(ref: str) -> list[str]:
    """Folders below hub/ of a series `NAME@A,B`."""
    name, _, revisions = ref.partition("@")
    return [f"hub/{name}/{revision}" for revision in revisions.split(",")]
