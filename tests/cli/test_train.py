"""`lmdyn train` and `lmdyn plan`: options beside the config, and one line for what is wrong."""

import pytest

from lmdyn.cli.command_line import main, parse
from tests.training import cases

HEAD = "from lmdyn.training import *\nfrom lmdyn.models import ModelConfig\n"
MODEL = (
    "ModelConfig(vocab=257, width=24, depth=2, heads=2, head_width=12, mlp_width=20, positions=32)"
)
BODY = (
    HEAD
    + "def config():\n    return TrainConfig(model={model}, data=Data((Source('builtin:docs'),),"
    " length=16, batch=4), steps={steps}, out={out!r}{more})\n"
)


def write(folder, steps="3", more="", model=MODEL):
    path = folder / "run.py"
    path.write_text(BODY.format(model=model, steps=steps, more=more, out=str(folder / "run")))
    return str(path)


def said(words, capsys, code=2):
    assert main(words) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("lmdyn: error: ")
    return err


def test_options_override_the_config_at_any_depth(tmp_path):
    words = [
        "train",
        "--config",
        write(tmp_path),
        "--steps",
        "7",
        "--optimizer.learning-rate",
        "0.5",
        "--data.batch",
        "16",
        "--mesh",
        "4,2,1",
        "--model.depth",
        "3",
        "--out",
        "elsewhere",
    ]
    run = parse(words).run
    assert (
        run.steps,
        run.optimizer.learning_rate,
        run.data.batch,
        run.mesh,
        run.model.depth,
        run.out,
    ) == (7, 0.5, 16, (4, 2, 1), 3, "elsewhere")
    assert run.model.width == 24


@pytest.mark.parametrize(
    "written, message",
    [
        (dict(more=", stpes=3"), "stpes"),
        (dict(more=", optimizer=Optimizer(rate=1e-3)"), "rate"),
        (dict(steps="'3'"), "TrainConfig.steps='3' is of type str, not int"),
        (dict(steps="0"), "steps=0; it must be at least 1"),
        (dict(more=", mesh=(1, 2)"), "TrainConfig.mesh=(1, 2)"),
        (dict(model="None"), "give either model="),
        (
            dict(model=MODEL.replace("heads=2", "heads=2, kv_heads=3")),
            "not a multiple of kv_heads=3",
        ),
    ],
)
def test_a_wrong_config_is_one_line(tmp_path, capsys, written, message):
    assert message in said(["train", "--config", write(tmp_path, **written)], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--steps", "x"], "--steps does not take 'x'"),
        (["--stpes", "5"], "did you mean --steps?"),
        (["--optimizer.learning-rte", "5"], "did you mean --optimizer.learning-rate?"),
        (["--optimizer.name", "adm"], "it takes adamw, sgd"),
        (["--steps", "0"], "steps=0; it must be at least 1"),
        (["--model.heads", "7"], "error: model: heads=7 is not a multiple of kv_heads"),
        (["--out", ""], "out='' names no folder"),
        (["--mesh", "4,2"], "'4,2' is not a mesh; write three numbers"),
        (["--mesh", "64,1,1"], "mesh 64,1,1 needs 64 devices, and there are 8; use a mesh"),
        (["--mesh", "8,1,1"], "a batch of 4 rows does not divide by data=8"),
        (["--coordinator", "here:1"], "--coordinator, --processes and --process go together"),
        (
            ["--hosts", "auto", "--coordinator", "here:1", "--processes", "2", "--process", "0"],
            "finds the other processes itself",
        ),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, capsys, words, message):
    assert message in said(["train", "--config", write(tmp_path), *words], capsys)
    assert not (tmp_path / "run").exists()


def test_a_config_is_needed(capsys):
    assert "train needs --config FILE" in said(["train"], capsys)
    assert "plan needs --config FILE" in said(["plan"], capsys)


def test_help_without_a_config(capsys):
    for verb in ("train", "plan"):
        assert main([verb, "--help"]) == 0
        assert "--optimizer.learning-rate" in capsys.readouterr().out


def test_a_plan_needs_a_whole_mesh(tmp_path, capsys):
    assert main(["plan", "--config", write(tmp_path)]) == 2
    assert "a plan needs three numbers" in capsys.readouterr().err


def test_a_run_from_the_command_line(tmp_path, capsys):
    cases.write_texts(tmp_path)
    path = cases.write_config(tmp_path, steps=2)
    assert main(["train", "--config", str(path)]) == 0
    assert "done, 2 steps" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").exists()
    out = str(tmp_path / "rows.jsonl")
    assert (
        main(
            [
                "measure",
                f"run:{tmp_path / 'run'}@*",
                "--data",
                f"text:{tmp_path}/held_out.txt",
                "--metrics",
                "nll",
                "--length",
                "16",
                "--out",
                out,
            ]
        )
        == 0
    )
    assert (
        main(
            [
                "measure",
                f"run:{tmp_path / 'run'}@7",
                "--data",
                f"text:{tmp_path}/held_out.txt",
                "--out",
                out,
            ]
        )
        == 2
    )
    assert "no checkpoint of step 7" in capsys.readouterr().err


def test_measuring_and_adapting_on_a_mesh(tmp_path, capsys):
    from lmdyn.records import read_rows

    cases.write_texts(tmp_path)
    path = cases.write_config(tmp_path, steps=2)
    assert main(["train", "--config", str(path)]) == 0
    model, text = f"run:{tmp_path / 'run'}", f"text:{tmp_path}/held_out.txt"
    measure = [
        "measure",
        model,
        "--data",
        text,
        "--length",
        "16",
        "--batch",
        "8",
        "--tokens",
        "200",
        "--metrics",
        "nll,knowledge_entropy,anisotropy",
    ]
    online = ["online", model, "--data", text, "--chunk", "16", "--tokens", "80", "--lr", "0.1"]
    for name, words, mesh in (("measure", measure, "2,2,2"), ("online", online, "1,4,2")):
        found = []
        for number, more in enumerate(([], ["--mesh", mesh])):
            out = str(tmp_path / f"{name}{number}.jsonl")
            assert main([*words, *more, "--out", out]) == 0
            found.append([row["value"] for row in read_rows(out)])
        for one, many in zip(*found, strict=True):
            assert abs(one - many) <= 1e-5 * abs(one)
    capsys.readouterr()
    assert "8 rows does not divide by data=3" in said(
        [*measure, "--mesh", "3,1,1", "--out", str(tmp_path / "o.jsonl")], capsys
    )
    assert "has no rows to divide; use 1,2,1" in said(
        [*online, "--mesh", "2,1,1", "--out", str(tmp_path / "o.jsonl")], capsys
    )
