"""What the parser of options prints, as we want it: errors in one line, help in paragraphs."""

import dataclasses
import difflib
import re
import textwrap
import typing
from collections.abc import Sequence

_OPTION = r"--[\w.-]+"


def one_line(box: str, options: Sequence[str]) -> str:
    """The parser's boxed message as one line.

    Args:
      box: what `tyro` printed.
      options: those that the command has, to guess which one was meant.

    >>> one_line("Unrecognized options: --lenght", ["--length"])
    'unknown: --lenght (did you mean --length?)'
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()
    lines = [re.sub(r"^[\s│]+|[\s│]+$", "", line) for line in plain]
    lines = [line for line in lines if line and line[0] not in "╭╰"]
    text = " ".join(lines)
    return _refused(text) or _wrong_value(text) or _wrong_options(lines, options) or text[:200]


def option_names(kind: type, prefix: str = "") -> list[str]:
    """The options that a dataclass makes, those of dataclasses inside it too.

    >>> @dataclasses.dataclass
    ... class Optimizer:
    ...     learning_rate: float
    >>> @dataclasses.dataclass
    ... class Train:
    ...     steps: int
    ...     optimizer: Optimizer
    >>> option_names(Train)
    ['--steps', '--optimizer.learning-rate']
    """
    names = []
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        # `run` is the training run of `lmdyn train`, whose fields have no prefix.
        name = "" if field.name == "run" else f"{prefix}{field.name.replace('_', '-')}"
        inside = [
            hint
            for hint in (hints[field.name], *typing.get_args(hints[field.name]))
            if isinstance(hint, type) and dataclasses.is_dataclass(hint)
        ]
        names += option_names(inside[0], name and f"{name}.") if inside else [f"--{name}"]
    return names


def fill_help(text: str, width: int) -> str:
    r"""Help without the line breaks and the examples of the docstrings that it is made of.

    Args:
      text: what `tyro` printed.
      width: of the terminal, in columns.

    >>> print(fill_help("  --out FILE  Where to\n              write.\n  >>> run()", 80))
      --out FILE  Where to write.
    """
    paragraphs: list[tuple[str, int]] = []  # a line, and the column where its text goes on
    example = False
    for line in map(str.rstrip, text.splitlines()):
        body = line.lstrip()
        column = len(line) - len(body)
        example = body.startswith(">>> ") or (example and body != "" and not body.startswith("--"))
        if example or (not body and paragraphs and not paragraphs[-1][0]):
            continue
        before = paragraphs[-1][0] if paragraphs else ""
        same_column = column < len(before) and not before[column].isspace()
        description = column == 0 and body and not before.startswith("usage:")
        aligned = column >= 2 and before[column - 2 : column].isspace()
        two_options = column == 2 and "-" in (body[0], before[2:3])  # without help
        if same_column and (description or (aligned and not two_options)):
            paragraphs[-1] = (f"{before} {body}", column)
        else:
            paragraphs.append((line, column))
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent=" " * column, break_on_hyphens=False)
        for line, column in paragraphs
    ).rstrip()


def _refused(text: str) -> str | None:
    """What a dataclass said that refused its fields, or a type that refused its text."""
    found = re.search(rf"Error parsing ({_OPTION}|[A-Za-z_]\w*[\w.-]*): (.*?) *-----", text)
    if not found:
        return None
    where, what = found.groups()
    if not where.startswith("--"):  # a dataclass, by its place; that of a training run is `run`
        place = where.partition(".")[2] if where.startswith("run.") else ""
        return f"{place}: {what}" if place else what
    ours = "could not convert" not in what and "invalid literal" not in what
    return f"{where}: {what}" if ours else None


def _wrong_value(text: str) -> str | None:
    """An option whose value is of another type, none of its choices, or missing."""
    named = re.search(
        rf"(?:Error parsing|invalid choice '.*' for argument) '?({_OPTION}|[A-Z]\w*)'?", text
    )
    if named:
        got = re.search(
            r"from \['(.*?)'\]|invalid choice '(.*?)'|with base 10: '(.*?)'|to float: '(.*?)'", text
        )
        value = next(filter(None, got.groups()), "") if got else ""
        allowed = re.search(r"one of \((.*?)\)", text)
        choices = f"; it takes {allowed[1].replace(chr(39), '')}" if allowed else ""
        return f"{named[1]} does not take '{value}'{choices}"
    missing = re.search(rf"Missing value for argument '?({_OPTION})'?", text)
    return f"{missing[1]} needs a value" if missing else None


def _wrong_options(lines: Sequence[str], options: Sequence[str]) -> str:
    """Options that are missing, and words that are none; the nearest option, for a misspelt one."""
    section, missing, unknown = "", [], []
    for line in lines:
        if line.startswith(("─", "-----", "For full", "Perhaps", "Available")):
            section = ""
        elif line.startswith("Missing from"):
            section = "missing"
        elif line.startswith("Unrecognized option"):
            section = "unknown"
            unknown += line.partition(":")[2].replace(",", " ").split()
        elif section == "missing" and (name := re.match(r"--[\w.-]+|[A-Z]{2,}$", line)):
            missing.append(name[0])
        elif section == "unknown":
            unknown.append(line.split()[0].rstrip(","))
    parts = []
    if missing:
        parts.append(f"missing: {', '.join(missing)}")
    if unknown:
        names = [option.removeprefix("--") for option in options]
        near = difflib.get_close_matches(unknown[0].removeprefix("--"), names, n=1)
        hint = f" (did you mean --{near[0]}?)" if near else ""
        parts.append(f"unknown: {' '.join(unknown)}{hint}")
    return "; ".join(parts)
