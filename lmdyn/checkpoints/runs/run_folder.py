"""The folder of a run: what is fixed at its start, and which checkpoints it has."""

import bisect
import dataclasses
import json
import os
import re
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lmdyn.checkpoints.runs import manifest
from lmdyn.checkpoints.runs.processes import shared
from lmdyn.data import tokenizers
from lmdyn.errors import InputError
from lmdyn.files import atomic_write_all
from lmdyn.models import ModelConfig, RotaryScaling
from lmdyn.types import PathLike

RUN_FORMAT = 1
_VOCABULARY = (".model", ".tiktoken", "tokenizer.json", "vocab.json", "merges.txt")
_STEP = re.compile(r"0|[1-9]\d{0,17}")


class RunInfo(NamedTuple):
    """What does not change during a run. Made by `describe`."""

    model: ModelConfig
    tokenizer: tokenizers.Tokenizer
    config: Any
    """JSON, as the trainer gave it (tuples have become lists)."""
    data: Any
    """JSON: what identifies the data."""


def create(
    folder: PathLike, *, model: ModelConfig, tokenizer: tokenizers.Tokenizer, config: Any, data: Any
) -> None:
    """Starts a run: `run.json` and `tokenizer.json` in `folder`, both or none.

    Args:
      folder: created if missing; must not be a run yet.
      model: its architecture.
      tokenizer: what the data are tokenised with.
      config: any JSON.
      data: any JSON.

    Raises:
      InputError: the folder is a run already, or cannot be written.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> create(
    ...     folder,
    ...     model=tiny,
    ...     tokenizer=tokenizers.byte_tokenizer(),
    ...     config={"steps": 100},
    ...     data={"ref": "builtin:docs"},
    ... )
    >>> describe(folder).model == tiny, describe(folder).config, steps(folder)
    (True, {'steps': 100}, [])
    """
    folder = Path(folder)
    text = tokenizer.to_json()
    content = {
        "format": RUN_FORMAT,
        "model": dataclasses.asdict(model),
        "tokenizer": {
            "name": tokenizer.name,
            "end_of_text": tokenizer.end_of_text,
            "bos": tokenizer.bos,
            "eos": tokenizer.eos,
            "bos_rule": tokenizer.bos_rule,
            "files": {
                k: v.decode(errors="surrogateescape")
                for k, v in tokenizer.files.items()
                if not k.endswith(_VOCABULARY)
            },
            "checksum": f"{zlib.crc32(text.encode()):08x}",
        },
        "config": config,
        "data": data,
    }

    def write():
        if (folder / "run.json").exists():
            raise InputError(f"{folder} is a run already; resume it, or choose another folder")
        if folder.is_dir() and _numbers(folder):
            raise InputError(f"{folder} holds checkpoints but no run.json; choose another folder")
        try:
            atomic_write_all(
                {folder / "tokenizer.json": text, folder / "run.json": manifest.signed(content)}
            )
        except OSError as err:
            raise InputError(
                f"{folder} cannot be written: {err.strerror}; choose another folder"
            ) from err

    shared(write)


def describe(folder: PathLike) -> RunInfo:
    """What was fixed at the start of a run.

    Raises:
      InputError: the folder is not a run, its files are damaged, or of another version.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> create(
    ...     folder,
    ...     model=tiny,
    ...     tokenizer=tokenizers.byte_tokenizer(),
    ...     config={"steps": 100},
    ...     data={},
    ... )
    >>> describe(folder).tokenizer.name, describe(folder).model.width
    ('bytes', 6)
    """
    folder = Path(folder)
    content = _content(folder)
    try:
        values = dict(content["model"])
        if values.get("rotary_scaling") is not None:
            values["rotary_scaling"] = RotaryScaling(**values["rotary_scaling"])
        model = ModelConfig(**values)
        about = content["tokenizer"]
        tokenizer = _tokenizer(folder, about)
        return RunInfo(model, tokenizer, content["config"], content["data"])
    except (KeyError, TypeError) as err:
        raise InputError(
            f"{folder / 'run.json'} was written by another version of lmdyn: {err}; use that one"
        ) from err


def _check_run(folder: Path) -> None:
    """Raises an `InputError` for a folder that is not a run."""
    _content(folder)


def _content(folder: Path) -> dict:
    """The content of `run.json`; an `InputError` where there is none."""
    path = folder / "run.json"
    if not path.is_file():
        missing = "it has no run.json" if folder.exists() else "no such folder"
        model = (folder / "config.json").is_file()
        remedy = f"write dir:{folder}" if model else "name the folder that a training run wrote"
        raise InputError(f"{folder} is not a run: {missing}; {remedy}")
    try:
        content = manifest.read_signed(path)
    except manifest.DamagedError as err:
        raise InputError(f"{folder}: {err}; put a copy back") from err
    if content.get("format") != RUN_FORMAT:
        raise InputError(
            f"{path} has format {content.get('format')}; this version reads {RUN_FORMAT}: update"
            " lmdyn"
        )
    return content


def _tokenizer(folder: Path, about: Mapping) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    try:
        found = f"{zlib.crc32(path.read_bytes()):08x}"
    except OSError as err:
        raise InputError(f"{path} cannot be read: {err.strerror}; put a copy back") from err
    if found != about["checksum"]:
        raise InputError(f"{path} has other bytes than were written; put a copy back")
    roles = (about.get("bos"), about.get("eos"))
    tokenizer = tokenizers.from_file(path, about["end_of_text"], about["name"], *roles)
    files = {
        name: text.encode(errors="surrogateescape") for name, text in about.get("files", {}).items()
    }
    # Runs that name no bos token are of versions that never put one.
    old = "auto" if "bos" in about else "none"
    return dataclasses.replace(tokenizer, files=files, bos_rule=about.get("bos_rule", old))


def record(folder: PathLike, provenance: Mapping) -> None:
    """Adds a line to `provenance.jsonl`: who started this process, with what.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> create(folder, model=tiny, tokenizer=tokenizers.byte_tokenizer(), config={}, data={})
    >>> record(folder, {"command": ["lmdyn", "train"]})
    """
    line = json.dumps(provenance) + "\n"

    def append():
        path = Path(folder, "provenance.jsonl")
        try:
            with path.open("a+b") as file:
                end = file.tell()
                # A process that was killed while it wrote has left a piece of a line.
                torn = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
                try:
                    file.write(b"\n" * torn + line.encode())
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as err:
            raise InputError(
                f"{path} cannot be written: {err.strerror}; free some space or choose another"
                " folder"
            ) from err

    shared(append)


def steps(folder: PathLike) -> list[int]:
    """The steps of the checkpoints of a run, sorted. Unfinished ones do not count; damaged ones do.

    Raises:
      InputError: the folder is not a run.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> create(folder, model=tiny, tokenizer=tokenizers.byte_tokenizer(), config={}, data={})
    >>> for name in ("8", "20", ".saving"):
    ...     (folder / "checkpoints" / name).mkdir(parents=True)
    >>> steps(folder)
    [8, 20]
    """
    _check_run(Path(folder))
    return _numbers(Path(folder))


def _numbers(folder: Path) -> list[int]:
    parent = folder / "checkpoints"
    if not parent.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in os.scandir(parent)
        if _STEP.fullmatch(entry.name) and entry.is_dir()
    )


def latest(folder: PathLike) -> int:
    """The step of the last checkpoint whose parameters are whole.

    `warnings` list damaged ones after it.

    Raises:
      InputError: the folder is not a run, or has no whole checkpoint.

    >>> import tempfile
    >>> import numpy as np
    >>> from lmdyn.checkpoints import runs
    >>> folder = Path(tempfile.mkdtemp())
    >>> tiny = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> create(folder, model=tiny, tokenizer=tokenizers.byte_tokenizer(), config={}, data={})
    >>> with runs.Checkpoints(folder, runs.Retention(every=1)) as writer:
    ...     for step in (8, 20):
    ...         writer.save(step, {"params": {"w": np.ones(3)}}, {"step": step, "data": None})
    >>> latest(folder)
    20
    """
    found = steps(folder)
    if not found:
        raise InputError(f"{folder} has no checkpoint yet; train it further")
    for step in reversed(found):
        try:
            manifest.check(checkpoint(folder, step), ("params",))
        except manifest.DamagedError as err:
            warnings.warn(
                f"{folder}: checkpoint {step} is damaged: {err}; using the one before it",
                stacklevel=2,
            )
            continue
        return step
    raise InputError(
        f"{folder}: all {len(found)} checkpoints are damaged; put a copy back, or train it again"
    )


def checkpoint(folder: PathLike, step: int) -> Path:
    """The folder of a checkpoint.

    >>> checkpoint("out/run", 20).as_posix()
    'out/run/checkpoints/20'
    """
    return Path(folder, "checkpoints", str(step))


def require(folder: PathLike, step: int) -> Path:
    """The folder of a checkpoint that is there.

    Raises:
      InputError: there is none of that step; names the nearest.

    >>> require("/nowhere", 20)
    Traceback (most recent call last):
    lmdyn.errors.InputError: /nowhere is not a run: no such folder; name the folder that a training
    run wrote
    """
    found = steps(folder)
    if step in found:
        return checkpoint(folder, step)
    if not found:
        raise InputError(f"{folder} has no checkpoint yet; train it further")
    if len(found) <= 8:
        there = f"there {'is' if len(found) == 1 else 'are'} {', '.join(map(str, found))}"
    else:
        place = bisect.bisect(found, step)
        there = (
            f"the nearest of {len(found)}:"
            f" {', '.join(map(str, found[max(place - 1, 0) : place + 1]))}"
        )
    raise InputError(f"{folder} has no checkpoint of step {step}; {there}")
