"""`--config FILE`: a Python file that says what a command is to do."""

import errno
import os
import runpy
from typing import Any

from lmdyn.errors import InputError


def split_config(words: list[str]) -> tuple[str | None, list[str]]:
    """The file that `--config FILE` names, and the other words.

    >>> split_config(["--config", "tiny.py", "--steps", "7"])
    ('tiny.py', ['--steps', '7'])
    >>> split_config(["--steps", "7", "--config=tiny.py"])
    ('tiny.py', ['--steps', '7'])
    """
    for at, word in enumerate(words):
        if word.startswith("--config="):
            return word.removeprefix("--config="), words[:at] + words[at + 1 :]
        if word == "--config":
            if at + 1 == len(words):
                raise InputError("--config needs a value: a Python file")
            return words[at + 1], words[:at] + words[at + 2 :]
    return None, words


def read_config(path: str, returns: str) -> Any:
    """What the function `config()` of a Python file returns.

    Args:
      path: of the file.
      returns: what it should return, for the message of a file without it.

    Raises:
      InputError: the file cannot be read, has no `config()`, or raises anything.

    >>> read_config("/no/such/file.py", "Measure")
    Traceback (most recent call last):
    lmdyn.errors.InputError: --config /no/such/file.py: No such file or directory; name a
    Python file
    """
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        names = runpy.run_path(path)
        if "config" in names:
            return names["config"]()
    except OSError as err:
        raise InputError(f"--config {path}: {err.strerror}; name a Python file") from err
    except InputError as err:
        raise InputError(f"--config {path}: {err}") from err
    except Exception as err:  # anything a user's file can raise, such as a misspelt field
        raise InputError(f"--config {path}: {type(err).__name__}: {err}") from err
    raise InputError(f"--config {path} has no function config(); write one that returns {returns}")
