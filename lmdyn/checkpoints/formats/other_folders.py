"""What a folder is from which no model can be read: for messages that say so."""

import pathlib
from collections.abc import Sequence

WEIGHTS = (
    (
        ("*.incomplete", "*.part", "*.aria2", "*.crdownload"),
        "a download that did not end; fetch it again",
    ),
    (
        ("*-of-*.safetensors", "*-of-*.bin"),
        "a shard, but not the index that lists the shards ({name}.index.json); fetch it, too",
    ),
    (("*.safetensors",), "but no model.safetensors; give the model's file that name"),
    (("*.gguf",), "a GGUF file; write gguf:{path}"),
    (
        ("*.onnx", "*/*.onnx"),
        "an ONNX graph, which is not read; take the model's version with model.safetensors",
    ),
    (
        ("*.h5", "*.msgpack"),
        "weights of TensorFlow or Flax, which are not read; take the model's version with"
        " model.safetensors, or convert it with transformers 4 (from_tf=True, from_flax=True)",
    ),
)
"""Patterns of files with weights; what they are, and the remedy."""


def without_config(folder: pathlib.Path) -> str:
    """The message for a folder that has no `config.json`.

    Args:
      folder: which is there.

    >>> import tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp(prefix="model"))
    >>> (folder / "q8.gguf").touch()
    >>> without_config(folder).endswith(
    ...     f"has no config.json, but GGUF files; write gguf:{folder}/q8.gguf"
    ... )
    True
    """
    if not any(folder.iterdir()):
        return f"{folder} is an empty folder; name one with config.json and model.safetensors"
    start = f"{folder} has no config.json"
    if found := sorted(folder.glob("*.gguf")):
        return f"{start}, but GGUF files; write gguf:{found[0]}"
    if found := sorted(folder.glob("*/config.json")):
        return f"{start}, but its folder {found[0].parent.name} has; write dir:{found[0].parent}"
    if (folder / "params.json").is_file():
        return (
            f"{start}, but params.json, the layout of the model's authors; take its version for"
            " transformers"
        )
    if (folder / "run.json").is_file():
        return f"{start}, but run.json; write run:{folder}"
    return f"{start}; name the folder of a Hugging Face checkpoint"


def without_weights(folder: pathlib.Path, names: Sequence[str]) -> str:
    """The message for a folder without the files that parameters are read from.

    Args:
      folder: which is there.
      names: of these files.

    >>> import tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "model.onnx").touch()
    >>> without_weights(folder, ("model.safetensors",)).partition(" holds ")[2]
    "model.onnx, an ONNX graph, which is not read; take the model's version with model.safetensors"
    """
    for patterns, what in WEIGHTS:
        found = sorted(path for pattern in patterns for path in folder.glob(pattern))
        if found:
            name = names[-1 if found[0].suffix == ".bin" else 0]
            holds = found[0].relative_to(folder)
            return f"{folder} holds {holds}, {what.format(path=found[0], name=name)}"
    return f"{folder} has no {' or '.join(names)}, nor other weights; fetch the whole checkpoint"
