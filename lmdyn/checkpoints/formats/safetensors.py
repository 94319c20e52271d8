"""Hugging Face folders and the hub: `config.json` and safetensors into our parameters. Pickles are
never opened.
"""

import json
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import ml_dtypes  # noqa: F401  (teaches numpy, and so safetensors, bfloat16)
import numpy as np
import safetensors

from lmdyn.checkpoints.assemble import Source, assemble
from lmdyn.checkpoints.families import HEADS, IGNORED, family
from lmdyn.checkpoints.hf_config import read_config
from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig
from lmdyn.types import PathLike

_FLOATS = ("F64", "F32", "F16", "BF16")
TOKENIZER = ("config.json", "tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt")
_PATTERNS = ("*.safetensors", "*.json", "tokenizer*", "merges.txt")


class Checkpoint(NamedTuple):
    """What a file holds: the architecture and its parameters (a nested dict of float32 JAX arrays)."""

    config: ModelConfig
    params: dict


def read_folder(folder: PathLike) -> Checkpoint:
    """The model of a Hugging Face folder: `config.json`, and `model.safetensors` or its shards with
    their index.

    float16, bfloat16 and float64 tensors become float32.

    Raises:
      InputError: a file is missing, damaged, a pickle, or does not fit its config.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    values = read_json(folder / "config.json")
    config = read_config(values)
    entry = family(values["model_type"])
    source = _source(folder, _weight_files(folder), entry.prefix)
    ignored = IGNORED + (tuple(re.escape(name) for name in HEADS) if config.tied_head else ())
    return Checkpoint(config, assemble(config, entry.rules, source, ignored))


def read_json(path: pathlib.Path) -> dict:
    """A JSON object from a file; an `InputError` if there is none."""
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


def _source(folder: pathlib.Path, files: list[pathlib.Path], prefix: str) -> Source:
    """Every tensor of the files by its name without the model's prefix; nothing is read but the
    headers.
    """
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

    return Source(str(folder), shapes, read)


def download(
    repository: str, revision: str | None = None, patterns: Sequence[str] = _PATTERNS
) -> pathlib.Path:
    """The local folder of a hub repository's revision: from the cache, or fetched into it
    (safetensors, no pickles).

    `patterns` says which files; `TOKENIZER` leaves the weights out.

    Honours what `huggingface_hub` does: `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_TOKEN`.

    Raises:
      InputError: the extra `hub` is not installed, there is no such repository or revision, or the
        hub is out of reach.
    """
    hub = _hub()
    try:
        return pathlib.Path(
            hub.snapshot_download(repository, revision=revision, allow_patterns=list(patterns))
        )
    except Exception as err:
        raise _translated(err, repository, revision) from err


def revisions(repository: str) -> list[str]:
    """The names of a hub repository's branches and tags; without a network, those in the cache.

    Raises:
      InputError: as `download`.
    """
    hub = _hub()
    try:
        refs = hub.list_repo_refs(repository)
        return [ref.name for ref in (*refs.branches, *refs.tags)]
    except Exception as err:
        cached = pathlib.Path(
            hub.constants.HF_HUB_CACHE, "models--" + repository.replace("/", "--"), "refs"
        )
        names = [str(p.relative_to(cached)) for p in cached.rglob("*") if p.is_file()]
        if names and not isinstance(err, hub.errors.RepositoryNotFoundError):
            return names
        raise _translated(err, repository, None) from err


def _hub():
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as err:
        raise InputError("hf: references need huggingface_hub; pip install lmdyn[hub]") from err
    return huggingface_hub


def _translated(err: Exception, repository: str, revision: str | None) -> InputError:
    errors = _hub().errors
    where = f"hf:{repository}" + (f"@{revision}" if revision else "")
    if isinstance(err, errors.GatedRepoError):
        return InputError(
            f"{where} is gated; accept its terms on the hub and log in with `hf auth login`"
        )
    if isinstance(err, errors.RevisionNotFoundError):
        return InputError(f"{where}: no such revision; `hf:{repository}@*` takes all there are")
    if isinstance(err, errors.RepositoryNotFoundError):
        return InputError(
            f"{where}: no such repository on the hub, or it is private and needs `hf auth login`"
        )
    if isinstance(err, errors.HFValidationError):
        return InputError(f"{where}: not a repository name; write hf:ORG/NAME[@REVISION]")
    if isinstance(err, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return InputError(
            f"{where} is not in the cache, and the hub is out of reach or HF_HUB_OFFLINE is set"
        )
    reason = " ".join(str(err).split())[:200] or type(err).__name__
    return InputError(f"{where} could not be fetched: {reason}")
