"""Hugging Face folders: `config.json` and safetensors into our parameters.

Pickles are never opened.
"""

import json
import pathlib
import re
from typing import NamedTuple

import ml_dtypes  # noqa: F401  (teaches numpy, and so safetensors, bfloat16)
import numpy as np
import safetensors

from lmdyn.checkpoints.assemble import TensorSource, assemble
from lmdyn.checkpoints.families import HEAD_NAMES, IGNORED, family
from lmdyn.checkpoints.hf_config import read_config
from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig
from lmdyn.types import PathLike

_FLOATS = ("F64", "F32", "F16", "BF16")


class Checkpoint(NamedTuple):
    """The contents of a checkpoint: the architecture and its parameters. Made by `read_folder`."""

    config: ModelConfig
    params: dict
    """a nested dict of float32 JAX arrays"""


def read_folder(folder: PathLike, name: str | None = None) -> Checkpoint:
    """The model of a Hugging Face folder.

    It is read from `config.json`, and from `model.safetensors` or its shards with their index.
    float16, bfloat16 and float64 tensors become float32.

    Args:
      folder: its path.
      name: of the family; default the `model_type` of its config. See `families.family`.

    Raises:
      InputError: a file is missing, damaged, a pickle, or does not fit its config.

    >>> import tempfile
    >>> from lmdyn import checkpoints, models
    >>> config = models.ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> folder = tempfile.mkdtemp() + "/tiny"
    >>> checkpoints.export(model, models.init(model), None, folder)
    >>> read_folder(folder).config == model.config
    True
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    refuse_adapter(folder)
    values = read_json(folder / "config.json")
    config = read_config(values if name is None else {**values, "model_type": name})
    entry = family(name or values["model_type"])
    source = _source(folder, _weight_files(folder), entry.prefix)
    ignored = IGNORED + (tuple(re.escape(name) for name in HEAD_NAMES) if config.tied_head else ())
    return Checkpoint(config, assemble(config, entry.rules, source, ignored))


def refuse_adapter(folder: pathlib.Path) -> None:
    """Raises an `InputError` for a folder of the `peft` library, which holds no whole model.

    >>> refuse_adapter(pathlib.Path("/nowhere"))
    """
    path = folder / "adapter_config.json"
    if path.is_file() and not (folder / "config.json").is_file():
        base = read_json(path).get("base_model_name_or_path") or "its base model"
        raise InputError(
            f"{folder} holds an adapter for {base}, not a model; merge them first:"
            " AutoPeftModelForCausalLM.from_pretrained(folder).merge_and_unload()"
            ".save_pretrained(out)"
        )


def read_json(path: pathlib.Path) -> dict:
    """A JSON object from a file; an `InputError` if there is none.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "config.json"
    >>> _ = path.write_text('{"model_type": "gpt2"}')
    >>> read_json(path)
    {'model_type': 'gpt2'}
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise InputError(
            f"{path.parent} has no {path.name}; a Hugging Face checkpoint folder is needed"
        ) from err
    except (OSError, ValueError) as err:
        raise InputError(f"{path} is no JSON: {err}") from err
    if not isinstance(values, dict):
        raise InputError(f"{path} is no JSON object")
    return values


def _weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise InputError(f"{index} has no weight_map")
        files = [folder / str(name) for name in sorted(set(map(str, names.values())))]
        for file in files:
            if not file.is_file():
                raise InputError(f"{folder}: shard {file.name} is missing; {index.name} lists it")
        return files
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    found = (
        f"{folder} holds {pickles[0].name}, a pickle, which is never opened"
        if pickles
        else f"{folder} has no model.safetensors"
    )
    raise InputError(
        f"{found}; convert it: AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder,"
        " safe_serialization=True), or the hub's convert space"
        " (huggingface.co/spaces/safetensors/convert)"
    )


def _source(folder: pathlib.Path, files: list[pathlib.Path], prefix: str) -> TensorSource:
    """Every tensor of the files by its name without the model's prefix; only headers are read."""
    shapes, found = {}, {}
    for file in files:
        try:
            handle = safetensors.safe_open(file, framework="np")
        except Exception as err:  # SafetensorError is an Exception, and OSError may come too
            raise InputError(
                f"{file} is no whole safetensors file: {' '.join(str(err).split())}"
            ) from err
        names = handle.keys()
        for name in names:
            view, short = handle.get_slice(name), name.removeprefix(prefix)
            if view.get_dtype() not in _FLOATS and not any(re.fullmatch(p, short) for p in IGNORED):
                raise InputError(
                    f"{file}: tensor {name} has type {view.get_dtype()}; only {', '.join(_FLOATS)}"
                    " are read"
                )
            shapes[short], found[short] = tuple(view.get_shape()), (handle, name)

    def read(short: str, start: int, stop: int) -> np.ndarray:
        handle, name = found[short]
        return handle.get_slice(name)[start:stop]

    return TensorSource(str(folder), shapes, read)
