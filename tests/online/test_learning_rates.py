"""A learning rate chosen on a prefix; one program for all rates; runs in pieces; the options of the
command line.
"""

import json

import numpy as np
import optax
import pytest

from lmdyn import checkpoints, online, records, transforms
from lmdyn.cli import command_line
from lmdyn.data import tokenizers
from lmdyn.errors import InputError
from lmdyn.models import LanguageModel, ModelConfig, init
from lmdyn.params import low_rank
from tests.helpers import assert_close, small, tokens
from tests.online.helpers import evaluate

TEXT, CHUNK, RATES = tokens(91), 5, (0.0, 30.0, 1e5)
PLAIN = dict(chunk=CHUNK, adapt="blocks.mlp")


def test_a_rate_is_chosen_on_the_prefix_alone():
    model, params = small()
    search, config = online.LearningRateSearch(optax.sgd, RATES, 38), online.OnlineConfig(**PLAIN)
    found = online.choose_learning_rate(model, params, TEXT, search, config)
    assert found.prefix == 40  # whole chunks
    wanted = {
        rate: evaluate(model, params, TEXT[:41], optimizer=optax.sgd(rate), **PLAIN).mean
        for rate in RATES
    }
    for rate, nll in wanted.items():
        assert found.tried[rate] == pytest.approx(nll, rel=1e-5) or (
            not np.isfinite(nll) and found.tried[rate] == np.inf
        )
    assert (
        found.learning_rate
        == min(wanted, key=lambda rate: wanted[rate] if np.isfinite(wanted[rate]) else np.inf)
        == 30.0
    )
    alone = evaluate(model, params, TEXT, optimizer=optax.sgd(found.learning_rate), **PLAIN)
    assert_close(found.outcome.nll, alone.nll, 1e-6)
    assert found.rest == pytest.approx(alone.nll[40:].mean(), rel=1e-6)
    assert found.flops == pytest.approx(
        alone.flops * (1 + 3 * 8 / 18)
    )  # 3 trials over 8 of 18 chunks
    other = np.concatenate([TEXT[:41], tokens(50, seed=9)])
    again = online.choose_learning_rate(model, params, other, search, config)
    assert (again.learning_rate, again.tried) == (found.learning_rate, found.tried)
    assert np.abs(again.outcome.nll[41:] - found.outcome.nll[41:]).max() > 0.1


def test_all_rates_share_one_program():
    model, params = small()
    compiled = online.evaluate.__globals__["compiled"]
    make = online.learning_rate_as_state(optax.adam)
    run = lambda optimizer: evaluate(model, params, TEXT, optimizer=optimizer, **PLAIN)
    run(make(0.01))
    before = compiled.cache_info().misses
    assert_close(run(make(0.003)).nll, run(make(0.003)).nll, 0)
    assert compiled.cache_info().misses == before
    assert_close(run(make(0.003)).nll, run(optax.adam(0.003)).nll, 1e-6)


def test_runs_in_pieces_give_the_same_numbers():
    model, params = small()
    options = dict(optimizer=optax.adam(0.01), context=online.cache(8), **PLAIN)
    whole = evaluate(model, params, TEXT, **options)
    cut = evaluate(model, params, TEXT, piece=7, **options)  # 7, 7 and 4 of 18 chunks
    np.testing.assert_array_equal(cut.nll, whole.nll)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(learning_rates=()), "at least one"),
        (dict(learning_rates=(-1.0,)), "each 0 or a positive"),
        (dict(prefix=90), "must continue after it"),
        (dict(prefix=0), "at least 1 prediction"),
        (dict(every=0), "every=0"),
        (dict(piece=0), "piece=0"),
    ],
)
def test_bad_input_is_one_clear_line(options, message):
    search = dict(rule=optax.sgd, learning_rates=(0.1,), prefix=20)
    changed = {name: value for name, value in options.items() if name in search}
    config = PLAIN | {name: value for name, value in options.items() if name not in search}

    def run():
        tried = online.LearningRateSearch(**search | changed)
        online.choose_learning_rate(*small(), TEXT, tried, online.OnlineConfig(**config))

    with pytest.raises(InputError, match=message) as error:
        run()
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("online")
    model = LanguageModel(
        ModelConfig(vocab=257, width=12, depth=2, heads=2, head_width=6, mlp_width=20, positions=64)
    )
    checkpoints.export(model, init(model), tokenizers.byte_tokenizer(), root / "model")
    for name, word in (
        ("a", "the fox and the dog. "),
        ("b", "a cat, a hat, a bat; "),
        ("c", "one two three four. "),
    ):
        (root / f"{name}.txt").write_text(word * 9)
    return root


def call(folder, tmp_path, *words, model="model"):
    out = tmp_path / "rows.jsonl"
    words = [
        "online",
        f"dir:{folder / model}",
        "--data",
        f"text:{folder}/*.txt",
        "--chunk",
        "8",
        "--out",
        str(out),
        *map(str, words),
    ]
    return command_line.main(words), out


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache" / "jax"))


@pytest.mark.parametrize(
    "words",
    [
        ["--optimizer", "adam0", "--rank", 2, "--reset", "document", "--parallel", 2, "--lr", 0.01],
        [
            "--optimizer",
            "sgd",
            "--rates",
            "0.01,0.3",
            "--prefix",
            80,
            "--steps",
            2,
            "--adapt",
            "blocks.mlp",
        ],
        [
            "--optimizer",
            "sgd",
            "--lr",
            0.1,
            "--context",
            "cache",
            "--window",
            16,
            "--keep",
            4,
            "--every",
            3,
            "--decay",
            0.1,
        ],
        ["--optimizer", "sgd", "--lr", 0.1, "--guard", 50, "--reset", "change"],
    ],
    ids=["lanes", "rates", "cache", "guard"],
)
def test_the_options_of_the_command_line_are_those_of_the_library(folder, tmp_path, words):
    code, out = call(folder, tmp_path, *words)
    assert code == 0
    model, params, tokenizer, *_ = checkpoints.load(f"dir:{folder / 'model'}")
    documents = [tokenizer.encode((folder / f"{name}.txt").read_text()) for name in "abc"]
    given = dict(zip(words[::2], words[1::2], strict=True))
    options = dict(chunk=8, end_of_text=tokenizer.end_of_text)
    if "--rank" in given:
        wanted = evaluate(
            model,
            params,
            documents,
            optimizer=optax.adam(0.01, b1=0.0),
            adapt=low_rank(rank=2),
            reset="document",
            parallel=2,
            **options,
        )
    elif "--rates" in given:
        found = online.choose_learning_rate(
            model,
            params,
            documents,
            online.LearningRateSearch(optax.sgd, (0.01, 0.3), 80),
            online.OnlineConfig(steps=2, adapt="blocks.mlp", **options),
        )
        wanted = found.outcome
        row = records.read_rows(out)[1]
        assert (row["rate"], row["prefix"]) == (found.learning_rate, 80)
        assert row["after_prefix"] == pytest.approx(found.rest)
    elif "--guard" in given:
        wanted = evaluate(
            model,
            params,
            documents,
            optimizer=optax.sgd(0.1),
            guard=50.0,
            reset=online.ChangeDetector(),
            **options,
        )
    else:
        rule = optax.chain(optax.sgd(0.1), transforms.decay_to_prior(0.1))
        wanted = evaluate(
            model,
            params,
            documents,
            optimizer=rule,
            context=online.cache(16, keep=4),
            every=3,
            **options,
        )
    assert_close(records.read_traces(out)["online"], wanted.nll, 1e-5)
    assert np.abs(wanted.nll - records.read_traces(out)["static"]).max() > 1e-3
    assert json.loads((tmp_path / "rows.jsonl.meta.json").read_text())["config"]["chunk"] == 8


def test_statistics_are_made_once_and_kept(folder, tmp_path):
    statistics = tmp_path / "rms.safetensors"
    words = ["--optimizer", "rms", "--lr", 1e-3, "--statistics", statistics]
    code, out = call(folder, tmp_path, *words, "--training", f"text:{folder}/a.txt", "--batches", 3)
    assert code == 0
    first, made = records.read_traces(out)["online"], transforms.load_rms(statistics)
    assert made.batches == 3
    code, out = call(folder, tmp_path, *words)
    assert code == 0
    np.testing.assert_array_equal(records.read_traces(out)["online"], first)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--keep", 4], "--keep 4 is for --context cache"),
        (["--rates", "0.1"], "--learning-rates and --prefix belong together"),
        (["--rates", "0.1,x", "--prefix", 8], "--learning-rates 0.1,x"),
        (["--parallel", 2], "--parallel 2: documents side by side need --reset document"),
        (["--optimizer", "rms"], "needs --statistics FILE"),
        (
            ["--optimizer", "rms", "--statistics", "/no/such/file"],
            "is not there yet; add --training",
        ),
        (["--statistics", "x"], "for --optimizer rms"),
        (["--rank", 2, "--adapt", "head"], "holds no matrix that an adapter can stand beside"),
        (["--guard", -1], "--guard -1.0"),
        (["--every", 0], "--every=0"),
        (["--decay", 2], "--decay 2.0"),
    ],
)
def test_bad_options_end_in_one_line(folder, tmp_path, capsys, words, message):
    code, out = call(folder, tmp_path, *words)
    said = capsys.readouterr().err
    assert code == 2
    assert message in said.splitlines()[-1]
    assert not out.exists()
