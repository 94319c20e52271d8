"""Bad input of every kind ends in exit code 2 and one clear line, and leaves nothing behind."""

import errno
import importlib
import os

import numpy as np
import pytest

from lmdyn import files, records
from lmdyn.cli import command_line
from tests.cli.test_command_line import TEXT, caches, folder, run  # noqa: F401 (fixtures)

MEASURE = [
    "measure",
    "dir:{d}/tiny",
    "--data",
    "text:{d}/a.txt",
    "--length",
    "33",
    "--metrics",
    "nll",
    "--out",
    "{o}/r.jsonl",
]
ONLINE = [
    "online",
    "dir:{d}/tiny",
    "--data",
    "text:{d}/a.txt",
    "--chunk",
    "31",
    "--tokens",
    "93",
    "--out",
    "{o}/r.jsonl",
]


def change(words, option, value):
    """The command line with another value for one option."""
    words = list(words)
    if option in words:
        words[words.index(option) + 1] = value
        return words
    return [*words, option, value]


def model(words, value):
    return [words[0], value, *words[2:]]


CASES = {
    "no verb": ([], "no command given; the commands are: measure, gradients"),
    "verb": (["mesure"], "unknown command 'mesure'; did you mean 'measure'?"),
    "option": ([*MEASURE, "--lenght", "3"], "unknown: --lenght 3 (did you mean --length?)"),
    "missing options": (["measure", "dir:x"], "missing: --data, --out"),
    "no model": (["measure", "--data", "x", "--out", "y"], "no model given"),
    "two models online": (["online", "a", "b", "--data", "x", "--out", "y"], "unknown: b"),
    "word for a number": (change(MEASURE, "--length", "many"), "--length does not take 'many'"),
    "word for a count": (change(MEASURE, "--tokens", "all"), "--tokens does not take 'all'"),
    "choice": (change(ONLINE, "--context", "cash"), "it takes none, cache, overlap"),
    "length": (change(MEASURE, "--length", "0"), "--length=0; it must be at least 1"),
    "batch": (change(MEASURE, "--batch", "-1"), "--batch=-1"),
    "tokens": (change(MEASURE, "--tokens", "0"), "--tokens=0"),
    "metric": (
        change(MEASURE, "--metrics", "nll,knowlege_entropy"),
        "did you mean 'knowledge_entropy'?",
    ),
    "no metric": (change(MEASURE, "--metrics", ","), "no metric"),
    "kind of model": (model(MEASURE, "gguff:x"), "did you mean 'gguf'?"),
    "no such option": (change(MEASURE, "--nope", "3"), "unknown: --nope 3; see"),
    "no kind of model": (model(MEASURE, "tiny"), "is not a model reference"),
    "missing folder": (model(MEASURE, "dir:{d}/none"), "no such folder"),
    "missing gguf": (model(MEASURE, "gguf:{d}/none.gguf"), "none.gguf"),
    "not a gguf": (model(MEASURE, "gguf:{d}/a.txt"), "a.txt"),
    "series for one": (model(ONLINE, "dir:{d}/series@*"), "2 checkpoints"),
    "missing revision": (model(MEASURE, "dir:{d}/series@step7"), "step7"),
    "kind of text": (change(MEASURE, "--data", "txt:a"), "did you mean 'text'?"),
    "missing text": (change(MEASURE, "--data", "text:{d}/none.txt"), "is not there"),
    "empty text": (change(MEASURE, "--data", "text:{d}/empty.txt"), "empty"),
    "not utf-8": (
        change(MEASURE, "--data", "text:{d}/latin.txt"),
        "not UTF-8: byte 0xe9 at offset 3",
    ),
    "text shorter than a window": (
        change(MEASURE, "--length", "5000"),
        f"has {len(TEXT)} tokens, and one window of length 5000 needs 5001",
    ),
    "text shorter than a chunk": (
        [*ONLINE[:-4], "--out", "{o}/r.jsonl", "--chunk", "5000"],
        f"has {len(TEXT)} tokens",
    ),
    "out is a folder": (change(MEASURE, "--out", "{o}"), "is a folder"),
    "out below a file": (change(MEASURE, "--out", "{d}/a.txt/r.jsonl"), "not a folder"),
    "window without context": (change(ONLINE, "--window", "10"), "without a context"),
    "context without window": (change(ONLINE, "--context", "cache"), "needs a window"),
    "window below 1": ([*ONLINE, "--context", "cache", "--window", "0"], "--window=0"),
    "chunk longer than window": (
        [*ONLINE, "--context", "overlap", "--window", "30"],
        "overlap needs chunk<=window",
    ),
    "optimizer": (change(ONLINE, "--optimizer", "sdg"), "did you mean 'sgd'?"),
    "rate": (change(ONLINE, "--lr", "-1"), "--learning-rate -1.0"),
    "rate nan": (change(ONLINE, "--lr", "nan"), "--learning-rate nan"),
    "selector": (change(ONLINE, "--adapt", "blocks.mpl"), "mpl"),
    "selector layer": (change(ONLINE, "--adapt", "blocks[7].mlp"), "7"),
    "divergence": (change(ONLINE, "--lr", "1e30"), "lower --learning-rate (now 1e+30)"),
    "report of nothing": (["report", "{o}"], "holds no rows"),
    "report of no folder": (["report", "{o}/none"], "is not a folder"),
}


@pytest.fixture
def out(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture
def place(folder):  # noqa: F811
    (folder / "empty.txt").touch()
    (folder / "latin.txt").write_bytes(b"caf\xe9 " * 100)
    return folder


def one_line(code, err):
    assert code == 2, err
    last = err.replace("\r", "\n").strip().splitlines()[-1]
    assert last.startswith("lmdyn: error: ")
    assert "Traceback" not in err
    assert err.count("lmdyn: error:") == 1
    return last


@pytest.mark.parametrize("words, said", CASES.values(), ids=CASES)
def test_one_clear_line_and_nothing_written(capsys, place, out, words, said):
    code, _, err = run(capsys, *(w.format(d=place, o=out) for w in words))
    assert said in one_line(code, err)
    assert not list(out.iterdir())


@pytest.mark.parametrize("words", [MEASURE, ONLINE], ids=["measure", "online"])
def test_a_checkpoint_with_nan(capsys, place, out, tmp_path, words):
    import shutil

    import safetensors.numpy

    broken = tmp_path / "broken"
    shutil.copytree(place / "tiny", broken)
    (weights,) = broken.glob("*.safetensors")
    tensors = dict(safetensors.numpy.load_file(weights))
    name = next(n for n in tensors if "down" in n)
    tensors[name] = np.full_like(tensors[name], np.nan)
    safetensors.numpy.save_file(tensors, weights)
    code, _, err = run(capsys, *(w.format(d=place, o=out) for w in model(words, f"dir:{broken}")))
    assert "nan" in one_line(code, err).lower()
    assert not list(out.iterdir())


@pytest.mark.parametrize("words", [MEASURE, ONLINE], ids=["measure", "online"])
def test_a_full_disk(capsys, monkeypatch, place, out, words):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    code, _, err = run(capsys, *(w.format(d=place, o=out) for w in words))
    assert "No space left on device; free some space" in one_line(code, err)
    assert not list(out.iterdir())


@pytest.mark.parametrize("moment", ["tokenize", "write"])
def test_interrupt(capsys, monkeypatch, place, out, moment):
    windows = importlib.import_module("lmdyn.data.windows")

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        *{"tokenize": (windows, "tokenize"), "write": (files.os, "replace")}[moment], stop
    )
    code = command_line.main([w.format(d=place, o=out) for w in MEASURE])
    err = capsys.readouterr().err
    assert code == 130
    assert err.strip().splitlines()[-1] == "lmdyn: error: interrupted; nothing was written"
    assert not list(out.iterdir())


def test_old_rows_survive_a_failed_run(capsys, place, out):
    records.write_rows(out / "r.jsonl", [records.row("nll", 1.0, "nats", model="m")], {})
    before = {p: p.read_bytes() for p in out.iterdir()}
    words = change(MEASURE, "--metrics", "nll,none")
    assert run(capsys, *(w.format(d=place, o=out) for w in words))[0] == 2
    assert {p: p.read_bytes() for p in out.iterdir()} == before
