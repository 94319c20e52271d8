"""Every command in README.md, and in the docstrings of configs, is one that works.

All of them go through the real command line: options are read, configs are loaded, and what is misspelt fails. Those of the README's section "On the
command line" are then run, small: a stand-in of 6 layers for a downloaded model, a few hundred tokens, a few steps. Only read are
  - studies: their parts are run, smaller than any config, in tests/studies; configs/tour is what scripts/quickstart.sh runs;
  - training runs and plans of large models, which take devices and texts that are not here;
  - scripts: tests/test_scripts.py runs them with stand-ins for what they start; scripts/test.sh is what runs this.
"""

import ast
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from lmdyn import checkpoints, cli, metrics, models
from lmdyn.data import tokenizers
from lmdyn.errors import InputError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))
EXAMPLES = {"train": "configs/tiny.py", "plan": "configs/tiny.py", "study": "configs/knowledge_entropy.py"}


def commands(text: str) -> list[str]:
    """The lines of a shell text; a backslash at the end of one joins the next."""
    return [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]


def section(heading: str) -> str:
    return README.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def in_readme() -> list[str]:
    """Lines of its shell blocks, and what stands in code within a sentence and has options."""
    shell = [line for block in blocks(README, "bash") for line in commands(block)]
    prose = re.sub(r"^```.*?^```", "", README, flags=re.S | re.M)
    return shell + [code for code in re.findall(r"`([^`\n]+)`", prose) if re.match(r"(lmdyn|python|bash) .*--", code)]


def in_config(path: Path) -> list[str]:
    """A command in a docstring ends its line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return [found[0] for line in commands(docstring) if (found := re.search(rf"lmdyn ({'|'.join(cli.VERBS)}) .*", line))]


ALL = list(dict.fromkeys(in_readme() + [line for path in CONFIGS for line in in_config(path)]))


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def test_there_are_commands():
    assert len(ALL) > 40 and all(in_config(path) for path in CONFIGS)
    assert {words_of(line)[1] for line in ALL if line.startswith("lmdyn ")} == set(cli.VERBS), "every verb is shown somewhere"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The repository, and beside it the file that the README has its reader write."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "scripts", "setup.py"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "participation.py").write_text(blocks(section("Extending it"), "python")[0], encoding="utf-8")
    yield folder
    metrics.REGISTRY.pop("participation", None)


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
            understood(["train", *words[words.index("--config", at):]])
    elif program == "python":
        source = Path(words[0]).read_text(encoding="utf-8")
        for word in words[1:]:
            assert not word.startswith("--") or f'"{word}"' in source, word
    else:
        assert program == "pip" and words[0] == "install"
        extras = re.findall(r"\[(\w+)\]", line)
        assert all(f'"{extra}": ' in Path("setup.py").read_text(encoding="utf-8") for extra in extras)
        assert all(Path(words[i + 1]).is_file() for i, word in enumerate(words) if word == "-c")


def understood(words):
    """Reads a command line of ours; FILE stands for a config of the verb's."""
    words = [EXAMPLES[words[0]] if word == "FILE" else word for word in words]
    options = cli.parse(words)
    assert cli._verb_of(options) == words[0]
    return options


@pytest.mark.parametrize("line", ["lmdyn online gguf:m --data text:b --chunks 512 --out r", "lmdyn measure gguf:m --data text:b --out r --mesh",
                                  "lmdyn study --config configs/saturation.py --narrows 128", "lmdyn train --config configs/tini.py"])
def test_a_misspelt_command_is_noticed(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match="--chunks|--mesh|--narrows|tini.py"):
        understood(words_of(line)[1:])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with what the README's commands name: models, texts, probes, runs, and the configs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = models.LanguageModel(models.ModelConfig(vocab=257, width=12, depth=2, heads=2, head_width=6, mlp_width=20, positions=640))
    for seed, name in enumerate(("model", "series/step1000", "series/step143000")):
        checkpoints.export(model, models.init(model, seed=seed), tokenizers.byte_tokenizer(), name)
    Path("configs").symlink_to(ROOT / "configs")
    text = "Of arms and of a man I sing, and of the long way home. "
    Path("book.txt").write_text(text * 30)
    Path("plays").mkdir()
    for i in range(6):
        Path(f"plays/{i}.txt").write_text(f"Act {i}. " + text * 2)
    Path("probes.jsonl").write_text("".join(
        json.dumps({"prompt": f"The mayor of place {i} is", "target": f"person {i}.", "kind": kind}) + "\n"
        for i in range(3) for kind in ("new", "updated")))
    runs = [(n, t, 1.7 + 400 / n**0.34 + 410 / t**0.28) for n in (1e8, 4e8, 8e8, 2e9) for t in (1e9, 4e9, 2e10)]
    Path("runs.csv").write_text("N,T,loss\n" + "".join(f"{n},{t},{loss}\n" for n, t, loss in runs))
    return tmp_path


SMALL = {
    "measure": {"--tokens": 128, "--length": 32, "--batch": 2},
    "gradients": {"--limit": 2, "--spans": 4, "--tokens": 512, "--resamples": 20},
    "online": {"--tokens": 256, "--chunk": 32},
    "reactivate": {"--tokens": 128, "--length": 32},
    "train": {"--steps": 2, "--optimizer.warmup": 0, "--watch.tokens": 512, "--mesh": "1,1,1", "--watch.metrics": "nll"},
}
"""Options that make a command small, by verb; those of a line itself are replaced."""
STAND_INS = {"gguf:model.gguf": "dir:model", "hf:EleutherAI/pythia-70m@": "dir:series@"}
MORE = {"configs/smollm2_online.py": ["dir:model"], "--rates": ["--prefix", "128"], "--statistics": ["--batches", "2"], "results/one": []}


def smaller(line: str) -> list[str]:
    """The words of a README's line after `lmdyn`, made small."""
    for name, instead in STAND_INS.items():
        line = line.replace(name, instead)
    words = words_of(line)[1:]
    extra = {**{str(k): str(v) for k, v in SMALL.get(words[0], {}).items()}}
    for sign, more in MORE.items():
        if sign in words:
            extra |= dict(zip(more[::2], more[1::2], strict=True)) if len(more) > 1 else {}
            words += more if len(more) == 1 else []
    for option, value in extra.items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    return words


@pytest.mark.slow
def test_the_commands_of_the_readme_run(here, capsys):
    """In the README's order: later lines take what earlier ones made."""
    (block,) = blocks(section("On the command line"), "bash")
    done = set()
    for line in commands(block):
        words = smaller(line)
        if words[0] == "study":
            continue
        if "results/one" in words:  # two folders beside one another
            for name in ("one", "other"):
                Path("results", name).mkdir()
                for file in Path("results").glob("series.jsonl*"):
                    shutil.copy(file, Path("results", name))
        assert cli.main(words) == 0, (line, words, capsys.readouterr().err)
        capsys.readouterr()
        done.add(words[0])
        out = words[words.index("--out") + 1] if "--out" in words else {"train": "runs/tiny/rows.jsonl", "report": "results/report.html",
                                                                        "online": "results/smollm2/online.jsonl"}[words[0]]
        assert Path(out).exists(), line
    assert done == set(cli.VERBS) - {"study", "plan"}
