"""Things by name: of a registry, or anything that Python can import, by its dotted name."""

import difflib
import importlib
import sys
from collections.abc import Mapping
from typing import Any

from lmdyn.errors import InputError, choose


def resolve(name: str, registry: Mapping[str, Any], what: str) -> Any:
    """The entry of a registry, or what a dotted name imports: so nothing has to be registered.

    Args:
      name: a key of the registry, or `package.module.name` (a function, a class, a module).
      registry: name -> thing.
      what: what it is, for the message, such as `metric`.

    Raises:
      InputError: neither; with the known names and the nearest of them, or why it cannot be
        imported.

    >>> resolve("nll", {"nll": max}, "metric") is max, resolve("math.log2", {}, "metric")(8.0)
    (True, 3.0)
    >>> resolve("mll", {"nll": max}, "metric")
    Traceback (most recent call last):
    lmdyn.errors.InputError: unknown metric 'mll'; did you mean 'nll'? known: nll; or give your own
    by its dotted name, such as my_package.mll
    >>> resolve("math.logg", {"nll": max}, "metric")
    Traceback (most recent call last):
    lmdyn.errors.InputError: metric 'math.logg': module 'math' has no attribute 'logg'; did you mean
    'math.log'?
    """
    if name in registry:
        return registry[name]
    module, _, attribute = name.rpartition(".")
    if not module.strip("."):
        raise InputError(_unknown(name, registry, what))
    try:
        parent = importlib.import_module(module)
        return (
            getattr(parent, attribute)
            if hasattr(parent, attribute)
            else importlib.import_module(name)
        )
    except Exception as err:  # whatever a user's module raises while it is imported
        raise InputError(f"{what} '{name}': {_reason(err, module, name)}") from err


def make(name: str, arguments: Mapping[str, Any], registry: Mapping[str, Any], what: str) -> Any:
    """What the function returns that `name` resolves to, called with keyword arguments.

    Args:
      name: see `resolve`.
      arguments: as a config's JSON holds them.
      registry: see `resolve`.
      what: see `resolve`.

    Raises:
      InputError: there is no such function, or it failed.

    >>> make("datetime.timedelta", {"hours": 1}, {}, "length").seconds
    3600
    >>> make("math.sqrt", {}, {}, "objective")
    Traceback (most recent call last):
    lmdyn.errors.InputError: objective: math.sqrt() failed: math.sqrt() takes exactly one argument
    (0 given)
    """
    maker = resolve(name, registry, what)
    try:
        return maker(**arguments)
    except Exception as err:  # whatever a user's function raises
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise InputError(f"{what}: {name}({given}) failed: {err}") from err


def _unknown(name: str, registry: Mapping[str, Any], what: str) -> str:
    """The message for a name without a dot that the registry does not have."""
    remedy = f"give your own by its dotted name, such as my_package.{name.strip('.') or what}"
    if not registry:
        return f"{what} '{name}' is not a dotted name; {remedy}"
    try:
        choose(what, name, registry)
    except InputError as err:
        return f"{err}; or {remedy}"
    raise AssertionError(f"'{name}' is in the registry")


def _reason(err: Exception, module: str, name: str) -> str:
    """Why a dotted name could not be imported."""
    missing = err.name if isinstance(err, ModuleNotFoundError) else None
    if missing == name and module in sys.modules:
        attribute = name.removeprefix(f"{module}.")
        near = difflib.get_close_matches(attribute, dir(sys.modules[module]), n=1)
        hint = f"; did you mean '{module}.{near[0]}'?" if near else ""
        return f"module '{module}' has no attribute '{attribute}'{hint}"
    if missing and f"{module}.".startswith(f"{missing}."):
        return f"there is no module '{missing}'; install it, or put its folder on PYTHONPATH"
    return f"importing it failed with {type(err).__name__}: {err}"
