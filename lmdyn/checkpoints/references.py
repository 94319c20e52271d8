"""Where a model is, and series of models.

References are `hf:ORG/NAME[@REVISION]`, `dir:PATH`, `gguf:PATH` and `run:DIR[@STEP]`. After `@`
comes one revision, a list (`@step1000,step2000`), a range (`@step0..step1000`, both ends included),
or `*`. Of a `dir:` the revisions are its subfolders that hold a checkpoint; of a `run:` they are
its steps (`@100..1000`), and without one it is the last checkpoint that is whole.
"""

import dataclasses
import pathlib
import re

from lmdyn.checkpoints import hub, runs
from lmdyn.errors import InputError, choose

REFERENCE_KINDS = ("hf", "dir", "gguf", "run")
_STEP = re.compile(
    r"(?:^|[^a-z])(?:global_?step|step|checkpoint|ckpt|iter)[-_]?(\d+)", re.IGNORECASE
)


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
    def step(self) -> int | None:
        """The training step that the revision names (of a `dir:` without one, the folder), or None.

        >>> Reference("dir", "models/checkpoint-500").step
        500
        """
        name = self.revision
        if name is None and self.kind == "dir":
            name = pathlib.Path(self.path).name
        if name is None:
            return None
        match = _STEP.search(name)
        if match:
            return int(match[1])
        return int(name) if self.revision is not None and re.fullmatch(r"\d{1,12}", name) else None

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
                    f"'{item}' is no step of a run; write run:{path}@1000, or run:{path} for the"
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
        raise InputError(f"'{ref}' names {len(found)} checkpoints; one is needed here")
    return found[0]


def _split(ref: str) -> tuple[str, str, str | None]:
    kind, colon, rest = ref.partition(":")
    if not colon:
        raise InputError(
            f"'{ref}' is no model reference; write one of hf:ORG/NAME[@REVISION], dir:PATH,"
            " gguf:PATH, run:DIR[@STEP]"
        )
    choose("kind of model reference", kind, REFERENCE_KINDS)
    if not rest:
        raise InputError(f"'{ref}' names nothing after {kind}:")
    if kind == "gguf" or (kind in ("dir", "run") and pathlib.Path(rest).exists()):
        return kind, rest, None
    path, at, revision = rest.rpartition("@")
    return (kind, path, revision) if at else (kind, rest, None)


def _available(kind: str, path: str) -> list[str]:
    if kind == "hf":
        names = hub.revisions(path)
    elif kind == "dir":
        folder = pathlib.Path(path)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        names = [p.parent.name for p in folder.glob("*/config.json")]
    else:
        names = [str(step) for step in runs.steps(path)]
    if not names and kind == "run":
        raise InputError(f"{path} has no checkpoint yet; train it further")
    if not names:
        raise InputError(f"{kind}:{path} has no revisions")
    return sorted(names, key=lambda name: _order(kind, path, name))


def _order(kind: str, path: str, name: str):
    step = Reference(kind, path, name).step
    return (step is None, step or 0, name)


def _range(kind: str, path: str, item: str) -> list[str]:
    low, high = (Reference(kind, path, end).step for end in item.split("..", 1))
    if low is None or high is None or low > high:
        raise InputError(f"'{item}' is no range of steps; write step0..step1000")
    steps = {name: Reference(kind, path, name).step for name in _available(kind, path)}
    found = [name for name, step in steps.items() if step is not None and low <= step <= high]
    if not found:
        raise InputError(f"{kind}:{path} has no checkpoint with a step in {item}")
    return found
