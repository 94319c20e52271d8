"""What is to be seen on a GPU: `pytest -m gpu` there, which takes less than four minutes.

Everywhere else the same tests run at the same sizes on a CPU, so that they are known to work. The
other side is PyTorch in float32 on the CPU, from the same weights.
"""

import functools
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmdyn import metrics, models, online
from lmdyn.cli.command_line import main
from lmdyn.data import Batch, ProbeBatch
from lmdyn.models.products import matmul
from lmdyn.params import low_rank
from lmdyn.training import fit, train_step
from tests.cli.test_train import write

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "benchmarks"))
import device
import device_jobs

pytestmark = pytest.mark.gpu
ON_CPU = jax.default_backend() == "cpu"
"""What costs compile time, and is tested elsewhere on a CPU, is then shortened."""
REMATS = ("offload",) if ON_CPU else ("none", "dots", "mlp", "attention", "full", "offload")
JOBS = {row[0]: row for row in device_jobs.ROWS}
ROWS = list(JOBS.values()) if ON_CPU else device_jobs.ROWS
SHAPE = {**device_jobs.SMALL, "head_width": 64, "heads": 4, "kv_heads": 2, "positions": 256}
LENGTH = 192


@functools.cache
def theirs(dtype):
    return device_jobs.torch_parity(SHAPE, dtype, LENGTH, "cpu")


@functools.cache
def ours():
    return device_jobs.lmdyn_model(SHAPE, "float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loss_and_gradient_are_pytorchs(dtype):
    found = device_jobs.lmdyn_parity(SHAPE, dtype, LENGTH)
    for name, wanted in theirs("float32").items():
        assert found[name] == pytest.approx(wanted, rel=device.PARITY[dtype]), name


def test_float32_products_are_float32():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 512)), rng.normal(size=(512, 64))
    found = np.asarray(jax.jit(matmul)(np.float32(x), np.float32(y)), np.float64)
    exact = np.float64(np.float32(x)) @ np.float64(np.float32(y))
    # TF32 keeps 10 bits and would be off by 1e-2
    assert np.abs(found - exact).max() < 1e-4


@pytest.mark.parametrize("remat", REMATS)
def test_training_is_the_same_however_it_is_rematerialised(remat):
    model, params = ours()
    model = model.clone(compute=models.Compute(dtype="float32", remat=remat))
    ids = device_jobs.tokens_of(SHAPE, 2, LENGTH + 1)
    batch = Batch(ids[:, :-1], ids[:, 1:], np.ones([2, LENGTH], bool))
    step = jax.jit(train_step.make_step(model, optax.sgd(0.1)))
    state, logged = step(train_step.start(params, optax.sgd(0.1)), batch)
    assert float(logged["loss"]) == pytest.approx(theirs("float32")["nll"], rel=1e-5)
    norm = float(logged["gradient_norm"])
    assert norm == pytest.approx(theirs("float32")["gradient norm"], rel=1e-5)
    moved = jax.tree.map(lambda a, b: jnp.sum(jnp.square(a - b)), state.params, params)
    assert math.sqrt(sum(jax.tree.leaves(moved))) == pytest.approx(0.1 * norm, rel=1e-3)


def test_documents_side_by_side_are_those_alone():
    model, params = ours()
    texts = list(device_jobs.tokens_of(SHAPE, 3, 65))
    config = functools.partial(
        online.OnlineConfig, 16, adapt=low_rank("blocks.mlp", rank=2), reset="document"
    )
    alone = online.evaluate(model, params, texts, optax.adam(1e-2), config())
    together = online.evaluate(model, params, texts, optax.adam(1e-2), config(parallel=3))
    np.testing.assert_allclose(together.nll, alone.nll, rtol=1e-4)
    assert alone.mean == pytest.approx(math.log(SHAPE["vocab"]), rel=0.05)  # random weights


def test_gradients_of_single_sequences_are_pytorchs():
    model, params = ours()
    ids = device_jobs.tokens_of(SHAPE, 2, LENGTH + 1)
    span = np.ones([2, LENGTH], bool)
    probes = ProbeBatch(ids[:, :-1], ids[:, 1:], span, span)
    found = metrics.layer_gradients(model, params, probes, groups=("all",), batch=2)
    assert found.losses.mean() == pytest.approx(theirs("float32")["nll"], rel=1e-5)


def test_a_run_by_the_command_line(tmp_path):
    assert main(["train", "--config", write(tmp_path), "--mesh", "1,1,1"]) == 0
    assert '"xla_flags"' in (tmp_path / "run" / "provenance.jsonl").read_text()


def test_a_step_takes_what_its_compiler_says():
    model, params = ours()
    ids = device_jobs.tokens_of(SHAPE, 2, LENGTH + 1)
    batch = Batch(ids[:, :-1], ids[:, 1:], np.ones([2, LENGTH], bool))
    state = train_step.start(params, optax.sgd(0.1))
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    step = jax.jit(train_step.make_step(model, optax.sgd(0.1)), donate_argnums=0)
    taken, _ = fit.program_bytes(step.lower(state, batch), held)
    assert taken >= held + sum(leaf.nbytes for leaf in jax.tree.leaves(params))  # and gradients
    assert taken < fit.room_here().memory


@pytest.mark.parametrize("job, shape, setting", ROWS, ids=str)
def test_every_row_of_the_benchmark_runs(job, shape, setting):
    given = {**device.shrunk(setting), "dtype": "float32", "device": "cpu"}
    made = [
        *device_jobs.lmdyn_side(device_jobs.SMALL, job, given),
        *device_jobs.torch_side(device_jobs.SMALL, job, given),
    ]
    assert [way.split(",")[0] for way, *_ in made] in (["lmdyn", "eager"], ["lmdyn"])
    for _, tokens, run in made:
        run()
        assert tokens > 0
