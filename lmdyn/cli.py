"""The command `lmdyn`: options are the fields of the dataclasses below, their documentation is the help.

`--config FILE` reads a Python file first, whose function `config()` returns one of the dataclasses; options given beside it
override its fields.

JAX and everything that needs it is imported only once the options have been read and the cheap mistakes are ruled out.
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
from typing import Annotated, Literal

import tyro

from lmdyn.errors import InputError

Count = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]


@dataclasses.dataclass(frozen=True)
class Measure:
    """Measure models over a text: one row a number.

    MODEL is hf:ORG/NAME[@REVISION], dir:PATH, gguf:PATH or run:DIR[@STEP]; @A,B and @* name a series of checkpoints. One
    forward pass a batch serves all metrics.
    """

    models: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="MODEL [MODEL ...]", help_behavior_hint="(required)"),
    ]
    """Model references."""
    data: Annotated[str, tyro.conf.arg(metavar="REF")]
    """The text: text:GLOB, jsonl:PATH#FIELD, tfds:NAME[/CONFIG]:SPLIT#FIELD or builtin:NAME (docs, code)."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Rows are written here as JSON Lines, and what made them to FILE.meta.json."""
    metrics: Annotated[str, tyro.conf.arg(metavar="A,B,...")] = (
        "nll,knowledge_entropy,attention_entropy,prediction_entropy,anisotropy,singular_entropy"
    )
    """What to measure."""
    length: Annotated[int, tyro.conf.arg(metavar="T")] = 512
    """Tokens of one window."""
    batch: Annotated[int, tyro.conf.arg(metavar="B")] = 1
    """Windows of one forward pass."""
    tokens: Count = None
    """Stop after N predictions; the whole text if not given."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations; auto is bfloat16 on GPU and TPU, float32 on a CPU."""
    mesh: Annotated[str | None, tyro.conf.arg(metavar="DATA,FSDP,TENSOR", help_behavior_hint="")] = None
    """Several devices: how many along each axis; 8,1,1 divides batches, 1,8,1 parameters. One device if not given."""


@dataclasses.dataclass(frozen=True)
class Gradients:
    """Measure which layers facts light up: gradient norms of their spans, layer by layer, relative to random spans of a text.

    Each probe is a text with a marked span; its loss is the mean nll of the span, and the norm is that of its own gradient. One
    profile for each kind of knowledge that the probes name (updated, new, unchanged), with bootstrap intervals over
    sequences, and a test of whether two kinds lie in different places.
    """

    models: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="MODEL [MODEL ...]", help_behavior_hint="(required)"),
    ]
    """Model references."""
    probe: Annotated[tuple[str, ...], tyro.conf.arg(metavar="REF [REF ...]")]
    """Probes: a JSON Lines file (prompt, target, kind), tfds:NAME:SPLIT, templama:PATH@OLD,NEW, ecbd:PATH@YEAR or temporalwiki:PATH."""
    reference: Annotated[str, tyro.conf.arg(metavar="REF")]
    """Text of the kind that the model was pretrained on: text:GLOB, jsonl:PATH#FIELD, tfds:NAME:SPLIT#FIELD or builtin:NAME."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Rows are written here as JSON Lines, and what made them to FILE.meta.json."""
    groups: Annotated[str, tyro.conf.arg(metavar="A,B,...")] = "attention,mlp"
    """Groups of parameters: attention, mlp, norms, embed, head, or selectors such as blocks.mlp.up."""
    limit: Count = None
    """At most N probes of a kind, spread evenly; all of them if not given."""
    spans: Annotated[int, tyro.conf.arg(metavar="N")] = 256
    """Random spans of the text."""
    length: Count = None
    """Tokens of the longest sequence; as long as the longest probe if not given."""
    tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 65536
    """Random spans come from the first N tokens of the text."""
    batch: Annotated[int, tyro.conf.arg(metavar="B")] = 16
    """Sequences of one pass."""
    resamples: Annotated[int, tyro.conf.arg(metavar="N")] = 2000
    """Draws of the bootstrap, and relabellings of the test."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of the random spans, draws and relabellings."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations; auto is bfloat16 on GPU and TPU, float32 on a CPU."""


@dataclasses.dataclass(frozen=True)
class Online:
    """Adapt a model online to a text, and compare it with itself unadapted.

    The text is cut into chunks. Each chunk is scored first, and then the model takes one optimizer step on it, so
    no token is scored by a model that has seen it.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Model reference: hf:ORG/NAME[@REVISION], dir:PATH, gguf:PATH or run:DIR[@STEP]."""
    data: Annotated[str, tyro.conf.arg(metavar="REF")]
    """The text: text:GLOB, jsonl:PATH#FIELD, tfds:NAME[/CONFIG]:SPLIT#FIELD or builtin:NAME (docs, code)."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Rows are written here, what made them to FILE.meta.json, every token's nll to FILE.trace.npz."""
    chunk: Annotated[int, tyro.conf.arg(metavar="C")] = 512
    """Predictions between two updates."""
    context: Literal["none", "cache", "overlap"] = "none"
    """What a chunk sees before itself: nothing, a cache of old keys and values, or a window encoded afresh."""
    window: Annotated[int | None, tyro.conf.arg(metavar="W", help_behavior_hint="")] = None
    """Tokens of the cache or the window; needed with them."""
    keep: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """First tokens of the text that a cache never gives up; 4 suffice."""
    optimizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "sgd"
    """sgd, momentum, adam, adam0 (without momentum), adamw, rmsprop, adagrad, lion (optax); or rms: the gradient over its root mean square
    on training text (Krause et al. 2018), see --statistics."""
    lr: Annotated[float, tyro.conf.arg(metavar="RATE")] = 0.01
    """Learning rate; 0.01 suits sgd, the others want much less (adam: 1e-5)."""
    rates: Annotated[str | None, tyro.conf.arg(metavar="A,B,...", help_behavior_hint="")] = None
    """Learning rates to choose from, in place of --lr: the one that is best on the first --prefix predictions."""
    prefix: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Predictions that the rate is chosen on; the others are not looked at."""
    decay: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.0
    """Share of the way back to the model as it was that is gone at every update."""
    statistics: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Root mean square of the gradient for --optimizer rms, kept beside the model; made from --training where the file is not there yet."""
    training: Annotated[str | None, tyro.conf.arg(metavar="REF", help_behavior_hint="")] = None
    """Text like the model's training text; --batches of one chunk of it make the statistics."""
    batches: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Of --training."""
    adapt: Annotated[str | None, tyro.conf.arg(metavar="SELECTOR", help_behavior_hint="(default: all; blocks.mlp with --rank)")] = None
    """Which parameters change: all, blocks[10:20].mlp, head, ... joined by +."""
    rank: Annotated[int | None, tyro.conf.arg(metavar="R", help_behavior_hint="")] = None
    """Low-rank adapters beside the selected matrices change, in place of these."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Optimizer steps on every chunk."""
    every: Annotated[int, tyro.conf.arg(metavar="K")] = 1
    """The model changes after every K-th chunk only, by their mean gradient."""
    reset: Literal["never", "document", "change"] = "never"
    """When the model returns to where it began: change is where a detector finds that what was learnt no longer helps."""
    guard: Annotated[float | None, tyro.conf.arg(metavar="NATS", help_behavior_hint="")] = None
    """Adaptation ends when it has lost so many nats, all tokens together, against the unadapted model."""
    parallel: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """With --reset document: so many documents are read side by side, each with a copy of what adapts."""
    tokens: Count = None
    """Stop after N predictions; the whole text if not given."""
    static: bool = True
    """Also score the text with the unadapted model."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations; auto is bfloat16 on GPU and TPU, float32 on a CPU."""
    mesh: Annotated[str | None, tyro.conf.arg(metavar="DATA,FSDP,TENSOR", help_behavior_hint="")] = None
    """Several devices: how many along each axis; 1,8,1 divides parameters by width. One device if not given."""


@dataclasses.dataclass(frozen=True)
class Reactivate:
    """Scale up the MLP coefficients that a model uses least, without training.

    In each layer, those below a quantile of their mean size over the text are brought to the layer's mean (times a
    gain) by a change of weights: exactly in gated MLPs, roughly in plain ones. Measured before and after; the
    changed model is a Hugging Face folder.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Model reference: hf:ORG/NAME[@REVISION], dir:PATH, gguf:PATH or run:DIR[@STEP]."""
    data: Annotated[str, tyro.conf.arg(metavar="REF")]
    """The text: text:GLOB, jsonl:PATH#FIELD, tfds:NAME[/CONFIG]:SPLIT#FIELD or builtin:NAME (docs, code)."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """A new folder for the changed model; what was measured lies in it as reactivation.json."""
    ratio: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.5
    """The share of a layer's coefficients that is scaled, 0 to 1."""
    gain: Annotated[float, tyro.conf.arg(metavar="FACTOR")] = 1.0
    """They are brought to this many times the layer's mean."""
    control: Literal["none", "random"] = "none"
    """random: as many coefficients, but any, to compare with."""
    strength: Literal["equal", "entropy"] = "equal"
    """entropy: more of them where a layer's entropy is low, with SHARE as the mean over layers."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of the random control."""
    length: Annotated[int, tyro.conf.arg(metavar="T")] = 512
    """Tokens of one window."""
    batch: Annotated[int, tyro.conf.arg(metavar="B")] = 1
    """Windows of one forward pass."""
    tokens: Count = None
    """Stop after N predictions; the whole text if not given."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations; auto is bfloat16 on GPU and TPU, float32 on a CPU."""


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Fit a scaling law L(N, T) = E + A / N^a + B / T^b to the runs of a table, and say how far each model ends from it.

    The table is a CSV file whose first line names the columns N (parameters), T (training tokens) and loss (nats a token); a
    checkpoint a line. lmdyn report draws what was found.
    """

    table: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE.csv")]
    """The runs."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Rows are written here as JSON Lines, and what made them to FILE.meta.json."""
    above: Annotated[float, tyro.conf.arg(metavar="N")] = 0.0
    """Fit models with more parameters than this; smaller ones are only held against the law."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of the bootstrap that intervals come from."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Build the HTML page of a folder of rows, or of several folders beside one another.

    The page is one file that needs no network. It can be built again from the rows at any time.
    """

    folders: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="DIR...")]
    """Each holds the rows of lmdyn measure and lmdyn online, of a run or of a study, or folders that do."""
    out: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: DIR/report.html; needed for several)")] = None
    """The page to write."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Pretrain a model, or train one further, into a run: checkpoints, log, measurements.

    What is trained on what is said by a Python file, --config FILE, whose config() returns a lmdyn.training.Train.
    The same command goes on with a run that was stopped.
    """


@dataclasses.dataclass(frozen=True)
class Plan:
    """Compile a run's training step for a mesh that is not there: bytes per device, FLOPs.

    Takes the same --config FILE as lmdyn train, and --mesh DATA,FSDP,TENSOR.
    """


@dataclasses.dataclass(frozen=True)
class Study:
    """Run a paper's whole experiment: rows, figures, claims and a report, in one folder.

    Which one is said by a Python file, --config FILE, whose config() returns a study of lmdyn.studies, such as
    configs/knowledge_entropy.py; the study's fields are then options too. The same command goes on with a study that was stopped.
    """


VERBS = {"measure": Measure, "online": Online, "report": Report, "train": Train, "plan": Plan, "reactivate": Reactivate,
         "gradients": Gradients, "study": Study, "scaling": Scaling}
EXAMPLE_CONFIGS = {"train": "configs/tiny.py", "plan": "configs/tiny.py", "study": "configs/knowledge_entropy.py"}
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
    """Runs one command line and returns its exit code: 0, 2 for what the user can mend, 130 for Ctrl-C.

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
        from lmdyn import commands

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
        mend = "; free some space, or write elsewhere" if err.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return _fail(f"{err.strerror or err}{where}{mend}; nothing was written")
    except MemoryError:
        return _fail("out of memory; use a smaller --batch, --length or --chunk; nothing was written")
    except RuntimeError as err:
        if "RESOURCE_EXHAUSTED" not in str(err) and "out of memory" not in str(err).lower():
            raise
        return _fail("out of memory on the device; use a smaller --batch, --length or --chunk; nothing was written")


def parse(argv: list[str]) -> Measure | Online | Reactivate | Report | None:
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
        default = {"default": configured} if isinstance(configured, kind) else {}
        if not default and hasattr(kind, "example"):  # a run's options can be shown only where there are some
            default = {"default": kind.example()}
        brief = not set(argv) & VERBS.keys()
        if _is_study(configured) and name == "study":  # a choice inside what only the file can say is no command of its own
            kind = Annotated[kind, tyro.conf.AvoidSubcommands]
        verbs.append(Annotated[kind, tyro.conf.subcommand(name, description=_text(kind, brief), **default)])
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
        raise InputError(f"{_brief(said.getvalue(), names)}; see lmdyn {verb + ' ' if verb else ''}--help") from None
    if isinstance(options, Measure | Gradients) and not options.models:
        raise InputError(f"no model given; see lmdyn {_verb_of(options)} --help")
    if isinstance(options, Gradients) and not options.probe:
        raise InputError("no probes given; see lmdyn gradients --help")
    return options


def _kinds(argv: list[str]) -> dict:
    """The options of each verb. Those of `train` and `plan` are made of what a run is, which imports JAX: only if asked for."""
    if not {"train", "plan"} & set(argv):
        return VERBS
    from lmdyn.training import options

    return {**VERBS, "train": options.TrainOptions, "plan": options.PlanOptions}


def _configured(argv: list[str], kinds: dict):
    """The words without `--config FILE`, and what that file's `config()` returns (None without one)."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    verb = next((word for word in words if word in VERBS), "")
    if "--config" not in words:
        if verb in EXAMPLE_CONFIGS and not {"-h", "--help"} & set(words):
            raise InputError(f"{verb} needs --config FILE, such as {EXAMPLE_CONFIGS[verb]}; see lmdyn {verb} --help")
        return argv, None
    at = words.index("--config")
    if at + 1 == len(words):
        raise InputError("--config needs a value: a Python file")
    path, rest = words[at + 1], words[:at] + words[at + 2 :]
    kind = kinds.get(verb)
    try:
        made = runpy.run_path(path)["config"]()
        if verb in ("train", "plan") and type(made).__name__ == "Train":
            made = kind(run=made)
    except OSError as err:
        raise InputError(f"--config {path}: {err.strerror}") from err
    except KeyError as err:
        raise InputError(f"--config {path} has no function config(); write one that returns {kind.__name__ if kind else 'options'}(...)") from err
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
        inside = [k for k in (hints[field.name], *typing.get_args(hints[field.name])) if dataclasses.is_dataclass(k)]
        found += _option_names(inside[0], name and f"{name}.") if inside else [f"--{name}"]
    return found


def _brief(box: str, options: Iterable[str]) -> str:
    """The parser's boxed message as one line; `options` are those of the verb, to guess what was meant."""
    plain = (re.sub(r"^[\s│]+|[\s│]+$", "", line) for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines())
    lines = [line for line in plain if line and line[0] not in "╭╰"]
    text = " ".join(lines)
    if ours := re.search(r"Error parsing (--[\w.-]+|[A-Z_]\w*[\w.-]*): (.*?) *-----", text):
        if not ours[1].startswith("--"):  # a dataclass that refused its fields
            return ours[2]
        if "could not convert" not in ours[2] and "invalid literal" not in ours[2]:
            return f"{ours[1]}: {ours[2]}"
    if bad := re.search(r"(?:Error parsing|invalid choice '.*' for argument) '?(--[\w.-]+|[A-Z]\w*)'?", text):
        got = re.search(r"from \['(.*?)'\]|invalid choice '(.*?)'|with base 10: '(.*?)'|to float: '(.*?)'", text)
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
        parts.append(f"unknown: {' '.join(unknown)}" + (f" (did you mean {near[0]}?)" if near else ""))
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
        line if len(line) <= width else textwrap.fill(line, width) for line in map(str.rstrip, text.splitlines())
    ).rstrip()


def _fail(message: str, code: int = 2) -> int:
    sys.stdout.flush()
    print(f"lmdyn: error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
