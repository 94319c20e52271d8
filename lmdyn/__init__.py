"""Measure and steer how a language model's knowledge changes: in pretraining, in updates, in use.

`load` a model, `metrics` to measure it, `transforms` to change it, `online` to adapt it while it reads.
Packages are imported when first used, so that `import lmdyn` is quick.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lmdyn import checkpoints, data, errors, metrics, models, online, report, transforms
    from lmdyn.checkpoints import load

_PACKAGES = ("checkpoints", "data", "errors", "metrics", "models", "online", "report", "transforms")
__all__ = ["load", *_PACKAGES]


def __getattr__(name: str):
    if name in _PACKAGES:
        return importlib.import_module(f"lmdyn.{name}")
    if name == "load":
        return importlib.import_module("lmdyn.checkpoints").load
    raise AttributeError(f"module 'lmdyn' has no attribute '{name}'")


def __dir__():
    return sorted([*__all__, "__version__"])
