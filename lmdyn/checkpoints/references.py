"""Where a model is, and series of models.

References are `hf:ORG/NAME[@REVISION]`, `dir:PATH`, `gguf:PATH` and `run:DIR[@STEP]`. After `@`
comes one revision, a list (`@step1000,step2000`), a range (`@step0..step1000`, both ends included),
or `*`. Of a `dir:` the revisions are its subfolders that hold a checkpoint; of a `run:` they are
its steps (`@100..1000`), and without one it is the last checkpoint that is whole. A range stays
within the branch that its ends name (`stage1-step0..stage1-step9000`), and `*` goes from stage to
stage. Runs that differ by a number are written `hf:EleutherAI/pythia-70m-seed{1..9}@*`.
"""

import dataclasses
import pathlib
import re
from typing import Any

from lmdyn.checkpoints import hub, runs
from lmdyn.checkpoints.revisions import RevisionName, read_name
from lmdyn.errors import InputError, choose

_FORMS = {
    "hf": "hf:ORG/NAME[@REVISION]",
    "dir": "dir:PATH",
    "gguf": "gguf:PATH",
    "run": "run:DIR[@STEP]",
}
REFERENCE_KINDS = tuple(_FORMS)
_SEED = re.compile(r"[-_]seed[-_]?(\d+)$", re.IGNORECASE)
_RUNS = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclasses.dataclass(frozen=True)
class Reference:
    """One checkpoint.

    >>> Reference("hf", "EleutherAI/pythia-70m", "step1000").step
    1000
    >>> str(Reference("gguf", "model.gguf"))
    'gguf:model.gguf'
    """

    kind: str
    path: str
    revision: str | None = None

    @property
    def says(self) -> RevisionName:
        """What the revision's name says; of a `dir:` or `hf:` without one, its own name.

        >>> Reference("hf", "org/TinyLlama-1.1B-step-50K-105b").says.tokens
        105000000000
        """
        if self.kind not in ("hf", "dir"):
            return read_name(self.revision or "")
        name = pathlib.PurePath(self.path).name
        run = _SEED.search(name)  # some series have a repository or folder for each seed
        seed = run[1] if run else None
        if self.revision is None:
            says = read_name("" if name.isdigit() else name)
            return says._replace(seed=seed)
        says = read_name(self.revision)
        return says._replace(seed=says.seed or seed)

    @property
    def step(self) -> int | None:
        """The training step that the name says, or None.

        >>> Reference("dir", "models/checkpoint-500").step
        500
        """
        return self.says.step

    def fields(self) -> dict[str, Any]:
        """What the name says of the checkpoint, for its rows.

        Returns:
          `step`, and of `stage`, `seed` and `trained_tokens` those that the name says.

        >>> Reference("hf", "allenai/OLMo-2-0425-1B", "stage1-step300-tokens1B").fields()
        {'step': 300, 'stage': 1, 'trained_tokens': 1000000000}
        """
        says = self.says
        more = {"stage": says.stage, "seed": says.seed, "trained_tokens": says.tokens}
        return {"step": says.step, **{k: v for k, v in more.items() if v is not None}}

    @property
    def name(self) -> str:
        """What to call the model in results; revisions that are steps are left to `step`.

        >>> Reference("hf", "EleutherAI/pythia-70m", "step1000").name
        'EleutherAI/pythia-70m'
        """
        base = self.path if self.kind == "hf" else pathlib.Path(self.path).resolve().name
        base = base.removesuffix(".gguf")
        return base if self.revision is None or self.step is not None else f"{base}@{self.revision}"

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}" + (
            f"@{self.revision}" if self.revision is not None else ""
        )


def series(ref: str) -> list[Reference]:
    """The checkpoints that `ref` names, in the order given; of `*` and ranges by their steps.

    Raises:
      InputError: not a reference, or nothing matches.

    >>> [str(r) for r in series("hf:EleutherAI/pythia-70m@step1000,step2000")]
    ['hf:EleutherAI/pythia-70m@step1000', 'hf:EleutherAI/pythia-70m@step2000']
    """
    if runs_of := _RUNS.search(ref):
        low, high = int(runs_of[1]), int(runs_of[2])
        if not low <= high < low + 1000:
            raise InputError(f"'{runs_of[0]}' is not a range of runs; write {{1..9}}, at most 1000")
        ends = ref[: runs_of.start()], ref[runs_of.end() :]
        return [r for i in range(low, high + 1) for r in series(f"{ends[0]}{i}{ends[1]}")]
    kind, path, revision = _split(ref)
    if revision is None:
        return [Reference(kind, path, str(runs.latest(path)) if kind == "run" else None)]
    found: list[str] = []
    for item in revision.split(","):
        if item == "*":
            found += _available(kind, path)
        elif ".." in item and kind != "gguf":
            found += _range(kind, path, item)
        elif item:
            if kind == "run" and Reference(kind, path, item).step is None:
                raise InputError(
                    f"'{item}' is not a step of a run; write run:{path}@1000, or run:{path} for the"
                    " last one"
                )
            found.append(item)
        else:
            raise InputError(f"'{ref}' has an empty revision; write {kind}:{path}@A or @A,B")
    return [Reference(kind, path, item) for item in dict.fromkeys(found)]


def parse(ref: str) -> Reference:
    """The one checkpoint that `ref` names.

    Raises:
      InputError: not a reference, or one to several checkpoints.

    >>> parse("hf:allenai/OLMo-2-0425-1B@main").step is None
    True
    """
    found = series(ref)
    if len(found) != 1:
        raise InputError(
            f"'{ref}' names {len(found)} checkpoints, and one is needed here; write {found[-1]}"
        )
    return found[0]


def _split(ref: str) -> tuple[str, str, str | None]:
    kind, colon, rest = ref.partition(":")
    if not colon or (kind not in REFERENCE_KINDS and _meant(ref)):
        meant = _meant(ref) or f"one of {', '.join(_FORMS.values())}"
        raise InputError(f"'{ref}' is not a model reference; write {meant}")
    choose("kind of model reference", kind, REFERENCE_KINDS)
    if not rest:
        raise InputError(f"'{ref}' names nothing after {kind}:; write {_FORMS[kind]}")
    if "://" in rest:
        raise InputError(f"'{ref}' holds an address; write {_meant(rest) or _FORMS[kind]}")
    if kind == "gguf" or (kind in ("dir", "run") and pathlib.Path(rest).exists()):
        return kind, rest, None
    path, at, revision = rest.rpartition("@")
    return (kind, path, revision) if at else (kind, rest, None)


def _meant(ref: str) -> str | None:
    """The reference that a path, a name or an address without a kind stands for, if any."""
    path = pathlib.Path(ref)
    if match := re.match(r"https?://(?:huggingface\.co|hf\.co)/([^/?#]+/[^/?#]+)", ref):
        return f"hf:{match[1]}"
    if "://" in ref:
        return "a path: addresses are not fetched (dir:PATH, gguf:PATH)"
    if ref.endswith(".gguf"):
        return f"gguf:{ref}"
    if path.is_file():
        return f"the model's folder: dir:{path.parent}"
    if (path / "run.json").is_file():
        return f"run:{ref}"
    if path.is_dir() or path.is_absolute() or re.match(r"\.{1,2}/|~|[A-Za-z]:[\\/]", ref):
        return f"dir:{ref}"
    return f"hf:{ref}, or dir:PATH" if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.*,-]+)?", ref) else None


def _available(kind: str, path: str) -> list[str]:
    if kind == "hf":
        names = hub.revisions(path)
    elif kind == "dir":
        folder = pathlib.Path(path)
        if not folder.is_dir():
            raise InputError(f"no such folder: {folder}")
        names = [p.parent.name for p in folder.glob("*/config.json")]
    else:
        names = [str(step) for step in runs.steps(path)]
    if not names and kind == "run":
        raise InputError(f"{path} has no checkpoint yet; train it further")
    if not names:
        raise InputError(
            f"{kind}:{path} has no revisions"
            f"{' (folders with a config.json)' if kind == 'dir' else ''}; write {kind}:{path}"
        )
    return sorted(names, key=lambda name: (read_name(name).order, name))


def _range(kind: str, path: str, item: str) -> list[str]:
    low, high = (read_name(end) for end in item.split("..", 1))
    if low.step is None or high.step is None or low.step > high.step:
        raise InputError(f"'{item}' is not a range of steps; write step0..step1000")
    if low.branch != high.branch:
        raise InputError(
            f"'{item}' goes from branch '{low.branch}' to '{high.branch}'; write a range for each,"
            " with a comma between"
        )
    names = {name: read_name(name) for name in _available(kind, path)}
    found = [
        name
        for name, says in names.items()
        if says.branch == low.branch
        and says.step is not None
        and low.step <= says.step <= high.step
    ]
    if not found:
        branches = sorted({says.branch for says in names.values() if says.step is not None})
        raise InputError(
            f"{kind}:{path} has no checkpoint with a step in {item}"
            + (f"; its branches: {', '.join(branches)}" if branches not in ([], [""]) else "")
        )
    return found
