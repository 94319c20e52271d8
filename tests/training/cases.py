"""A run small enough for tests, as an object and as a config file."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import jax
import numpy as np

from lmdyn.checkpoints import runs
from lmdyn.models import ModelConfig
from lmdyn.training import CheckpointPolicy, Data, Evaluation, Optimizer, Source, TrainConfig

TEXT = "The quick brown fox {} jumps over the lazy dog {}; {} again.\n"


def write_texts(folder):
    """Texts to train on and to hold out."""
    for name, count in (("train", 60), ("held_out", 9)):
        (folder / f"{name}.txt").write_text(
            "".join(TEXT.format(i * 7 % 23, i % 5, name) for i in range(count)), encoding="utf-8"
        )


def config(folder, **changes) -> TrainConfig:
    """A run of 12 steps on texts in `folder`; its parts' fields are changed as `data__batch=4`."""
    model = ModelConfig(
        vocab=257, width=24, depth=2, heads=2, head_width=12, mlp_width=20, positions=32
    )
    made = TrainConfig(
        data=Data(
            sources=(Source(f"text:{folder}/train.txt"),),
            length=16,
            batch=4,
            cache=str(folder / "cache"),
        ),
        steps=12,
        out=str(folder / "run"),
        model=model,
        optimizer=Optimizer(learning_rate=1e-2, warmup=2),
        evaluation=Evaluation(
            f"text:{folder}/held_out.txt", metrics="nll,knowledge_entropy", every=5, tokens=64
        ),
        checkpoints=CheckpointPolicy(save=3, last=2),
        mesh=(1, 1, 1),
        log_every=1,
    )
    parts = {name: value for name, value in changes.items() if "__" not in name}
    for name, value in changes.items():
        part, _, field = name.partition("__")
        if field:
            parts[part] = dataclasses.replace(
                parts.get(part, getattr(made, part)), **{field: value}
            )
    return dataclasses.replace(made, **parts)


def digests(folder) -> dict[int, str]:
    """Every checkpoint's parameters and optimizer state, as bits."""
    found = {}
    for step in runs.steps(folder):
        arrays = runs.read_params(folder, step)
        made = hashlib.sha256()
        for leaf in jax.tree.leaves(arrays):
            made.update(np.asarray(leaf).tobytes())
        found[step] = made.hexdigest()
    return found


def lines(folder, name="log.jsonl") -> list[dict]:
    """The lines of a run's log or rows, without what time it took and what the run is called."""
    timed = ("tokens_per_second", "mfu", "model")
    with open(f"{folder}/{name}", encoding="utf-8") as file:
        return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in file]


def same_runs(one, other) -> None:
    """Asserts that two runs are the same, bit for bit, where both have checkpoints, and in the last
    one.
    """
    first, second = digests(one), digests(other)
    both = sorted(set(first) & set(second))
    assert max(first) == max(second) == both[-1]
    assert {s: first[s] for s in both} == {s: second[s] for s in both}
    assert lines(one) == lines(other)
    assert lines(one, "rows.jsonl") == lines(other, "rows.jsonl")


FILE = """
from tests.training import cases
import pathlib
def config():
    return cases.config(pathlib.Path({folder!r}), **{changes!r})
"""


def write_config(folder, **changes):
    """The same as a config file, for the command line."""
    path = folder / "config.py"
    path.write_text(FILE.format(folder=str(folder), changes=changes))
    return path


def environment(devices: int = 1) -> dict:
    """For processes of the command line, with so many devices each."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return os.environ | {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(path, *options, devices: int = 1, **process) -> subprocess.Popen:
    """`lmdyn train --config path` as a process of its own."""
    command = [sys.executable, "-m", "lmdyn", "train", "--config", str(path), *map(str, options)]
    return subprocess.Popen(
        command,
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **process,
    )
