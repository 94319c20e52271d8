"""The command line: help that fits, options that mean what they say, rows as they are promised."""

import importlib
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from lmdyn import records
from lmdyn.cli import command_line
from lmdyn.records.rows import FIELDS

TEXT = "The quick brown fox jumps over the lazy dog, again and again. " * 12


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A checkpoint, a series of two, and a text."""
    from lmdyn import checkpoints, models
    from lmdyn.data import tokenizers

    config = models.ModelConfig(
        vocab=257, width=24, depth=3, heads=3, head_width=8, mlp_width=35, positions=64
    )
    model = models.LanguageModel(config)
    root = tmp_path_factory.mktemp("cli")
    for seed, name in enumerate(("tiny", "series/step100", "series/step20")):
        checkpoints.export(
            model, models.init(model, seed=seed), tokenizers.byte_tokenizer(), root / name
        )
    (root / "a.txt").write_text(TEXT)
    return root


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(
        "JAX_COMPILATION_CACHE_DIR",
        os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(tmp_path / "cache" / "jax"),
    )


def run(capsys, *words):
    """(exit code, stdout, stderr) of one command line, in this process."""
    code = command_line.main([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["-h"],
        ["measure", "--help"],
        ["online", "--help"],
        ["reactivate", "--help"],
        ["gradients", "--help"],
        ["report", "--help"],
        ["scaling", "--help"],
    ],
    ids=" ".join,
)
def test_help_fits_80_columns_and_is_whole(capsys, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    if words[0] in command_line.VERBS:
        kind = importlib.import_module(f"lmdyn.cli.{words[0]}").OPTIONS
        fields = [
            n for n in kind.__dataclass_fields__ if n not in ("model", "models", "folders", "table")
        ]
        wanted = [f"--{n.replace('_', '-')}" for n in fields]
    else:
        wanted = list(command_line.VERBS)
    assert [name for name in wanted if name not in out] == []


def test_help_on_a_wide_terminal_is_that_of_100_columns(capsys, monkeypatch):
    shown = []
    for columns in ("100", "160"):
        monkeypatch.setenv("COLUMNS", columns)
        shown.append(run(capsys, "reactivate", "--help")[1])
    assert shown[0] == shown[1]


def test_the_help_of_study_names_those_that_ship(capsys):
    from lmdyn.studies.registry import SHIPPED

    code, out, _ = run(capsys, "study", "--help")
    assert code == 0
    assert [name for name in SHIPPED if name not in out] == []


def test_version(capsys):
    import lmdyn

    assert run(capsys, "--version")[:2] == (0, f"lmdyn {lmdyn.__version__}\n")


def test_help_needs_no_jax():
    code = (
        "import sys; from lmdyn.cli.command_line import main; main(['--help']);"
        " verbs = 'measure gradients online reactivate scaling'.split();"
        " [main([verb, '--help']) for verb in verbs];"
        " assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_measure_writes_the_rows_of_every_metric(capsys, folder, tmp_path):
    out = tmp_path / "new" / "rows.jsonl"
    code, said, err = run(
        capsys,
        "measure",
        f"dir:{folder}/tiny",
        "--data",
        f"text:{folder}/*.txt",
        "--length",
        33,
        "--batch",
        2,
        "--out",
        out,
    )
    assert code == 0, err
    rows = records.read_rows(out)
    assert all(tuple(r)[: len(FIELDS)] == FIELDS for r in rows)
    assert {r["model"] for r in rows} == {f"dir:{folder}/tiny"}
    assert {r["tokens"] for r in rows} == {len(TEXT) - 1}
    layers = {
        (m, s): [r["layer"] for r in rows if (r["metric"], r["site"]) == (m, s)]
        for m, s in {(r["metric"], r["site"]) for r in rows}
    }
    assert layers == {
        ("nll", None): [None],
        ("knowledge_entropy", "mlp"): [0, 1, 2, None],
        ("attention_entropy", "attention"): [0, 1, 2, None],
        ("prediction_entropy", "head"): [None],
        ("anisotropy", "residual"): [0, 1, 2, 3],
        ("anisotropy", "final"): [None],
        ("singular_entropy", "head"): [None],
    }
    (nll,) = (r for r in rows if r["metric"] == "nll")
    assert nll["perplexity"] == pytest.approx(math.exp(nll["value"]))
    assert nll["bits_per_byte"] == pytest.approx(nll["value"] / math.log(2)), "a byte a token"
    assert "Negative log-likelihood" in said and "Anisotropy, residual" in said
    meta = records.read_meta(out)
    assert meta["config"]["length"] == 33
    assert meta["command"].startswith(f"lmdyn measure dir:{folder}/tiny --data")
    assert meta["tokens"] == len(TEXT) - 1
    assert {"lmdyn", "jax", "jaxlib", "flax", "optax", "numpy", "python"} <= set(meta["versions"])
    assert all(
        meta[k] is not None
        for k in ("device", "wall_seconds", "tokens_per_second", "peak_memory_mib")
    )


def test_a_series_is_measured_in_the_order_of_its_steps(capsys, folder, tmp_path):
    code, _, err = run(
        capsys,
        "measure",
        f"dir:{folder}/series@*",
        "--data",
        f"text:{folder}/a.txt",
        "--metrics",
        "nll",
        "--length",
        33,
        "--tokens",
        70,
        "--out",
        tmp_path / "r",
    )
    assert code == 0, err
    assert [(r["step"], r["tokens"], r["model"]) for r in records.read_rows(tmp_path / "r")] == [
        (s, 70, f"dir:{folder}/series@step{s}") for s in (20, 100)
    ]


def test_several_models_in_one_call(capsys, folder, tmp_path):
    models = [f"dir:{folder}/tiny", f"dir:{folder}/series@step100"]
    assert (
        run(
            capsys,
            "measure",
            *models,
            "--data",
            f"text:{folder}/a.txt",
            "--metrics",
            "nll",
            "--length",
            33,
            "--out",
            tmp_path / "r",
        )[0]
        == 0
    )
    assert [r["model"] for r in records.read_rows(tmp_path / "r")] == models


def test_online_writes_rows_traces_and_learns(capsys, folder, tmp_path):
    out = tmp_path / "o.jsonl"
    code, said, err = run(
        capsys,
        "online",
        f"dir:{folder}/tiny",
        "--data",
        f"text:{folder}/a.txt",
        "--chunk",
        31,
        "--lr",
        0.5,
        "--out",
        out,
    )
    assert code == 0, err
    rows, traces = records.read_rows(out), records.read_traces(out)
    assert [(r["metric"], r["site"], r["unit"]) for r in rows] == [
        ("static_nll", None, "nats"),
        ("online_nll", None, "nats"),
        ("flops", "static", "flops"),
        ("flops", "online", "flops"),
    ]
    for r, name in zip(rows, ("static", "online"), strict=False):
        assert traces[name].dtype == np.float32
        assert traces[name].shape == (len(TEXT) - 1,)
        assert r["value"] == pytest.approx(traces[name].mean(), rel=1e-5)
        assert r["perplexity"] == pytest.approx(math.exp(r["value"]))
    assert rows[1]["value"] < rows[0]["value"], "a text that repeats is learned"
    np.testing.assert_allclose(traces["static"][:31], traces["online"][:31], rtol=1e-5)
    assert rows[3]["value"] > rows[2]["value"] > 0
    assert "perplexity" in said


@pytest.mark.parametrize(
    "more",
    [
        ["--context", "cache", "--window", 20],
        ["--context", "overlap", "--window", 40],
        ["--adapt", "blocks[1:].mlp+head", "--optimizer", "adamw", "--lr", 1e-3],
        ["--optimizer", "muon", "--reset", "document", "--no-static"],
    ],
    ids=lambda m: m[1],
)
def test_online_settings(capsys, folder, tmp_path, more):
    code, _, err = run(
        capsys,
        "online",
        f"dir:{folder}/tiny",
        "--data",
        f"text:{folder}/a.txt",
        "--chunk",
        31,
        "--tokens",
        100,
        "--out",
        tmp_path / "o",
        *more,
    )
    assert code == 0, err
    assert set(records.read_traces(tmp_path / "o")) == (
        {"online"} if "--no-static" in more else {"static", "online"}
    )
    assert len(records.read_traces(tmp_path / "o")["online"]) == 100


def test_report_tells_where_the_page_is(capsys, folder, tmp_path):
    assert (
        run(
            capsys,
            "measure",
            f"dir:{folder}/tiny",
            "--data",
            f"text:{folder}/a.txt",
            "--length",
            33,
            "--out",
            tmp_path / "d" / "m.jsonl",
        )[0]
        == 0
    )
    code, out, _ = run(capsys, "report", tmp_path / "d")
    assert (code, out) == (0, f"{tmp_path}/d/report.html\n")
    code, out, _ = run(capsys, "report", tmp_path / "d", "--out", tmp_path / "page.html")
    assert (code, out) == (0, f"{tmp_path}/page.html\n")


def test_the_same_command_gives_the_same_rows(capsys, folder, tmp_path):
    words = [
        "online",
        f"dir:{folder}/tiny",
        "--data",
        f"text:{folder}/a.txt",
        "--chunk",
        31,
        "--lr",
        0.5,
        "--tokens",
        100,
    ]
    for name in ("a", "b"):
        assert run(capsys, *words, "--out", tmp_path / name)[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    for name, trace in records.read_traces(tmp_path / "a").items():
        np.testing.assert_array_equal(trace, records.read_traces(tmp_path / "b")[name])


def test_rows_are_json_lines(capsys, folder, tmp_path):
    assert (
        run(
            capsys,
            "measure",
            f"dir:{folder}/tiny",
            "--data",
            f"text:{folder}/a.txt",
            "--metrics",
            "nll",
            "--length",
            33,
            "--out",
            tmp_path / "r",
        )[0]
        == 0
    )
    assert [json.loads(line)["metric"] for line in (tmp_path / "r").read_text().splitlines()] == [
        "nll"
    ]
