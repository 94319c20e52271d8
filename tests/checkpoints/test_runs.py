"""Runs: what was saved comes back bit for bit, on any devices; what was damaged is found;
retention; references.
"""

import dataclasses
import functools
import json
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmdyn import checkpoints, models
from lmdyn.checkpoints import runs
from lmdyn.checkpoints.runs import saving
from lmdyn.data import tokenizers
from lmdyn.errors import InputError
from tests.helpers import KINDS, SMALL

MODEL = dataclasses.replace(SMALL, vocab=261)
EVERYTHING = runs.Retention(every=1)
OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.masked(
        optax.add_decayed_weights(0.1), lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
    ),
    optax.adamw(optax.cosine_decay_schedule(1e-3, 100), mu_dtype=jnp.bfloat16),
)


def start(folder, model=MODEL, **more):
    runs.create(
        folder,
        model=model,
        tokenizer=tokenizers.byte_tokenizer(),
        config={"rate": 0.1, **more},
        data={"seed": 5},
    )
    return folder


@functools.cache
def state(seed: int, model=MODEL) -> dict:
    """Parameters and an optimizer state that has seen a step."""
    random = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), models.shapes(model)
    )
    return {"params": params, "optimizer": step_of_optimizer(params)}


@jax.jit
def step_of_optimizer(params):
    return OPTIMIZER.update(
        jax.tree.map(lambda x: x * 0.37 + 0.01, params), OPTIMIZER.init(params), params
    )[1]


def write(folder, *steps: int, retention=EVERYTHING, model=MODEL):
    with runs.Checkpoints(folder, retention) as writer:
        for step in steps:
            writer.save(
                step, state(step, model), {"step": step, "data": {"offset": step * 7, "epoch": 0.1}}
            )


def same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run with checkpoints 1, 2 and 3. Not to be changed: `run` is a copy."""
    folder = start(tmp_path_factory.mktemp("runs") / "small")
    write(folder, 1, 2, 3)
    return folder


@pytest.fixture
def run(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path / "small"))


# What is fixed at the start


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_comes_back_from_json(kind, tmp_path):
    scaling = models.RotaryScaling("yarn", 1 / 3, 77, attention_factor=0.1 + 0.2)
    model = dataclasses.replace(
        KINDS[kind], rotary_scaling=scaling, norm_eps=1e-7 / 3, clip_qkv=8.0
    )
    start(tmp_path / "run", model, ids=[1, None, "é"])
    found = runs.describe(tmp_path / "run")
    assert found.model == model
    assert (found.config, found.data) == ({"rate": 0.1, "ids": [1, None, "é"]}, {"seed": 5})
    assert found.tokenizer.to_json() == tokenizers.byte_tokenizer().to_json()
    assert (found.tokenizer.end_of_text, found.tokenizer.name) == (256, "bytes")
    assert runs.steps(tmp_path / "run") == []


def test_provenance_is_a_line_a_start_also_after_a_torn_one(run):
    runs.record(run, {"host": "a"})
    with (run / "provenance.jsonl").open("a") as file:
        file.write('{"host": "kil')
    runs.record(run, {"host": "b"})
    lines = (run / "provenance.jsonl").read_text().split("\n")
    assert (json.loads(lines[0]), json.loads(lines[2]), lines[3:]) == (
        {"host": "a"},
        {"host": "b"},
        [""],
    )


def test_a_run_is_not_started_twice(run):
    before = (run / "run.json").read_bytes()
    with pytest.raises(InputError, match="is a run already"):
        start(run)
    assert (run / "run.json").read_bytes() == before
    (run / "run.json").unlink()
    with pytest.raises(InputError, match=r"holds checkpoints but no run.json"):
        start(run)


@pytest.mark.parametrize("name", ["run.json", "tokenizer.json"])
@pytest.mark.parametrize("harm", ["cut", "flip", "delete"])
def test_damage_to_what_describes_the_run(run, name, harm):
    damage(run / name, harm)
    with pytest.raises(InputError) as caught:
        checkpoints.load(f"run:{run}@3")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_of_a_newer_version(run):
    content = json.loads((run / "run.json").read_text())
    del content["checksum"]
    for change, words in [
        ({"format": 2}, "has format 2"),
        ({"model": {"novel": 1}}, "another version of lmdyn"),
    ]:
        runs.manifest.write_signed(run / "run.json", {**content, **change})
        with pytest.raises(InputError, match=words):
            runs.describe(run)


# Bits


def test_every_bit_comes_back(run):
    items, position = runs.restore(run, 2, abstract(state(2)))
    same(items, state(2))
    assert position == {"step": 2, "data": {"offset": 14, "epoch": 0.1}}


def test_dtypes_odd_values_and_odd_trees(run):
    bits = np.random.default_rng(0)
    items = {
        "params": {
            "float32": (
                jnp.asarray(bits.integers(0, 2**32, 7, np.uint32)).view(jnp.float32)
            ),  # NaNs of all kinds among them
            "bfloat16": jnp.asarray(bits.integers(0, 2**16, (3, 5), np.uint16)).view(jnp.bfloat16),
            "scalar": jnp.float32(-0.0),
            "empty": jnp.zeros([0, 3]),
            "infinite": jnp.asarray([np.inf, -np.inf, np.nan, 1e-45]),
        },
        "counters": (
            jnp.int32(7),
            [np.int64(2**62), None, np.arange(3, dtype=np.uint8)],
            optax.EmptyState(),
        ),
        "key": jax.random.key_data(jax.random.key(3)),
        "bools": {"a.b": jnp.array([True, False])},
        "nothing": optax.EmptyState(),
    }
    with runs.Checkpoints(run, EVERYTHING) as writer:
        writer.save(9, items, None)
    found, position = runs.restore(run, 9, items)
    same(found, items)
    assert position is None
    assert isinstance(found["counters"][1][2], np.ndarray)


def sharded(tree, mesh, axes):
    """Leaves cut along the first axis that the axes divide."""

    def place(leaf):
        size = np.prod([mesh.shape[a] for a in axes])
        cut = next((i for i, n in enumerate(leaf.shape) if n and n % size == 0), None)
        spec = PartitionSpec() if cut is None else PartitionSpec(*[None] * cut, axes)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(place, tree)


def mesh(*shape):
    return Mesh(
        np.array(jax.devices()[: np.prod(shape)]).reshape(shape), ("data", "fsdp", "tensor")
    )


def test_between_meshes(tmp_path):
    """Written on 8 devices, read on 1, on 8 otherwise arranged, and on 3; and the reverse."""
    folder = start(tmp_path / "run")
    wanted = {"params": state(4)["params"], "optimizer": {"count": jnp.int32(3)}}
    layouts = {
        1: sharded(wanted, mesh(2, 4, 1), ("data", "fsdp")),
        2: sharded(wanted, mesh(1, 1, 1), ("data",)),
        3: sharded(wanted, mesh(2, 2, 2), ("tensor", "data")),
        4: sharded(wanted, mesh(1, 3, 1), ("fsdp",)),
        5: abstract(wanted),
    }
    with runs.Checkpoints(folder, EVERYTHING) as writer:
        for step, layout in layouts.items():
            placed = jax.tree.map(
                lambda x, like: x if like.sharding is None else jax.device_put(x, like.sharding),
                wanted,
                layout,
            )
            writer.save(step, placed, {})
    for step, layout in [(1, 2), (1, 3), (1, 5), (2, 1), (3, 4), (4, 1), (5, 3)]:
        found, _ = runs.restore(folder, step, layouts[layout])
        same(found, wanted)
        for leaf, like in zip(
            jax.tree.leaves(found), jax.tree.leaves(layouts[layout]), strict=True
        ):
            assert like.sharding is None or leaf.sharding == like.sharding
    up = runs.restore(folder, 2, layouts[1])[0]["params"]["blocks"]["mlp"]["up"]["kernel"]
    assert max(shard.data.nbytes for shard in up.addressable_shards) == up.nbytes // 8
    same(checkpoints.load(f"run:{folder}@1").params, wanted["params"])


@pytest.mark.parametrize("spread", [False, True])
def test_memory_may_be_donated_as_soon_as_save_returns(tmp_path, spread):
    folder = start(tmp_path / "run")
    values = {f"w{i}": jax.random.normal(jax.random.key(i), [8, 100_003]) for i in range(4)}
    if spread:
        values = jax.tree.map(
            lambda x, like: jax.device_put(x, like.sharding),
            values,
            sharded(values, mesh(2, 4, 1), ("data", "fsdp")),
        )
    values["host"] = np.arange(5.0)
    wanted = jax.tree.map(lambda x: np.array(x), values)
    host = values.pop("host")
    with runs.Checkpoints(folder, EVERYTHING) as writer:
        writer.save(1, {"params": {**values, "host": host}}, {})
        host[:] = -1
        overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 7, tree), donate_argnums=0)
        jax.block_until_ready(overwrite(values))
    same(runs.restore(folder, 1, {"params": wanted})[0]["params"], wanted)


def test_other_arrays_are_refused_not_skipped(run):
    like = abstract(state(3))
    other = {
        "params": {
            **like["params"],
            "final_norm": {"scale": jax.ShapeDtypeStruct([25], np.float32)},
        }
    }
    with pytest.raises(
        InputError,
        match=r"checkpoint 3 holds float32\[24\] as params/final_norm/scale, where float32\[25\]",
    ):
        runs.restore_latest(run, other, pytest.fail)
    plain = {**like, "optimizer": abstract(optax.sgd(0.1, momentum=0.9).init(like["params"]))}
    with pytest.raises(InputError, match=r"as optimizer/.*it is of another configuration"):
        runs.restore_latest(run, plain, pytest.fail)
    half = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), like["params"])
    with pytest.raises(InputError, match=r"where bfloat16"):
        runs.restore(run, 3, {"params": half})
    with pytest.raises(InputError, match=r"has no average"):
        runs.restore(run, 3, {"average": like["params"]})


# Damage


def damage(path: Path, harm: str):
    if harm == "delete":
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    if harm == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 4
    path.write_bytes(content)


def kinds_of_files() -> list[str]:
    """Globs that cover every file of a checkpoint; that they do is tested."""
    files = [
        "_METADATA",
        "_sharding",
        "commit_success.txt",
        "manifest.ocdbt",
        "d/*",
        "ocdbt.process_0/manifest.ocdbt",
        "ocdbt.process_0/d/*",
        "array_metadatas/*",
    ]
    return [
        "checkpoint.json",
        "_CHECKPOINT_METADATA",
        "commit_success.txt",
        *(f"{i}/{f}" for i in ("params", "optimizer") for f in files),
    ]


def test_the_kinds_of_files_are_all(written):
    folder = written / "checkpoints" / "3"
    covered = {p for pattern in kinds_of_files() for p in folder.glob(pattern)}
    assert covered == {p for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("harm", ["cut", "flip", "delete"])
@pytest.mark.parametrize("kind", kinds_of_files())
def test_damage_to_any_file_is_reported_and_the_checkpoint_before_is_used(run, kind, harm):
    path = max((run / "checkpoints" / "3").glob(kind), key=lambda p: p.stat().st_size)
    damage(path, harm)
    warnings = []
    step, items, position = runs.restore_latest(run, abstract(state(2)), warnings.append)
    assert (step, position["step"]) == (2, 2)
    same(items, state(2))
    assert len(warnings) == 1
    assert "checkpoint 3 is damaged" in warnings[0]
    assert path.name in warnings[0]
    assert "\n" not in warnings[0]
    with pytest.raises(runs.DamagedError, match="checkpoint 3 is damaged"):
        runs.restore(run, 3, abstract(state(3)))


def test_all_damaged(run):
    for path in run.glob("checkpoints/*/checkpoint.json"):
        damage(path, "cut")
    warnings = []
    with pytest.raises(InputError, match="all 3 checkpoints are damaged"):
        runs.restore_latest(run, abstract(state(1)), warnings.append)
    assert [w.split(" is damaged")[0][-1] for w in warnings] == ["3", "2", "1"]
    with (
        pytest.raises(InputError, match="all 3 checkpoints are damaged"),
        pytest.warns(UserWarning, match="is damaged"),
    ):
        checkpoints.parse(f"run:{run}")


def test_no_checkpoint_yet(tmp_path):
    folder = start(tmp_path / "run")
    assert runs.restore_latest(folder, abstract(state(1)), pytest.fail) is None
    with pytest.raises(InputError, match="no checkpoint yet"):
        checkpoints.load(f"run:{folder}")


def test_resume_sets_damaged_ones_aside_and_goes_on(run):
    damage(max(run.glob("checkpoints/3/params/ocdbt.process_0/d/*")), "flip")
    warnings = []
    with runs.Checkpoints(run, runs.Retention(powers_of_two=False)) as writer:
        step, items, _ = writer.resume(abstract(state(2)), warnings.append)
        assert (step, len(warnings)) == (2, 1)
        assert runs.steps(run) == [1, 2]
        writer.save(3, items, {})
        writer.save(5, items, {})
    assert runs.steps(run) == [3, 5]
    same(runs.restore(run, 3, items)[0], items)


def test_saving_over_a_step_that_is_there(run):
    """A whole one stays, a damaged one is replaced."""
    damage(run / "checkpoints" / "2" / "params" / "_METADATA", "cut")
    for _ in range(2):
        write_other(run)
        same(runs.restore(run, 1, abstract(state(1)))[0], state(1))
        same(runs.restore(run, 2, abstract(state(7)))[0], state(7))
    assert runs.steps(run) == [1, 2, 3]


def write_other(run):
    with runs.Checkpoints(run, EVERYTHING) as writer:
        for step in (1, 2):
            writer.save(step, state(7), {})


# Unfinished and failed saves


def test_what_a_killed_process_left_is_invisible_and_removed(run):
    parent = run / "checkpoints"
    shutil.copytree(parent / "3", parent / ".saving" / "4")
    shutil.copytree(parent / "3", parent / ".saving" / "5.orbax-checkpoint-tmp")
    shutil.copytree(parent / "3", parent / ".deleted" / "0")
    (parent / "7").write_text("not a folder")
    assert runs.steps(run) == [1, 2, 3]
    assert runs.restore_latest(run, abstract(state(3)), pytest.fail)[0] == 3
    with runs.Checkpoints(run, EVERYTHING):
        assert not (parent / ".saving").exists()
        assert not (parent / ".deleted").exists()


@pytest.mark.parametrize("place", ["orbax", "seal", "rename"])
def test_a_full_disk_leaves_the_checkpoints_before_it(run, monkeypatch, place):
    full = OSError(28, "No space left on device", "somewhere")
    target = {
        "orbax": (saving, "_write"),
        "seal": (saving.manifest, "seal"),
        "rename": (saving.os, "rename"),
    }[place]

    def fail(*args, **options):
        raise full

    monkeypatch.setattr(*target, fail)
    with runs.Checkpoints(
        run, runs.Retention(powers_of_two=False, last=1), asynchronous=False
    ) as writer:
        with pytest.raises(InputError) as caught:
            writer.save(4, state(4), {})
        assert (
            "checkpoint 4 could not be written: No space left on device; those before it are whole"
            in str(caught.value)
        )
        assert "\n" not in str(caught.value)
        assert runs.steps(run) == [1, 2, 3]
        assert not (run / "checkpoints" / ".saving").exists()
        monkeypatch.undo()
        writer.save(4, state(4), {})
    assert runs.steps(run) == [4]


def test_a_failure_in_the_background_comes_with_the_next_call(run, monkeypatch):
    monkeypatch.setattr(
        saving.manifest,
        "seal",
        lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    writer = runs.Checkpoints(run, EVERYTHING)
    writer.save(4, state(4), {})
    with pytest.raises(InputError, match="checkpoint 4 could not be written"):
        writer.save(5, state(5), {})
    writer.save(6, state(6), {})
    with pytest.raises(InputError, match="checkpoint 6 could not be written"):
        writer.close()


def test_saving_is_in_the_background(run, monkeypatch):
    gate, seal = threading.Event(), saving.manifest.seal
    monkeypatch.setattr(saving.manifest, "seal", lambda *a: gate.wait(60) and seal(*a))
    with runs.Checkpoints(run, EVERYTHING) as writer:
        writer.save(4, state(4), {})
        assert runs.steps(run) == [1, 2, 3]
        gate.set()
        writer.wait()
        assert runs.steps(run) == [1, 2, 3, 4]


def test_an_error_of_the_block_is_not_hidden_by_one_of_the_save(run, monkeypatch):
    monkeypatch.setattr(
        saving.manifest, "seal", lambda *a: (_ for _ in ()).throw(OSError(28, "full"))
    )

    def interrupted():
        with runs.Checkpoints(run, EVERYTHING) as writer:
            writer.save(4, state(4), {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_a_position_that_is_no_json_fails_at_once(run):
    with runs.Checkpoints(run, EVERYTHING) as writer, pytest.raises(TypeError):
        writer.save(4, state(4), {"data": np.ones(3)})
    assert runs.steps(run) == [1, 2, 3]


def test_nothing_is_said_on_stderr(run, capfd):
    write(run, 4, 5, retention=runs.Retention(last=1))
    checkpoints.load(f"run:{run}")
    runs.restore(run, 5, abstract(state(5)))
    assert capfd.readouterr() == ("", "")


# Retention


@pytest.mark.parametrize(
    "retention, left",
    [
        (runs.Retention(), [0, 1, 2, 4, 8, 10, 11]),
        (runs.Retention(every=5, powers_of_two=False, last=1), [0, 5, 10, 11]),
        (runs.Retention(powers_of_two=False, last=3), [9, 10, 11]),
        (runs.Retention(every=1), list(range(12))),
    ],
)
def test_retention_one_at_a_time_keeps_what_it_would_keep_at_once(retention, left):
    there = []
    for step in range(12):
        there = retention.kept([*there, step])
        assert step in there
    assert there == left == retention.kept(range(12))


def test_old_checkpoints_go_once_the_new_one_is_there(run, monkeypatch):
    seen, rename = [], saving.os.rename
    monkeypatch.setattr(
        saving.os,
        "rename",
        lambda a, b: (seen.append((Path(a).name, Path(b).parent.name)), rename(a, b)),
    )
    write(run, 6, 7, retention=runs.Retention(powers_of_two=False, last=2))
    seen = [
        (name, parent) for name, parent in seen if parent in ("checkpoints", ".deleted")
    ]  # the others are Orbax's
    assert seen[0] == ("6", "checkpoints")
    assert sorted(seen[1:3]) == [("1", ".deleted"), ("2", ".deleted")]
    assert seen[3:] == [("7", "checkpoints"), ("3", ".deleted")]
    assert runs.steps(run) == [6, 7]
    assert sorted(
        p.name for p in (run / "checkpoints").iterdir() if not p.name.startswith(".")
    ) == ["6", "7"]


@pytest.mark.parametrize("options", [{"last": 0}, {"every": 0}])
def test_impossible_retention(options):
    with pytest.raises(InputError, match="use "):
        runs.Retention(**options)


# References


def test_a_reference_to_a_step(run):
    loaded = checkpoints.load(f"run:{run}@2")
    assert (loaded.name, loaded.step, loaded.model.config) == ("small", 2, MODEL)
    same(loaded.params, state(2)["params"])
    assert loaded.tokenizer.encode("é").tolist() == [195, 169]
    assert checkpoints.load(checkpoints.Reference("run", str(run))).step == 3


@pytest.mark.parametrize(
    "what, expected",
    [
        ("", [3]),
        ("@*", [1, 2, 3]),
        ("@2", [2]),
        ("@3,1", [3, 1]),
        ("@2..100", [2, 3]),
        ("@step1..step2,*", [1, 2, 3]),
    ],
)
def test_a_run_is_a_series(run, what, expected):
    found = checkpoints.series(f"run:{run}{what}")
    assert [r.step for r in found] == expected
    assert {r.name for r in found} == {"small"}
    assert str(found[0]) == f"run:{run}@{expected[0]}"


def test_without_a_step_it_is_the_last_one_whose_parameters_are_whole(run):
    damage(run / "checkpoints" / "3" / "optimizer" / "_METADATA", "flip")
    assert checkpoints.parse(f"run:{run}").step == 3
    damage(run / "checkpoints" / "3" / "params" / "_METADATA", "flip")
    with pytest.warns(UserWarning, match="checkpoint 3 is damaged"):
        assert checkpoints.parse(f"run:{run}").step == 2
    with pytest.raises(
        InputError, match="checkpoint 3 is damaged: params/_METADATA has other bytes"
    ):
        checkpoints.load(f"run:{run}@3")


@pytest.mark.parametrize(
    "what, words",
    [
        ("small@4", "has no checkpoint of step 4; there are 1, 2, 3"),
        ("small@4..9", "has no checkpoint with a step in 4..9"),
        ("small@last", "'last' is not a step of a run"),
        ("other", "is not a run: no such folder"),
        ("small/checkpoints", "is not a run: it has no run.json"),
    ],
)
def test_bad_references_to_runs(run, what, words):
    with pytest.raises(InputError) as caught:
        checkpoints.load(f"run:{run.parent / what}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_nearest_of_many(run):
    for step in range(4, 40, 3):
        shutil.copytree(run / "checkpoints" / "1", run / "checkpoints" / str(step))
    with pytest.raises(InputError, match=r"no checkpoint of step 20; the nearest of 15: 19, 22"):
        checkpoints.load(f"run:{run}@20")


def test_parameters_of_another_model_are_refused(tmp_path):
    folder = start(tmp_path / "run", dataclasses.replace(MODEL, depth=2))
    write(folder, 1)
    with pytest.raises(InputError, match=r"params/blocks/.* is of another configuration"):
        checkpoints.load(f"run:{folder}")


def test_half_precision_parameters_are_loaded_as_float32(tmp_path):
    folder = start(tmp_path / "run")
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state(1)["params"])
    with runs.Checkpoints(folder, EVERYTHING) as writer:
        writer.save(1, {"params": params}, {})
    same(
        checkpoints.load(f"run:{folder}").params,
        jax.tree.map(lambda x: x.astype(jnp.float32), params),
    )


def test_a_step_is_exported(run, tmp_path):
    loaded = checkpoints.load(f"run:{run}@3")
    checkpoints.export(loaded.model, loaded.params, loaded.tokenizer, tmp_path / "out")
    again = checkpoints.load(f"dir:{tmp_path / 'out'}")
    same(again.params, loaded.params)
    ids = jnp.asarray(loaded.tokenizer.encode("one two")[None])
    logits = functools.partial(models.logits, tokens=ids)
    same(logits(again.model, again.params), logits(loaded.model, loaded.params))


def test_orbax_itself_reads_the_parameters(run):
    ocp = pytest.importorskip("orbax.checkpoint")
    manager = ocp.CheckpointManager(run / "checkpoints")
    assert manager.all_steps() == [1, 2, 3]
    like = abstract(state(2)["params"])
    found = manager.restore(2, args=ocp.args.Composite(params=ocp.args.StandardRestore(like)))
    same(found["params"], state(2)["params"])
