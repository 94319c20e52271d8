"""Measure and steer how a language model's knowledge changes: in pretraining, in updates, in use.

`load` a model, `metrics` to measure it, `transforms` to change it, `training` to make one, `online`
to adapt it while it reads. Packages are imported when first used, so that `import lmdyn` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lmdyn import (
        checkpoints,
        data,
        errors,
        metrics,
        models,
        online,
        report,
        training,
        transforms,
    )
    from lmdyn.data.tokenizers import Tokenizer
    from lmdyn.models import Compute, LanguageModel
    from lmdyn.types import Params

__all__ = [
    "checkpoints",
    "data",
    "errors",
    "load",
    "metrics",
    "models",
    "online",
    "report",
    "training",
    "transforms",
]


def load(
    ref: str,
    compute: "Compute | None" = None,
    family: str | None = None,
    end_of_text: str | int | None = None,
    pre: str | None = None,
) -> "tuple[LanguageModel, Params, Tokenizer]":
    """Loads a model, its parameters and its tokenizer.

    `lmdyn.checkpoints.load` returns the checkpoint's name and training step as well.

    Args:
      ref: a model reference: `hf:ORG/NAME[@REVISION]`, `dir:PATH`, `gguf:PATH` or `run:DIR[@STEP]`.
      compute: a `lmdyn.models.Compute`: dtype and attention; by default what suits the device.
      family: for a model family that lmdyn does not know: the dotted name of a
        `lmdyn.checkpoints.families.Family`.
      end_of_text: the token that ends a document, or its id, in place of the tokenizer's own.
      pre: of GGUF files that do not say how their tokenizer cuts text: llama.cpp's name for it.

    Returns:
      `(LanguageModel, params, Tokenizer)`.

    Raises:
      InputError: one line that says what is wrong with the reference or the files.

    >>> import tempfile
    >>> from lmdyn import checkpoints, models
    >>> from lmdyn.data import tokenizers
    >>> config = models.ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> folder = tempfile.mkdtemp() + "/tiny"
    >>> checkpoints.export(model, models.init(model), tokenizers.byte_tokenizer(), folder)
    >>> model, params, tokenizer = load(f"dir:{folder}")
    >>> model.config.depth, tokenizer.encode("hi").tolist()
    (2, [104, 105])
    """
    load_checkpoint = importlib.import_module("lmdyn.checkpoints").load
    loaded = load_checkpoint(ref, compute, family=family, end_of_text=end_of_text, pre=pre)
    return loaded.model, loaded.params, loaded.tokenizer


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"lmdyn.{name}")
    raise AttributeError(f"module 'lmdyn' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
