"""The command `lmdyn`: reads the words, runs the verb, and turns what a user can fix into one line.

A verb is a module of this package that has

- `OPTIONS`: a dataclass whose fields are the verb's options and whose docstring is its help;
- `run(options, command)`: does it, and returns the exit code (None: 0);
- where the verb needs a config file, `EXAMPLE`: one that ships with lmdyn;
- where that file's `config()` returns something else than `OPTIONS`, `from_config(made)`: the
  options that it stands for, None if none; and `from_name(name)`: the type of those that a first
  word names.

JAX and everything that needs it is imported only once the options have been read and the cheap
mistakes are ruled out.
"""

import contextlib
import errno
import importlib
import inspect
import io
import os
import shutil
import sys
import warnings
from types import ModuleType
from typing import Any

import tyro

from lmdyn.cli.config_file import read_config, split_config
from lmdyn.cli.gpu_flags import set_gpu_flags
from lmdyn.cli.messages import fill_help, one_line, option_names
from lmdyn.errors import InputError, choose

__all__ = ["VERBS", "main", "parse"]

VERBS = {
    "measure": "Measure models over a text.",
    "gradients": "Measure which layers facts light up.",
    "online": "Adapt a model to a text while it reads it.",
    "reactivate": "Scale up the MLP coefficients that a model uses least.",
    "train": "Pretrain a model or train one further, measuring along the way.",
    "plan": "Report what a training step needs on devices you do not have.",
    "study": "Run a paper's whole experiment.",
    "scaling": "Fit a scaling law to a table of runs.",
    "series": "List the checkpoints of a series and what is wrong.",
    "report": "Build an HTML page of results.",
}
"""Name and summary of each verb, in the order of the help."""

OVERVIEW = """usage: lmdyn COMMAND [options]

Measure and steer how a language model's knowledge changes.

commands:
{verbs}

examples:
  lmdyn measure gguf:model.gguf --data builtin:docs --out out/measure.jsonl
  lmdyn gradients gguf:model.gguf --probe facts.jsonl \\
    --reference builtin:docs --out out/gradients.jsonl
  lmdyn online gguf:model.gguf --data builtin:docs --out out/online.jsonl
  lmdyn online --config configs/smollm2_online.py --learning-rate 0.02
  lmdyn train --config configs/tiny.py
  lmdyn measure "run:runs/tiny@*" --data builtin:docs:test --out out/tiny.jsonl
  lmdyn series "hf:EleutherAI/pythia-70m@*"
  lmdyn reactivate gguf:model.gguf --data builtin:docs --out out/awake
  lmdyn study --config configs/knowledge_entropy.py --out out/study
  lmdyn scaling runs.csv --above 3e8 --out out/scaling.jsonl
  lmdyn report out

--config FILE is a Python file that is read first; options given beside it
override it. lmdyn COMMAND --help shows the options of a command."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command line.

    Args:
      argv: the words after `lmdyn`; those of this process if None.

    Returns:
      The exit code: 0, 2 for what the user can fix, 130 for Ctrl-C.

    >>> main(["report", "/no/such/folder"])
    2
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    warnings.formatwarning = _one_line_warning
    try:
        options = parse(argv)
        if options is None:
            return 0
        set_gpu_flags(os.environ)
        return _module(argv[0]).run(options, ["lmdyn", *argv]) or 0
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", 130)
    except BrokenPipeError:  # the reader of our output has gone, as in `lmdyn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except InputError as err:
        return _fail(str(err))
    except OSError as err:
        where = f" ({err.filename})" if err.filename else ""
        full = err.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "; free some space, or write elsewhere" if full else ""
        return _fail(f"{err.strerror or err}{where}{remedy}; nothing was written")
    except (MemoryError, RuntimeError) as err:
        device = "RESOURCE_EXHAUSTED" in str(err) or "out of memory" in str(err).lower()
        if not (device or isinstance(err, MemoryError)):
            raise
        where = " on the device" if isinstance(err, RuntimeError) else ""
        return _fail(
            f"out of memory{where}; use a smaller --batch, --length or --chunk; nothing was written"
        )


def parse(argv: list[str]) -> Any:
    """Reads the words of a command line.

    Args:
      argv: the words after `lmdyn`.

    Returns:
      The verb's options; None when help or the version was asked for and printed.

    Raises:
      InputError: the words are not a valid command line.

    >>> parse(["report", "results"])
    Report(folders=('results',), out=None)
    """
    if (here := os.getcwd()) not in sys.path:  # dotted names may be of modules in this folder
        sys.path.append(here)
    if argv[:1] in (["--version"], ["-V"]):
        import lmdyn

        print(f"lmdyn {lmdyn.__version__}")
        return None
    if argv[:1] in (["--help"], ["-h"]):
        print(OVERVIEW.format(verbs="\n".join(f"  {v:12}{what}" for v, what in VERBS.items())))
        return None
    if not argv:
        raise InputError(f"no command given; the commands are: {', '.join(VERBS)}")
    verb, *words = argv
    choose("command", verb, VERBS)
    kind, default, words = _start(verb, words)
    options = _read_options(verb, kind, default, words)
    if options is not None and getattr(options, "models", None) == ():
        raise InputError(f"no model given; see lmdyn {verb} --help")
    return options


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"lmdyn.cli.{verb}")


def _start(verb: str, words: list[str]) -> tuple[type, dict[str, Any], list[str]]:
    """What the options are read from.

    Returns:
      Their type; `{"default": ...}` where they start from a config's; the words.
    """
    module = _module(verb)
    if words and not words[0].startswith("-") and hasattr(module, "from_name"):
        return module.from_name(words[0]), {}, words[1:]
    path, words = split_config(words)
    if path is None:
        if hasattr(module, "EXAMPLE") and not {"-h", "--help"} & set(words):
            raise InputError(
                f"{verb} needs --config FILE, such as {module.EXAMPLE}; see lmdyn {verb} --help"
            )
        kind = module.OPTIONS
        # The options of a training run can be shown only where there is one.
        return kind, {"default": kind.example()} if hasattr(kind, "example") else {}, words
    example = getattr(module, "EXAMPLE", None)
    returns = f"what that of {example} does" if example else f"{module.OPTIONS.__name__}(...)"
    made = read_config(path, returns)
    if hasattr(module, "from_config"):
        options = module.from_config(made)
    else:
        options = made if isinstance(made, module.OPTIONS) else None
    if options is None:
        raise InputError(
            f"--config {path}: config() returns {type(made).__name__}, which is not for {verb};"
            f" return {returns}"
        )
    return type(options), {"default": options}, words


def _read_options(verb: str, kind: type, default: dict[str, Any], words: list[str]) -> Any:
    """The options of a verb; None when help was printed."""
    said = io.StringIO()
    text = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:")[0]
    width = min(shutil.get_terminal_size().columns, 100)
    os.environ["COLUMNS"] = str(width)  # tyro lays help out for as many
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return tyro.cli(
                kind,
                # a choice between dataclasses inside a config is made there, not by a word
                config=(tyro.conf.AvoidSubcommands,),
                prog=f"lmdyn {verb}",
                description=text,
                args=words,
                **default,
            )
    except SystemExit as end:
        if not end.code:
            print(fill_help(said.getvalue(), width))
            return None
        message = one_line(said.getvalue(), option_names(kind))
        raise InputError(f"{message}; see lmdyn {verb} --help") from None


def _one_line_warning(message: Warning | str, *_: Any) -> str:
    return f"lmdyn: warning: {' '.join(str(message).split())}\n"


def _fail(message: str, code: int = 2) -> int:
    sys.stdout.flush()
    print(f"lmdyn: error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
