"""The one error that a user can mend."""


class InputError(ValueError):
    """Bad input. The message is one line that names the value, the limit and the mend.

    The command line prints it and exits with code 2; from Python it is a `ValueError`.

    >>> str(InputError("window=4096 exceeds the model's 2048 positions; use window<=2048"))
    "window=4096 exceeds the model's 2048 positions; use window<=2048"
    """


def choose(kind: str, name: str, known) -> str:
    """`name` if it is among the `known` names, else an `InputError` that lists them and the nearest.

    >>> choose("metric", "likelihood", ["likelihood", "anisotropy"])
    'likelihood'
    >>> choose("metric", "likelyhood", ["likelihood", "anisotropy"])
    Traceback (most recent call last):
    lmdyn.errors.InputError: unknown metric 'likelyhood'; did you mean 'likelihood'? known: anisotropy, likelihood
    """
    import difflib

    known = sorted(known)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" did you mean '{near[0]}'?" if near else ""
    raise InputError(f"unknown {kind} '{name}';{hint} known: {', '.join(known)}")
