"""The command `lmdyn`: reads the words, runs the verb, and turns what the user can mend into one
line.

Each verb's options are the fields of a dataclass of `lmdyn.cli.options`. `--config FILE` reads a
Python file first, whose function `config()` returns one of them; options given beside it override
its fields.

JAX and everything that needs it is imported only once the options have been read and the cheap
mistakes are ruled out.
"""

import contextlib
import dataclasses
import difflib
import errno
import functools
import inspect
import io
import operator
import os
import re
import runpy
import shutil
import sys
import textwrap
import typing
from collections.abc import Iterable
from typing import Annotated, Any

import tyro

from lmdyn.cli.options import VERBS, Gradients, Measure, Online, Reactivate, Report, Scaling
from lmdyn.errors import InputError

__all__ = ["Gradients", "Measure", "Online", "Reactivate", "Report", "Scaling", "main", "parse"]

EXAMPLE_CONFIGS = {
    "train": "configs/tiny.py",
    "plan": "configs/tiny.py",
    "study": "configs/knowledge_entropy.py",
}
DESCRIPTION = "Measure how a language model's knowledge is stored, and how it changes."
EXAMPLES = """

examples:
  lmdyn measure gguf:model.gguf --data builtin:docs --out out/measure.jsonl
  lmdyn gradients gguf:model.gguf --probe facts.jsonl \\
    --reference builtin:docs --out out/gradients.jsonl
  lmdyn online gguf:model.gguf --data builtin:docs --out out/online.jsonl
  lmdyn online --config configs/smollm2_online.py --lr 0.02
  lmdyn train --config configs/tiny.py
  lmdyn measure "run:runs/tiny@*" --data builtin:docs:test --out out/tiny.jsonl
  lmdyn reactivate gguf:model.gguf --data builtin:docs --out out/awake
  lmdyn study --config configs/knowledge_entropy.py --out out/study
  lmdyn scaling runs.csv --above 3e8 --out out/scaling.jsonl
  lmdyn report out

--config FILE is a Python file that is read first; options given beside it
override it.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code: 0, 2 for what the user can mend, 130 for
    Ctrl-C.

    Args:
      argv: the words after `lmdyn`; those of this process if None.

    >>> main(["report", "/no/such/folder"])
    2
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        options = parse(argv)
        if options is None:
            return 0
        from lmdyn.cli import verbs as commands

        if (here := os.getcwd()) not in sys.path:  # dotted names may be of modules that lie here
            sys.path.append(here)
        return getattr(commands, _verb_of(options))(options, ["lmdyn", *argv]) or 0
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", 130)
    except BrokenPipeError:  # the reader of our output has gone, as in `lmdyn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except InputError as err:
        return _fail(str(err))
    except OSError as err:
        where = f" ({err.filename})" if err.filename else ""
        mend = (
            "; free some space, or write elsewhere"
            if err.errno in (errno.ENOSPC, errno.EDQUOT)
            else ""
        )
        return _fail(f"{err.strerror or err}{where}{mend}; nothing was written")
    except MemoryError:
        return _fail(
            "out of memory; use a smaller --batch, --length or --chunk; nothing was written"
        )
    except RuntimeError as err:
        if "RESOURCE_EXHAUSTED" not in str(err) and "out of memory" not in str(err).lower():
            raise
        return _fail(
            "out of memory on the device; use a smaller --batch, --length or --chunk; nothing was"
            " written"
        )


def parse(argv: list[str]) -> Any:
    """Command-line words to options; None when help or the version was asked for and printed.

    Raises:
      InputError: the words are no command line of ours.

    >>> parse(["report", "results"])
    Report(folders=('results',), out=None)
    """
    if argv in (["--version"], ["-V"]):
        import lmdyn

        print(f"lmdyn {lmdyn.__version__}")
        return None
    kinds = _kinds(argv)
    argv, configured = _configured(argv, kinds)
    if _is_study(configured):
        kinds = {**kinds, "study": type(configured)}
    verbs = []
    for name, kind in kinds.items():
        default: dict[str, Any] = {"default": configured} if isinstance(configured, kind) else {}
        if not default and hasattr(
            kind, "example"
        ):  # a run's options can be shown only where there are some
            default = {"default": kind.example()}
        brief = not set(argv) & VERBS.keys()
        if (
            _is_study(configured) and name == "study"
        ):  # a choice inside what only the file can say is no command of its own
            kind = Annotated[kind, tyro.conf.AvoidSubcommands]
        verbs.append(
            Annotated[kind, tyro.conf.subcommand(name, description=_text(kind, brief), **default)]
        )
    union = functools.reduce(operator.or_, verbs)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            options = tyro.cli(union, prog="lmdyn", description=DESCRIPTION, args=argv)
    except SystemExit as end:
        verb = next((word for word in argv if word in VERBS), "")
        if not end.code:
            print(_wrap(said.getvalue()) + ("" if verb else EXAMPLES))
            return None
        names = _option_names(kinds[verb]) if verb else VERBS
        raise InputError(
            f"{_brief(said.getvalue(), names)}; see lmdyn {verb + ' ' if verb else ''}--help"
        ) from None
    if isinstance(options, Measure | Gradients) and not options.models:
        raise InputError(f"no model given; see lmdyn {_verb_of(options)} --help")
    if isinstance(options, Gradients) and not options.probe:
        raise InputError("no probes given; see lmdyn gradients --help")
    return options


def _kinds(argv: list[str]) -> dict:
    """The options of each verb. Those of `train` and `plan` are made of what a run is, which
    imports JAX: only if asked for.
    """
    if not {"train", "plan"} & set(argv):
        return VERBS
    from lmdyn.cli import train_options as options

    return {**VERBS, "train": options.TrainOptions, "plan": options.PlanOptions}


def _configured(argv: list[str], kinds: dict):
    """The words without `--config FILE`, and what that file's `config()` returns (None without
    one).
    """
    words = [
        part
        for word in argv
        for part in (word.split("=", 1) if word.startswith("--config=") else [word])
    ]
    verb = next((word for word in words if word in VERBS), "")
    if "--config" not in words:
        if verb in EXAMPLE_CONFIGS and not {"-h", "--help"} & set(words):
            raise InputError(
                f"{verb} needs --config FILE, such as {EXAMPLE_CONFIGS[verb]}; see lmdyn {verb}"
                " --help"
            )
        return argv, None
    at = words.index("--config")
    if at + 1 == len(words):
        raise InputError("--config needs a value: a Python file")
    path, rest = words[at + 1], words[:at] + words[at + 2 :]
    kind = kinds.get(verb)
    try:
        made = runpy.run_path(path)["config"]()
        if verb in ("train", "plan") and type(made).__name__ == "TrainConfig":
            made = kinds[verb](run=made)
    except OSError as err:
        raise InputError(f"--config {path}: {err.strerror}") from err
    except KeyError as err:
        raise InputError(
            f"--config {path} has no function config(); write one that returns"
            f" {kind.__name__ if kind else 'options'}(...)"
        ) from err
    except InputError as err:
        raise InputError(f"--config {path}: {err}") from err
    except Exception as err:  # anything a user's file can raise, such as a misspelt field
        raise InputError(f"--config {path}: {type(err).__name__}: {err}") from err
    if kind is None or not (isinstance(made, kind) or (verb == "study" and _is_study(made))):
        raise InputError(f"--config {path} is for '{_verb_of(made)}', not for '{verb}'")
    return rest, made


def _is_study(options) -> bool:
    """Whether these are the options of a study; without importing what only studies need."""
    return type(options).__module__.startswith("lmdyn.studies.")


def _verb_of(options) -> str:
    """The verb whose options these are."""
    if _is_study(options):
        return "study"
    name = type(options).__name__.removesuffix("Options").lower()
    return name if name in VERBS else type(options).__name__


def _option_names(kind, prefix: str = "") -> list[str]:
    """The options that a dataclass makes, those of dataclasses inside it too."""
    found = []
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name = "" if field.name == "run" else f"{prefix}{field.name.replace('_', '-')}"
        inside = [
            k
            for k in (hints[field.name], *typing.get_args(hints[field.name]))
            if dataclasses.is_dataclass(k)
        ]
        found += _option_names(inside[0], name and f"{name}.") if inside else [f"--{name}"]
    return found


def _brief(box: str, options: Iterable[str]) -> str:
    """The parser's boxed message as one line; `options` are those of the verb, to guess what was
    meant.
    """
    plain = (
        re.sub(r"^[\s│]+|[\s│]+$", "", line)
        for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()
    )
    lines = [line for line in plain if line and line[0] not in "╭╰"]
    text = " ".join(lines)
    if ours := re.search(r"Error parsing (--[\w.-]+|[A-Z_]\w*[\w.-]*): (.*?) *-----", text):
        if not ours[1].startswith("--"):  # a dataclass that refused its fields
            return ours[2]
        if "could not convert" not in ours[2] and "invalid literal" not in ours[2]:
            return f"{ours[1]}: {ours[2]}"
    if bad := re.search(
        r"(?:Error parsing|invalid choice '.*' for argument) '?(--[\w.-]+|[A-Z]\w*)'?", text
    ):
        got = re.search(
            r"from \['(.*?)'\]|invalid choice '(.*?)'|with base 10: '(.*?)'|to float: '(.*?)'", text
        )
        value = next(filter(None, got.groups()), "") if got else ""
        allowed = re.search(r"one of \((.*?)\)", text)
        return f"{bad[1]} does not take '{value}'" + (
            f"; it takes {allowed[1].replace(chr(39), '')}" if allowed else ""
        )
    if bad := re.search(r"Missing value for argument '?(--[\w.-]+)'?", text):
        return f"{bad[1]} needs a value"
    parts, section = [], ""
    missing, unknown = [], []
    for line in lines:
        if line.startswith(("─", "-----", "For full", "Perhaps", "Available")):
            section = ""
        elif line.startswith("Missing from"):
            section = "missing"
        elif line.startswith("Unrecognized option"):
            section = "unknown"
            unknown += line.partition(":")[2].replace(",", " ").split()
        elif section == "missing" and (name := re.match(r"--[\w-]+|[A-Z]{2,}$", line)):
            missing.append(name[0])
        elif section == "unknown":
            unknown.append(line.split()[0].rstrip(","))
    if missing:
        parts.append(f"missing: {', '.join(missing)}")
    if unknown:
        near = difflib.get_close_matches(unknown[0], options, n=1)
        parts.append(
            f"unknown: {' '.join(unknown)}" + (f" (did you mean {near[0]}?)" if near else "")
        )
    if known := re.search(r"(?:Available subcommands: |Expected one of \{)([\w, ]+)", text):
        parts.append(f"the commands are: {', '.join(re.findall(r'[a-z]+', known[1]))}")
    return "; ".join(parts) or text[:200]


def _text(kind, brief):
    """A verb's documentation; only its first paragraph in the list of verbs."""
    kind = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    paragraphs = inspect.cleandoc(kind.__doc__).partition("\n\nAttributes:")[0].split("\n\n")
    return paragraphs[0] if brief else "\n\n".join(paragraphs)


def _wrap(text):
    """Help whose prose, too, stays within the terminal."""
    width = min(shutil.get_terminal_size().columns, 100)
    return "\n".join(
        line if len(line) <= width else textwrap.fill(line, width)
        for line in map(str.rstrip, text.splitlines())
    ).rstrip()


def _fail(message: str, code: int = 2) -> int:
    sys.stdout.flush()
    print(f"lmdyn: error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
