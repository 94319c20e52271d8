"""Our parameters to a Hugging Face folder that `transformers` loads with equal logits."""

import contextlib
import json
import math
import pathlib
from collections.abc import Mapping

from lmdyn.checkpoints.assemble import Stored, disassemble
from lmdyn.checkpoints.families import HEAD_NAMES, family
from lmdyn.checkpoints.hf_config import read_config, write_config
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError
from lmdyn.files import atomic_folder, check_new_folder
from lmdyn.models import LanguageModel, ModelConfig
from lmdyn.types import Params, PathLike

SHARD_BYTES = 4 * 2**30
ROLE_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def export(
    model: LanguageModel,
    params: Params,
    tokenizer: Tokenizer | None,
    folder: PathLike,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Writes `config.json`, float32 safetensors, `tokenizer.json` and what goes with them.

    All or nothing, see `lmdyn.files.atomic_folder`. The files that came with the tokenizer are
    written as they were read (roles of tokens, chat template, generation config), and so is
    `config.json` while it describes this model.

    Args:
      model: its config says which family is written.
      params: the model's tree.
      tokenizer: None leaves its files out.
      folder: must not exist, or be empty.
      notes: further files to write into it, name to text.

    Raises:
      InputError: the folder is not empty, the disk is full, or no known family is this model.

    >>> import tempfile
    >>> from lmdyn import models
    >>> from lmdyn.data import tokenizers
    >>> config = models.ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> folder = tempfile.mkdtemp() + "/tiny"
    >>> export(model, models.init(model), tokenizers.byte_tokenizer(), folder)
    >>> sorted(path.name for path in pathlib.Path(folder).iterdir())[:2]
    ['config.json', 'model.safetensors']
    """
    folder = check_new_folder(folder)
    values = _config(model.config, tokenizer)
    try:
        with atomic_folder(folder) as partial:
            _write_weights(model.config, values["model_type"], params, partial)
            _write_json(partial / "config.json", values)
            if tokenizer is not None:
                _write_tokenizer(tokenizer, partial)
            for name, text in (notes or {}).items():
                (partial / name).write_text(text, encoding="utf-8")
    except InputError:
        raise
    except Exception as err:
        reason = getattr(err, "strerror", None) or " ".join(str(err).split())
        raise InputError(
            f"{folder} could not be written: {reason}; nothing was left behind"
        ) from err


def _config(config: ModelConfig, tokenizer: Tokenizer | None) -> dict:
    """`config.json`: the one that was read, if it still describes the model, or a new one."""
    if tokenizer is None:
        return write_config(config)
    source = json.loads(tokenizer.files.get("config.json", b"{}"))
    with contextlib.suppress(InputError):  # of another family, or made of a GGUF's metadata
        if read_config(source) == config:
            values = {key: value for key, value in source.items() if key != "auto_map"}
            dtype = "dtype" if "dtype" in values else "torch_dtype"
            architectures = [family(values["model_type"]).architecture]
            return {**values, "architectures": architectures, dtype: "float32"}
    made = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.end_of_text}
    roles = {k: v for k, v in made.items() if v is not None}
    roles |= {key: source[key] for key in ROLE_IDS if key in source}
    return write_config(config) | roles


def _write_weights(config, name: str, params, folder: pathlib.Path):
    """One `model.safetensors`, or with an index shards of at most `SHARD_BYTES` and one tensor."""
    entry = family(name)
    shards: list[list[Stored]] = [[]]
    size = total = 0
    for stored in disassemble(config, entry.rules, params):
        nbytes = 4 * math.prod(stored.shape)
        if shards[-1] and size + nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        full = stored.name if stored.name in HEAD_NAMES else entry.prefix + stored.name
        shards[-1].append(stored._replace(name=full))
        size, total = size + nbytes, total + nbytes
    if len(shards) == 1:
        _write_shard(folder / "model.safetensors", shards[0])
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for file, shard in zip(names, shards, strict=True):
        _write_shard(folder / file, shard)
    weight_map = {
        stored.name: file for file, shard in zip(names, shards, strict=True) for stored in shard
    }
    _write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )


def _write_shard(path: pathlib.Path, shard: list[Stored]):
    """A safetensors file, one tensor in memory at a time.

    The library's `save_file` holds two copies of all. Format: a length, that much JSON, then the
    tensors (https://github.com/huggingface/safetensors#format).
    """
    header: dict = {"__metadata__": {"format": "pt"}}
    end = 0
    for stored in shard:
        start, end = end, end + 4 * math.prod(stored.shape)
        header[stored.name] = {"dtype": "F32", "shape": stored.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for stored in shard:
            array = stored.make().astype("<f4", copy=False)
            if array.shape != stored.shape:
                raise AssertionError(f"{stored.name}: {array.shape} is not {stored.shape}")
            file.write(array.data)


def _write_tokenizer(tokenizer: Tokenizer, folder: pathlib.Path):
    files = {name: text for name, text in tokenizer.files.items() if name != "config.json"}
    if "vocab.json" not in files:
        files.setdefault("tokenizer.json", tokenizer.to_json().encode())
    files |= _first_token_files(tokenizer)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    if {"tokenizer_config.json", "special_tokens_map.json"} & files.keys():
        return
    roles = {"eos_token": tokenizer.backend.id_to_token(tokenizer.end_of_text)}
    if tokenizer.bos is not None:
        roles["bos_token"] = tokenizer.backend.id_to_token(tokenizer.bos)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **roles,
            "clean_up_tokenization_spaces": False,
        },
    )
    _write_json(folder / "special_tokens_map.json", roles)


def _first_token_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files that change where a run's texts began otherwise than its tokenizer has them."""
    backend = tokenizer.backend_with_first()
    if backend is tokenizer.backend:
        return {}
    files = {"tokenizer.json": backend.to_str().encode()}
    about = json.loads(tokenizer.files.get("tokenizer_config.json", b"{}"))
    if "add_bos_token" in about:
        about["add_bos_token"] = tokenizer.first_token is not None
        files["tokenizer_config.json"] = json.dumps(about, indent=2).encode()
    return files


def _write_json(path: pathlib.Path, values: dict):
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
