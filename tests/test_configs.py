"""`--config FILE` first, options after it; every config of the project is read."""

from pathlib import Path

import pytest

from lmdyn.cli.command_line import main, parse
from lmdyn.cli.measure import Measure
from lmdyn.cli.online import Online
from lmdyn.errors import InputError

CONFIGS = sorted(Path(__file__).parents[1].glob("configs/*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_command_in_a_config_is_understood(path):
    text = path.read_text(encoding="utf-8").replace("\\\n", "")
    (line,) = (line for line in text.splitlines() if line.startswith("Run: lmdyn "))
    words = line.removeprefix("Run: lmdyn ").replace("configs/", f"{path.parent}/").split()
    options = parse(words)
    if words[0] == "train":
        assert options.run.out == f"runs/{path.stem.replace('_', '-').replace('6-9b', '6.9b')}"
    elif words[0] == "study":
        assert options.out == f"out/{path.stem}"
    else:
        assert isinstance(options, Measure | Online)
        assert options.tokens == 12288


def test_options_override_the_config():
    (path,) = (p for p in CONFIGS if p.stem == "smollm2_online")
    options = parse(["online", "--config", str(path), "--lr", "0.5", "dir:other"])
    assert (options.learning_rate, options.chunk, options.model) == (0.5, 512, "dir:other")
    (path,) = (p for p in CONFIGS if p.stem == "smollm2_measure")
    assert parse(["measure", f"--config={path}", "dir:a", "dir:b"]).models == ("dir:a", "dir:b")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "has no function config()"),
        ("from lmdyn.cli.online import Online\ndef config(): return Online(modle='x')", "modle"),
        (
            "from lmdyn.cli.report import Report\ndef config(): return Report('x')",
            "returns Report, which is not for online; return Online(...)",
        ),
        ("def config(): return 3", "returns int, which is not for online"),
        ("1 +", "SyntaxError"),
    ],
)
def test_a_wrong_config_is_one_clear_line(text, message, tmp_path, capsys):
    (tmp_path / "c.py").write_text(text, encoding="utf-8")
    assert main(["online", "--config", str(tmp_path / "c.py")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_missing_config_file_is_named():
    with pytest.raises(InputError, match=r"nowhere\.py"):
        parse(["online", "--config", "nowhere.py"])
