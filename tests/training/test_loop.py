"""Runs: they learn, end, go on, and say what is wrong."""

import dataclasses
import json
import math
import pathlib
import shutil

import numpy as np
import pytest

from lmdyn import checkpoints, data, metrics
from lmdyn.checkpoints import runs
from lmdyn.errors import InputError
from lmdyn.training import Apply, Source, loop, train
from tests.training import cases


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    cases.write_texts(folder)
    return folder


@pytest.fixture(scope="module")
def finished(folder):
    """A run that was never disturbed."""
    config = cases.config(folder, out=str(folder / "finished"))
    said = []
    assert train(config, say=said.append) == (12, 12, None)
    assert said == []
    return config


def test_a_run_learns_and_writes_it_down(finished):
    log = cases.lines(finished.out)
    assert [line["step"] for line in log] == list(range(1, 13))
    assert [line["tokens"] for line in log] == [64 * step for step in range(1, 13)]
    assert log[-1]["loss"] < log[0]["loss"] - 0.5
    assert abs(log[0]["loss"] - math.log(257)) < 0.3
    rows = cases.lines(finished.out, "rows.jsonl")
    assert [row["step"] for row in rows if row["metric"] == "nll"] == [0, 5, 10, 12]
    assert json.loads(pathlib.Path(finished.out, "rows.jsonl.meta.json").read_text())["seed"] == 0


def test_checkpoints_are_kept_by_rule(finished):
    assert runs.steps(finished.out) == [0, 1, 2, 4, 8, 9, 12]  # powers of two, and the last two


def test_what_was_measured_inside_is_what_measuring_afterwards_gives(finished):
    loaded = checkpoints.load(f"run:{finished.out}@8")
    assert loaded.step == 8
    watch = finished.evaluation
    config = dataclasses.replace(
        finished, out=finished.out + "-8", evaluation=dataclasses.replace(watch, every=4)
    )
    train(config, say=print)
    inside = {
        (r["metric"], r["layer"]): r["value"]
        for r in cases.lines(config.out, "rows.jsonl")
        if r["step"] == 8
    }
    batches = data.batches(watch.data, loaded.tokenizer, 16, 4, watch.tokens)
    found = metrics.measure(metrics.build(watch.metrics), loaded.model, loaded.params, batches)
    for result in found.values():
        for row in result.rows():
            assert abs(inside[row["metric"], row["layer"]] - row["value"]) < 1e-5 * abs(
                row["value"]
            )


def test_event_files_hold_the_log(finished):
    """Read without the writer's package: by the record format's own protocol buffers."""
    from tensorboardX.proto import event_pb2

    found = {}
    for path in pathlib.Path(finished.out, "tensorboard").iterdir():
        raw, at = path.read_bytes(), 0
        while at < len(raw):
            length = int.from_bytes(
                raw[at : at + 8], "little"
            )  # then a checksum, the event, and another checksum
            event = event_pb2.Event.FromString(raw[at + 12 : at + 12 + length])
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            at += 16 + length
    for line in cases.lines(finished.out):
        assert abs(found["train/loss", line["step"]] - line["loss"]) < 1e-6
    assert ("held_out/nll", 5) in found


def test_same_seed_same_bits_and_another_seed_others(folder, finished):
    again = cases.config(folder, out=str(folder / "again"))
    train(again)
    cases.same_runs(finished.out, again.out)
    other = cases.config(folder, out=str(folder / "other"), seed=1)
    train(other)
    assert cases.digests(other.out)[12] != cases.digests(finished.out)[12]


def test_a_run_that_was_stopped_goes_on_bit_for_bit(folder, finished, monkeypatch):
    config = cases.config(folder, out=str(folder / "stopped"))
    real = loop.Loop.after

    for stop in (3, 7):

        def after(self, *state, stop=stop, **what):
            if self.step == stop:
                raise RuntimeError("stopped")
            real(self, *state, **what)

        monkeypatch.setattr(loop.Loop, "after", after)
        with pytest.raises(RuntimeError, match="stopped"):
            train(config)
        monkeypatch.setattr(loop.Loop, "after", real)
    said = []
    assert train(config, say=said.append).step == 12
    assert "resuming at step 6 of 12" in said[0]
    cases.same_runs(finished.out, config.out)
    # done is done
    before = cases.lines(config.out)
    assert train(config, say=said.append).step == 12
    assert cases.lines(config.out) == before


def test_a_corrupt_checkpoint_is_reported_and_the_one_before_is_used(folder, finished):
    out = folder / "corrupt"
    shutil.copytree(finished.out, out)
    biggest = max(
        (p for p in (out / "checkpoints" / "12" / "params").rglob("*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )
    raw = bytearray(biggest.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    biggest.write_bytes(raw)
    said = []
    train(cases.config(folder, out=str(out)), say=said.append)
    assert "warning" in said[0] and "12" in said[0]
    assert "resuming at step 9 of 12" in said[1]
    cases.same_runs(finished.out, out)


def test_a_run_trains_a_given_model_further(folder, finished):
    config = cases.config(
        folder, out=str(folder / "further"), model=None, start=f"run:{finished.out}@12", steps=3
    )
    train(config)
    first, last = (checkpoints.load(f"run:{config.out}@{step}").params for step in (0, 3))
    given = checkpoints.load(f"run:{finished.out}").params
    same = lambda a, b: [np.array_equal(x, y) for x, y in zip(*map(_leaves, (a, b)), strict=True)]
    assert all(same(first, given))
    assert not any(same(last, given))


def test_a_part_of_the_model_is_trained_and_goes_on(folder):
    part = dict(train="blocks[1].mlp+final_norm", out=str(folder / "part"))
    config = cases.config(folder, **part)
    train(config)
    first, last = (checkpoints.load(f"run:{config.out}@{step}").params for step in (0, 12))
    assert np.array_equal(first["embed"]["embedding"], last["embed"]["embedding"])
    up = lambda params: np.asarray(params["blocks"]["mlp"]["up"]["kernel"])
    assert np.array_equal(up(first)[0], up(last)[0])
    assert not np.array_equal(up(first)[1], up(last)[1])
    stopped = cases.config(folder, **part | {"out": str(folder / "part-stopped")})
    shutil.copytree(config.out, stopped.out)
    for step in (9, 12):
        shutil.rmtree(f"{stopped.out}/checkpoints/{step}")
    train(stopped, say=print)
    cases.same_runs(config.out, stopped.out)


def _leaves(tree):
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_a_loss_that_is_no_number_stops_the_run(folder):
    config = cases.config(
        folder,
        out=str(folder / "diverged"),
        optimizer__learning_rate=1e20,
        optimizer__clip=None,
        optimizer__warmup=0,
    )
    with pytest.raises(
        InputError,
        match=(
            r"(loss|gradient norm) is (nan|inf) at step \d+; the last good checkpoint is"
            r" run:.*@\d+; lower"
        ),
    ):
        train(config)
    last = checkpoints.load(f"run:{config.out}")
    assert last.step < 12


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(data__batch=3), "another config: data.batch: 4 -> 3"),
        (
            dict(optimizer__learning_rate=0.5, seed=4),
            "another config: optimizer.learning_rate: 0.01 -> 0.5 \\(and 1 more\\)",
        ),
    ],
)
def test_a_folder_with_another_config_is_refused(folder, finished, changes, message):
    with pytest.raises(InputError, match=message):
        train(cases.config(folder, out=finished.out, **changes))


def test_what_does_not_change_the_numbers_may_change(folder, finished):
    out = folder / "changed"
    shutil.copytree(finished.out, out)
    said = []
    train(
        cases.config(folder, out=str(out), checkpoints__last=5, log_every=4, evaluation__every=3),
        say=said.append,
    )
    assert "resuming at step 12 of 12" in said[0]


def test_a_position_of_other_data_is_refused(folder, tmp_path):
    cases.write_texts(tmp_path)
    config = cases.config(tmp_path)
    train(dataclasses.replace(config, steps=12))
    (tmp_path / "train.txt").write_text(
        "something else entirely, and long enough for several windows of text\n" * 9
    )
    with pytest.raises(InputError, match="its position in the data is of other data"):
        train(config)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(mesh=(16, 1, 1)), "mesh 16,1,1 needs 16 devices, and there are 8"),
        (dict(mesh=(3, 1, 1)), "a batch of 4 rows does not divide by data=3"),
        (dict(mesh=(-1, -1, 1)), "one may be -1"),
        (dict(mesh=(-1, 3, 1)), "3 does not divide the 8 devices"),
        (
            dict(model__position="learned", data__length=33),
            "data.length=33 exceeds the model's 32 positions",
        ),
        (dict(data__tokenizer="byte"), "unknown data.tokenizer 'byte'"),
        (dict(data__tokenizer="bpe:many"), "write bpe:VOCAB"),
        (dict(data__tokenizer="/no/such/tokenizer.json"), "No such file"),
        (dict(data__tokenizer="bpe:300"), "300 ids and the model's embedding 257"),
        (dict(data__sources=(Source("text:/no/such/file.txt"),)), "is not there"),
        (dict(evaluation__metrics="nll,entropy"), "unknown metric 'entropy'"),
        (dict(evaluation__data="builtin:prose"), "unknown built-in text 'prose'"),
        (dict(train="blocks[7]"), "layer 7 .* outside the model's 2 blocks"),
        (dict(optimizer__apply=(Apply("optax.nothing"),)), "has no attribute"),
        (dict(optimizer__decay="blocks[0]"), "single layers"),
        (dict(out="/dev/null/run"), "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, changes, message):
    cases.write_texts(tmp_path)
    with pytest.raises(InputError, match=message):
        train(cases.config(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def test_an_empty_text_is_refused(tmp_path):
    (tmp_path / "train.txt").write_text("")
    with pytest.raises(InputError, match="empty"):
        train(cases.config(tmp_path, evaluation=None))
    assert not (tmp_path / "run").exists()
