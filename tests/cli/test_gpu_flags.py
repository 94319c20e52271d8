"""XLA's flags for GPUs: where they are set, and that this XLA knows them."""

import os
import subprocess
import sys

import pytest

from lmdyn.cli import gpu_flags


@pytest.fixture
def with_gpu(monkeypatch):
    monkeypatch.setattr(gpu_flags, "_has_plugin", lambda: True)
    monkeypatch.setattr(gpu_flags, "_has_device", lambda: True)


WANTED = [f"--{name}={value}" for name, value in gpu_flags.FLAGS.items()]


@pytest.mark.parametrize(
    "given, kept",
    [
        ({}, ""),
        ({"XLA_FLAGS": "--xla_dump_to=x"}, "--xla_dump_to=x"),
        ({"JAX_PLATFORMS": "cuda,cpu"}, ""),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ""),
    ],
)
def test_they_are_set_for_a_gpu(with_gpu, given, kept):
    environment = dict(given)
    assert gpu_flags.set_gpu_flags(environment)
    assert environment["XLA_FLAGS"].split() == [*kept.split(), *WANTED]


@pytest.mark.parametrize(
    "given",
    [
        {"XLA_FLAGS": "--xla_gpu_autotune_level=0"},
        {"JAX_PLATFORMS": "cpu"},
        {"JAX_PLATFORMS": "tpu,cpu"},
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "-1"},
    ],
)
def test_they_are_left_alone_where_others_decide(with_gpu, given):
    environment = dict(given)
    assert not gpu_flags.set_gpu_flags(environment)
    assert environment == given


def test_they_are_not_set_without_a_gpu(monkeypatch):
    monkeypatch.setattr(gpu_flags, "_has_plugin", lambda: True)
    monkeypatch.setattr(gpu_flags, "_has_device", lambda: False)
    environment = {}
    assert not gpu_flags.set_gpu_flags(environment)
    assert environment == {}


def test_a_flag_that_xla_does_not_know_is_left_out(with_gpu, monkeypatch):
    monkeypatch.setattr(gpu_flags, "FLAGS", {"xla_gpu_no_such_flag": "true", **gpu_flags.FLAGS})
    environment = {}
    assert gpu_flags.set_gpu_flags(environment)
    assert environment["XLA_FLAGS"].split() == WANTED


def test_this_xla_accepts_them():
    """XLA ends the process at a flag or value that it does not know, on a CPU as well."""
    program = "import jax.numpy as jnp; print(float(jnp.ones(2).sum()))"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "XLA_FLAGS": " ".join(WANTED)},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "2.0"), ended.stderr[-500:]


def test_the_provenance_says_the_flags(monkeypatch):
    from lmdyn.records import provenance

    monkeypatch.setenv("XLA_FLAGS", " ".join(WANTED))
    assert provenance.collect([], {}, 0.0, 0)["xla_flags"] == WANTED
