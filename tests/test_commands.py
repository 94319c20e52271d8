"""Every command in README.md, docs/ and the docstrings of configs is one that works.

All of them go through the real command line: options are read, configs are loaded, and what is
misspelt fails. Then each is run small, with stand-ins for the models and texts that are not here
(scripts/documented.py has both), and what it made is looked at: rows, checkpoints, claims and their
verdicts, figures, pages (scripts/try_commands.py). Where:

- `lmdyn measure, gradients, online, reactivate, train, plan, scaling, report`: here, all of them.
- `lmdyn study` of given models (fact_learning, saturation_smollm2, `--series`, `--model`): here.
- `lmdyn study` that trains its models (five configs, and the four of configs/tour):
  scripts/try_commands.py; their parts in tests/studies.
- `python scripts/compare.py`, `scripts/benchmarks/`: scripts/try_commands.py, with a tiny model.
- `bash scripts/launch_local.sh`: scripts/try_commands.py, where two processes train; its signals
  and exit codes in tests/test_scripts.py and tests/training/test_distributed.py.
- `bash scripts/launch_tpu_pod.sh`, `sbatch scripts/launch_slurm.sh`: here, with stand-ins for
  gcloud, sbatch and srun: what every host would start; stopping and resuming:
  tests/test_scripts.py.
- `bash scripts/quickstart.sh`: tests/test_scripts.py, with stand-ins for pip and lmdyn; its
  commands are those of configs/tour.
- `bash scripts/test.sh`: it is what runs this.
- `pip install`: nowhere; its extras and files are looked up here.

`python scripts/try_commands.py` runs all but the last three, each in a process of its own.
"""

import contextlib
import doctest
import io
import json
import re
import subprocess
import types
from pathlib import Path

import pytest

from lmdyn import records
from lmdyn.cli import command_line
from lmdyn.errors import InputError
from scripts import documented, try_commands
from scripts.documented import ALL, CONFIGS, ROOT, in_config, words_of


def test_there_are_commands():
    assert len(ALL) > 55 and all(in_config(path) for path in CONFIGS)
    assert {words_of(line)[1] for line in ALL if line.startswith("lmdyn ")} == set(
        command_line.VERBS
    ), "every verb is shown somewhere"
    assert any("--batches 1" in line and "benchmark.py" in line for line in ALL), (
        "code that goes over the end of a line"
    )
    assert "lmdyn study --config configs/saturation.py" in ALL, "code of a table"


def test_what_makes_commands_small_is_used():
    assert doctest.testmod(documented).attempted >= 2 and not doctest.testmod(documented).failed
    for what in (
        documented.ELSEWHERE,
        documented.HEAVY,
        documented.LIGHT,
        documented.NEEDS,
        [sign for sign, _ in documented.SMALL],
    ):
        for sign in what:
            assert any(re.search(sign, line) for line in ALL), sign
    assert set(documented.NEEDS.values()) <= set(ALL)
    cheap = [line for line in ALL if documented.is_cheap(line)]
    assert {words_of(line)[1] for line in cheap if line.startswith("lmdyn ")} == set(
        command_line.VERBS
    ) - {"series"}  # see documented.ELSEWHERE


def test_configs_name_files_that_are_there():
    for path in CONFIGS:
        for name in re.findall(
            r"(?<![\w/])(?:configs|scripts|tests|lmdyn)/[\w./]*\w", path.read_text(encoding="utf-8")
        ):
            assert (ROOT / name).exists(), f"{path.name} names {name}"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The repository, and beside it the files that docs/extend has its reader write."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "scripts", "setup.py"):
        (folder / name).symlink_to(ROOT / name)
    documented.write_extensions(folder)
    return folder


@pytest.mark.parametrize("line", ALL)
def test_a_command_is_understood(line, clone, monkeypatch):
    monkeypatch.chdir(clone)
    program, *words = words_of(line)
    if program == "lmdyn":
        understood(words)
    elif program in ("bash", "sbatch"):
        at = next(i for i, word in enumerate(words) if word.startswith("scripts/"))
        subprocess.run(["bash", "-n", words[at]], check=True)
        if "launch" in words[at]:
            understood(["train", *words[words.index("--config", at) :]])
    elif program == "python":
        source = Path(words[0]).read_text(encoding="utf-8")
        for word in words[1:]:
            assert not word.startswith("--") or f'"{word}"' in source, word
    else:
        assert program == "pip" and words[0] == "install"
        extras = re.findall(r"\[(\w+)\]", line)
        assert all(
            f'"{extra}": ' in Path("setup.py").read_text(encoding="utf-8") for extra in extras
        )
        assert all(Path(words[i + 1]).is_file() for i, word in enumerate(words) if word == "-c")


def understood(words):
    """Reads a command line of ours; FILE stands for a config of the verb's."""
    examples = {"train": "configs/tiny.py", "study": "configs/fact_learning.py"}
    words = [examples[words[0]] if word == "FILE" else word for word in words]
    return command_line.parse(words)


@pytest.mark.parametrize(
    "line",
    [
        "lmdyn online gguf:m --data text:b --chunks 512 --out r",
        "lmdyn measure gguf:m --data text:b --out r --mesh",
        "lmdyn study --config configs/saturation.py --narrows 128",
        "lmdyn train --config configs/tini.py",
    ],
)
def test_a_misspelt_command_is_noticed(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=r"--chunks|--mesh|--narrows|tini\.py"):
        understood(words_of(line)[1:])


def here(words):
    """`lmdyn ...` in this process, which spares importing JAX once a command."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = command_line.main(words)
    return try_commands.Ended(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def attempt(tmp_path_factory):
    """Tries commands one after another, in one folder with what they name."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("commands")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.chdir(folder)
        documented.furnish(folder)
        yield try_commands.Tried(here)


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in ALL if documented.is_cheap(line)])
def test_a_command_runs(line, attempt):
    """In the README's order, since later lines take what earlier ones made; any of them alone runs
    what it needs before it.
    """
    if "launch_tpu_pod" in line and not (ROOT / ".git").exists():
        pytest.skip("the script sends the files that git knows")
    attempt(line)


SCALING = "lmdyn scaling runs.csv --above 3e8 --out results/scaling.jsonl"


@pytest.mark.parametrize(
    "ended, said",
    [
        ((2, "", "lmdyn: error: no such file"), "(?s)exit code 2 from lmdyn scaling.*no such file"),
        ((0, "", ""), "scaling.jsonl"),
    ],
)
def test_a_command_that_does_not_do_it_is_noticed(ended, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((try_commands.Failed, InputError), match=said):
        try_commands.Tried(lambda words: try_commands.Ended(*ended))(SCALING)


@pytest.mark.parametrize(
    "change, said",
    [
        ({}, None),
        ({"claims": []}, "has 1 rows and 0 claims"),
        (
            {"claims": [{"id": "a", "verdict": "true", "sentence": "It falls."}]},
            "the verdict of a is 'true'",
        ),
        ({"page": "<html></html>"}, "does not say: It falls."),
        ({"figures": []}, "figures is empty"),
        ({"figures": ["curves", "bars"]}, "lacks the figure bars"),
        ({"said": ""}, "a is not printed"),
    ],
)
def test_a_study_that_ends_in_nothing_is_noticed(change, said, tmp_path):
    made = {
        "claims": [{"id": "a", "verdict": "undecided", "sentence": "It falls."}],
        "page": 'It falls. <a download="curves.svg">',
        "figures": ["curves"],
        "said": "undecided It falls.",
        **change,
    }
    records.write_rows(tmp_path / "rows.jsonl", [records.row("nll", 3.0, "nats", model="m")], {})
    (tmp_path / "claims.json").write_text(json.dumps(made["claims"]))
    (tmp_path / "report.html").write_text(made["page"])
    (tmp_path / "figures").mkdir()
    for name in made["figures"]:
        (tmp_path / "figures" / f"{name}.svg").touch()
    with pytest.raises(try_commands.Failed, match=said) if said else contextlib.nullcontext():
        try_commands.studied(
            types.SimpleNamespace(out=tmp_path), try_commands.Ended(0, made["said"], "")
        )


@pytest.mark.parametrize(
    "rows, said",
    [([], "is empty"), ([("nll", 3.0)], "has no flops"), ([("nll", 3.0), ("flops", 1.0)], None)],
)
def test_rows_that_are_missing_are_noticed(rows, said, tmp_path):
    path = tmp_path / "a.jsonl"
    records.write_rows(
        path,
        [records.row(metric, value, "nats", model="m") for metric, value in rows],
        {"command": "lmdyn"},
    )
    with pytest.raises(try_commands.Failed, match=said) if said else contextlib.nullcontext():
        try_commands.holds(try_commands.rows_of(path), ("nll", "flops"), path)
