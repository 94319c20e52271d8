"""Studies by name: those that ship with lmdyn, and any other by its package's dotted name.

A study is a package (or a module) that exports `CONFIG`, the class of its config, `run(config,
command, say) -> Path` of its report, and `PAGE`, what it contributes to a page
(`lmdyn.report.studies.StudyPage`). A package is found by its dotted name, so nothing is registered.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

from lmdyn.errors import InputError
from lmdyn.names import resolve

SHIPPED = (
    "entropy_decay",
    "fact_learning",
    "gradient_localization",
    "knowledge_entropy",
    "online_adaptation",
    "saturation",
)
"""The studies that ship with lmdyn, packages of `lmdyn.studies`."""
EXPORTS = ("CONFIG", "run", "PAGE")


def find(name: str) -> ModuleType:
    """The package of a study.

    Args:
      name: one of `SHIPPED`, or a dotted name such as `my_package.my_study`.

    Raises:
      InputError: there is no such study, or what was found is none.

    >>> find("fact_learning").__name__, find("lmdyn.studies.saturation").CONFIG.__name__
    ('lmdyn.studies.fact_learning', 'Saturation')
    >>> find("saturate")
    Traceback (most recent call last):
    lmdyn.errors.InputError: unknown study 'saturate'; did you mean 'saturation'? known:
    entropy_decay, fact_learning, gradient_localization, knowledge_entropy, online_adaptation,
    saturation; or give your own by its dotted name, such as my_package.saturate
    """
    if name in SHIPPED:
        return importlib.import_module(f"lmdyn.studies.{name}")
    found = resolve(name, dict.fromkeys(SHIPPED), "study")
    if missing := [export for export in EXPORTS if not hasattr(found, export)]:
        raise InputError(
            f"{name} is not a study: it lacks {', '.join(missing)}; a study's package exports"
            f" {', '.join(EXPORTS)}"
        )
    return found


def package_of(config: Any) -> ModuleType:
    """The package of the study whose config this is.

    >>> from lmdyn.studies import Saturation
    >>> package_of(
    ...     Saturation(out="out/x", text="builtin:docs:test", series=("run:x",))
    ... ).__name__
    'lmdyn.studies.saturation'
    """
    name = type(config).__module__
    while name:
        module = sys.modules.get(name)
        if module is not None and getattr(module, "CONFIG", None) is type(config):
            return module
        name = name.rpartition(".")[0]
    raise InputError(
        f"{type(config).__name__} is not a study's config: no package that holds"
        f" {type(config).__module__} exports it as CONFIG"
    )
