"""The one error that a user can correct."""

from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Bad input. The message is one line that names the value, the limit and the remedy.

    The command line prints it and exits with code 2; from Python it is a `ValueError`.

    >>> str(InputError("window=4096 exceeds the model's 2048 positions; use window<=2048"))
    "window=4096 exceeds the model's 2048 positions; use window<=2048"
    """


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """`name` if it is among the `known` names, else an `InputError` that lists them.

    >>> choose("metric", "likelihood", ["likelihood", "anisotropy"])
    'likelihood'
    >>> choose("metric", "likelyhood", ["likelihood", "anisotropy"])
    Traceback (most recent call last):
    lmdyn.errors.InputError: unknown metric 'likelyhood'; did you mean 'likelihood'? known:
    anisotropy, likelihood
    """
    import difflib

    known = sorted(known)
    if name in known:
        return name
    lower = {one.lower(): one for one in known}
    near = [lower[one] for one in difflib.get_close_matches(name.lower(), lower, n=1)]
    hint = f" did you mean '{near[0]}'?" if near else ""
    raise InputError(f"unknown {kind} '{name}';{hint} known: {', '.join(known)}")


def check_least(instance: Any, where: str = "", **least: float) -> None:
    """Raises an `InputError` for the first field below its least value; None is left out.

    Args:
      instance: has the fields.
      where: a prefix of their names, such as `further.`.
      **least: the least value by field.

    >>> from types import SimpleNamespace
    >>> check_least(SimpleNamespace(batch=8, limit=None), batch=1, limit=1)
    >>> check_least(SimpleNamespace(batch=0), where="further.", batch=1)
    Traceback (most recent call last):
    lmdyn.errors.InputError: further.batch=0; it must be at least 1
    """
    for name, value in least.items():
        if (found := getattr(instance, name)) is not None and found < value:
            raise InputError(f"{where}{name}={found}; it must be at least {value}")


def check_types(instance: Any) -> None:
    """Raises an `InputError` for the first field of a dataclass whose value has another type.

    Fields of dataclasses inside it are checked too.

    >>> import dataclasses
    >>> @dataclasses.dataclass
    ... class Data:
    ...     length: int
    >>> check_types(Data(512))
    >>> check_types(Data("512"))
    Traceback (most recent call last):
    lmdyn.errors.InputError: Data.length='512' is of type str, not int
    """
    import dataclasses
    import re
    import typing

    import typeguard

    hints = typing.get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        value, hint = getattr(instance, field.name), hints[field.name]
        parts = value if isinstance(value, (tuple, list)) else [value]
        try:
            if isinstance(value, bool) and hint in (int, float):
                raise typeguard.TypeCheckError("a bool is not a number")
            typeguard.check_type(
                value, hint, collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS
            )
        except typeguard.TypeCheckError:
            wanted = (
                hint.__name__
                if isinstance(hint, type) and not typing.get_args(hint)
                else str(hint).replace("typing.", "")
            )
            wanted = re.sub(r"lmdyn\.[\w.]+\.", "", wanted)
            name = f"{type(instance).__name__}.{field.name}"
            raise InputError(
                f"{name}={value!r} is of type {type(value).__name__}, not {wanted}"
            ) from None
        for part in parts:
            if dataclasses.is_dataclass(part) and not isinstance(part, type):
                check_types(part)
