"""The same run on one device, on eight, and on two hosts of four."""

import shutil
import signal
import socket
import time

import numpy as np
import pytest

from lmdyn import checkpoints, data, metrics, online
from lmdyn.checkpoints import runs
from lmdyn.models import ModelConfig
from lmdyn.training import distributed, make_mesh, shard, sharding, train
from tests.training import cases

MODEL = ModelConfig(
    vocab=264, width=24, depth=2, heads=4, kv_heads=2, head_width=6, mlp_width=32, positions=32
)
RUN = dict(model=MODEL, steps=20, data__batch=8, accumulate=1, evaluation=None, checkpoints__save=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    cases.write_texts(folder)
    train(cases.config(folder, out=str(folder / "one"), **RUN))
    return folder


def losses(out):
    return np.array([line["loss"] for line in cases.lines(out)])


@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_losses_are_those_of_one_device(folder, mesh):
    out = str(folder / "x".join(map(str, mesh)))
    train(cases.config(folder, out=out, mesh=mesh, **RUN))
    wanted = losses(folder / "one")
    assert len(wanted) == 20
    np.testing.assert_allclose(losses(out), wanted, rtol=1e-5)


def test_accumulation_on_a_mesh(folder):
    out = str(folder / "accumulated")
    train(cases.config(folder, out=out, mesh=(2, 2, 1), **RUN | {"accumulate": 2}))
    np.testing.assert_allclose(losses(out), losses(folder / "one"), rtol=1e-5)


def test_parameters_and_moments_are_divided(folder):
    from lmdyn.training.prepare import prepare

    whole = prepare(cases.config(folder, out="unused", **RUN)).first()
    divided = prepare(cases.config(folder, out="unused", mesh=(1, 4, 2), **RUN)).first()
    (total,) = sharding.bytes_per_device((whole.params, whole.optimizer)).values()
    each = sharding.bytes_per_device((divided.params, divided.optimizer))
    assert len(each) == 8
    assert max(each.values()) < total / 8 * 1.1  # norms lie whole on every device


@pytest.mark.parametrize("mesh", [((2, 2, 2), (1, 1, 1)), ((1, 1, 1), (2, 4, 1))])
def test_a_checkpoint_goes_on_another_mesh(folder, mesh):
    out = folder / f"moved{mesh[0][0]}"
    train(cases.config(folder, out=str(out), mesh=mesh[0], **RUN))
    for step in runs.steps(out):
        if step > 10:
            shutil.rmtree(out / "checkpoints" / str(step))
    start = max(runs.steps(out))
    assert 0 < start <= 10
    said = []
    train(cases.config(folder, out=str(out), mesh=mesh[1], **RUN), say=said.append)
    assert f"resuming at step {start} of 20" in said[0]
    np.testing.assert_allclose(losses(out), losses(folder / "one"), rtol=1e-5)


def test_measuring_and_adapting_run_divided(folder):
    loaded = checkpoints.load(f"run:{folder / 'one'}@20")
    mesh = make_mesh((2, 2, 2))
    model, params = (
        sharding.spread(loaded.model, mesh),
        shard(loaded.params, mesh, loaded.model.config),
    )
    held_out = f"text:{folder}/held_out.txt"
    batches = data.batches(held_out, loaded.tokenizer, 16, 8, 128)
    watch = metrics.build(
        "nll,knowledge_entropy,attention_entropy,prediction_entropy,anisotropy,singular_entropy"
    )
    one = metrics.measure(watch, loaded.model, loaded.params, batches)
    many = metrics.measure(watch, model, params, batches, sharding=sharding.batch_sharding(mesh))
    for name in one:
        for a, b in zip(one[name].rows(), many[name].rows(), strict=True):
            assert abs(a["value"] - b["value"]) <= 1e-5 * abs(a["value"]), (name, a, b)
    import optax

    mesh = make_mesh((1, 4, 2))
    docs = data.tokenize(held_out, loaded.tokenizer)
    run = lambda params: (
        online.evaluate(
            loaded.model,
            params,
            docs,
            optax.sgd(0.1),
            online.OnlineConfig(chunk=16, tokens=64, end_of_text=256),
        ).nll
    )
    np.testing.assert_allclose(
        run(shard(loaded.params, mesh, loaded.model.config)), run(loaded.params), rtol=1e-5
    )


def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_hosts(path, mesh="2,2,2"):
    coordinator = f"127.0.0.1:{port()}"
    options = ("--mesh", mesh, "--coordinator", coordinator, "--processes", 2, "--process")
    return [cases.start(path, *options, host, devices=4) for host in range(2)]


def end(processes, seconds=240):
    return [process.communicate(timeout=seconds)[1] for process in processes]


@pytest.mark.slow
def test_two_hosts_give_the_same_and_end_and_go_on_together(folder):
    path, out = (
        cases.write_config(folder, **RUN | {"out": str(folder / "hosts"), "model": None}),
        folder / "hosts",
    )
    path.write_text(path.read_text().replace("'model': None", f"'model': cases.{MODEL!r}"))
    hosts = start_hosts(path)
    said = end(hosts)
    assert [host.returncode for host in hosts] == [0, 0], said
    np.testing.assert_allclose(losses(out), losses(folder / "one"), rtol=1e-5)

    # killed: the other ends too, and says so
    shutil.rmtree(out)
    long = path.with_name("long.py")
    long.write_text(path.read_text().replace("'steps': 20", "'steps': 3000"))
    hosts = start_hosts(long)
    wait(lambda: newest(out) >= 10, hosts)
    hosts[1].kill()
    killed = time.monotonic()
    said = end(hosts)
    assert time.monotonic() - killed < 60
    assert hosts[0].returncode == distributed.LOST
    assert "host 1 of 2 was lost at step" in said[0].strip().splitlines()[-1]
    reached = newest(out)

    # started again, they go on; SIGTERM to one of them saves and ends both
    hosts = start_hosts(long)
    wait(lambda: newest(out) >= reached + 10, hosts)
    hosts[1].send_signal(signal.SIGTERM)
    said = end(hosts)
    assert [host.returncode for host in hosts] == [0, 0], said
    assert f"resuming at step {reached} of 3000" in said[0]
    assert f"stopped by SIGTERM at step {newest(out)} of 3000" in said[0]


def newest(out):
    try:
        return max(runs.steps(out), default=-1)
    except ValueError:
        return -1


def wait(condition, hosts, seconds=200):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        assert all(host.poll() is None for host in hosts), end(hosts)
        time.sleep(0.05)
