"""Hugging Face folders: `config.json` and files of tensors into our parameters."""

import json
import pathlib
import re

import numpy as np

from lmdyn.checkpoints.assemble import Checkpoint, TensorSource, assemble
from lmdyn.checkpoints.families import HEAD_NAMES, IGNORED, family
from lmdyn.checkpoints.formats import pytorch, safetensors
from lmdyn.checkpoints.formats.other_folders import without_config, without_weights
from lmdyn.checkpoints.hf_config import read_config
from lmdyn.errors import InputError
from lmdyn.file_kinds import mismatch
from lmdyn.models.config import ModelConfig
from lmdyn.types import PathLike

_FLOATS = ("F64", "F32", "F16", "BF16")
# Names that `save_pretrained` writes, best first; each may stand for shards with an index.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_PICKLES = (".bin", ".pt", ".pth")
# What trainers put beside the parameters.
_STATES = ("training_args", "optimizer", "scheduler", "rng_state", "scaler", "optim", "train")


def read_folder(folder: PathLike, name: str | None = None) -> Checkpoint:
    """The model of a Hugging Face folder.

    It is read from `config.json`, and from `model.safetensors` or `pytorch_model.bin`, or their
    shards with an index; of PyTorch files nothing is executed (see `formats.pytorch`). float16,
    bfloat16 and float64 tensors become float32.

    Args:
      folder: its path.
      name: of the family; default the `model_type` of its config. See `families.family`.

    Raises:
      InputError: a file is missing, damaged, or does not fit its config.

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
    config = check_folder(folder, name)
    entry = family(name or read_json(folder / "config.json")["model_type"])
    source = _source(folder, weight_files(folder), entry.prefix)
    ignored = IGNORED + (tuple(re.escape(name) for name in HEAD_NAMES) if config.tied_head else ())
    return Checkpoint(config, assemble(config, entry.rules, source, ignored))


def check_folder(folder: pathlib.Path, name: str | None = None) -> ModelConfig:
    """The architecture of a folder that holds a whole model, as far as its files' names say.

    Args:
      folder: its path.
      name: see `read_folder`.

    Raises:
      InputError: it is no such folder; what it is instead, and what to do.

    >>> check_folder(pathlib.Path("/nowhere"))
    Traceback (most recent call last):
    lmdyn.errors.InputError: no such folder: /nowhere
    """
    if folder.is_file():
        meant = f"gguf:{folder}" if folder.suffix == ".gguf" else f"dir:{folder.parent}"
        raise InputError(f"{folder} is a file, and a folder is needed; write {meant}")
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    _refuse_adapter(folder)
    if not (folder / "config.json").is_file():
        raise InputError(without_config(folder))
    values = read_json(folder / "config.json")
    config = read_config(values if name is None else {**values, "model_type": name})
    weight_files(folder)
    return config


def _refuse_adapter(folder: pathlib.Path) -> None:
    """Raises an `InputError` for a folder of the `peft` library, which holds no whole model."""
    path = folder / "adapter_config.json"
    whole = any(p for name in _WEIGHTS for p in folder.glob(f"{name.partition('.')[0]}*"))
    if path.is_file() and not whole:
        base = read_json(path).get("base_model_name_or_path") or "its base model"
        raise InputError(
            f"{folder} holds an adapter for {base}, not a model; merge them first:"
            f" AutoPeftModelForCausalLM.from_pretrained('{folder}').merge_and_unload()"
            ".save_pretrained(OUT)"
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
            f"{path.parent} has no {path.name}; name the folder of a Hugging Face checkpoint"
        ) from err
    except OSError as err:
        raise InputError(f"{path} cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise InputError(mismatch(path, "JSON", str(err))) from err
    if not isinstance(values, dict):
        raise InputError(mismatch(path, "a JSON object", f"it is of type {type(values).__name__}"))
    return values


def weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of a folder that hold the parameters; all are there.

    Raises:
      InputError: there are none, or a shard that the index lists is missing.

    >>> import tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "pytorch_model.bin").touch()
    >>> [path.name for path in weight_files(folder)]
    ['pytorch_model.bin']
    """
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _shards(folder, index)
        if (folder / name).is_file():
            return [folder / name]
    others = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in _PICKLES and not path.name.startswith(_STATES)
    ]
    if len(others) > 1 and not any("-of-" in path.name for path in others):
        raise InputError(
            f"{folder} holds {len(others)} PyTorch files ({others[0].name}, ...), none of them"
            f" named {_WEIGHTS[1]}; give the model's file that name"
        )
    if len(others) != 1 or "-of-" in others[0].name:
        raise InputError(without_weights(folder, _WEIGHTS))
    return others


def _shards(folder: pathlib.Path, index: pathlib.Path) -> list[pathlib.Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise InputError(f"{index} has no weight_map, which lists the shards; fetch it again")
    files = sorted(set(map(str, names.values())))
    for name in files:
        if pathlib.PurePath(name).name != name:
            raise InputError(f"{index.name} of {folder} lists {name}, which is outside the folder")
        if not (folder / name).is_file():
            raise InputError(
                f"{folder}: shard {name} is missing, which {index.name} lists; fetch it"
            )
    return [folder / name for name in files]


def _source(folder: pathlib.Path, files: list[pathlib.Path], prefix: str) -> TensorSource:
    """Every tensor of the files by its name without the model's prefix; none is read."""
    found = {}
    for file in files:
        kind = pytorch if file.suffix in _PICKLES else safetensors
        for name, tensor in kind.read_tensors(file).items():
            short = name.removeprefix(prefix)
            if tensor.type not in _FLOATS and not any(re.fullmatch(p, short) for p in IGNORED):
                raise InputError(
                    f"{file}: tensor {name} has type {tensor.type}, and only {', '.join(_FLOATS)}"
                    " are read; take a checkpoint that is not quantised"
                )
            found[short] = tensor

    def read(short: str, start: int, stop: int) -> np.ndarray:
        return found[short].read(start, stop)

    return TensorSource(str(folder), {name: t.shape for name, t in found.items()}, read)
