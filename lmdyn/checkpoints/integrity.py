"""What a series holds, before anything of it is loaded: files, sizes, digests, and what is wrong.

Published series are damaged where nobody looks: branches of one step that hold another's weights,
a shard that belongs to another step. The hub gives the SHA-256 of every large file, so this is seen
without a download.
"""

import collections
import hashlib
import itertools
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lmdyn.checkpoints import hub, runs
from lmdyn.checkpoints.formats.folder import check_folder, weight_files
from lmdyn.checkpoints.references import Reference
from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig
from lmdyn.params import fingerprint


class StoredFile(NamedTuple):
    """A file of parameters. Part of `Listing`."""

    name: str
    size: int
    """in bytes"""
    digest: str
    """SHA-256 of its content; of a run's checkpoint, the fingerprint of its parameters"""


class Listing(NamedTuple):
    """One checkpoint of a series. Made by `list_checkpoint`."""

    reference: Reference
    files: tuple[StoredFile, ...] = ()
    config: ModelConfig | None = None
    problem: str | None = None
    """why it cannot be read, in one line"""

    @property
    def size(self) -> int:
        """Bytes of parameters."""
        return sum(file.size for file in self.files)


def list_checkpoint(reference: Reference) -> Listing:
    """The files of one checkpoint; of the hub, without downloading them.

    Args:
      reference: of the checkpoint; `gguf:` is one file.

    >>> import tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "config.json").write_text('{"model_type": "gpt2"}')
    >>> list_checkpoint(Reference("dir", str(folder))).problem.partition(" has ")[2]
    'no model.safetensors or pytorch_model.bin, nor other weights; fetch the whole checkpoint'
    """
    try:
        if reference.kind == "run":
            return _of_run(reference)
        if reference.kind == "gguf":
            return Listing(reference, (_hashed(pathlib.Path(reference.path)),))
        return _of_hub(reference) if reference.kind == "hf" else _of_folder(reference)
    except InputError as err:
        return Listing(reference, problem=str(err))


def _of_run(reference: Reference) -> Listing:
    config, *_ = runs.describe(reference.path)
    step = runs.latest(reference.path) if reference.step is None else reference.step
    folder = pathlib.Path(reference.path, "checkpoints", str(step), "params")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    digest = fingerprint(runs.read_params(reference.path, step))
    return Listing(reference, (StoredFile("params", size, digest),), config)


def _of_folder(reference: Reference) -> Listing:
    folder = pathlib.Path(reference.path, reference.revision or "")
    config = check_folder(folder)
    return Listing(reference, tuple(map(_hashed, weight_files(folder))), config)


def _of_hub(reference: Reference) -> Listing:
    """As `_of_folder`, of a folder with the same names in which only JSON has content."""
    found = {file.name: file for file in hub.files(reference.path, reference.revision)}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for file in found:
            if file == "config.json" or file.endswith(".index.json"):
                path = hub.download_file(reference.path, reference.revision, file)
                shutil.copyfile(path, folder / file)
            else:
                (folder / file).touch()
        try:
            config = check_folder(folder)
            names = [path.name for path in weight_files(folder)]
        except InputError as err:
            raise InputError(str(err).replace(name, str(reference))) from err
    files = tuple(StoredFile(name, found[name].size, found[name].digest) for name in names)
    return Listing(reference, files, config)


def _hashed(path: pathlib.Path) -> StoredFile:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise InputError(f"{path}: {err.strerror}") from err
    return StoredFile(path.name, path.stat().st_size, digest)


def remarks(listings: Sequence[Listing]) -> dict[Reference, list[str]]:
    """What is odd about the checkpoints of a series, by checkpoint, each in one line.

    Args:
      listings: in the order of training.

    Returns:
      For those that have any: why it cannot be read; an earlier checkpoint with the same
      parameters; shards of another one; another architecture than the one before; steps that are
      missing before it.

    >>> one, other = (Reference("hf", "org/name", f"step{step}") for step in (1, 2))
    >>> same = (StoredFile("model.safetensors", 7, "abc"),)
    >>> remarks([Listing(one, same), Listing(other, same)])[other]
    ['the same parameters as step1']
    """
    found: dict[Reference, list[str]] = collections.defaultdict(list)
    whole: dict[tuple[str, ...], Reference] = {}
    single: dict[str, tuple[str, Reference]] = {}
    before: Listing | None = None
    for listing in listings:
        reference = listing.reference
        if listing.problem is not None:
            found[reference].append(f"cannot be read: {listing.problem}")
            continue
        digests = tuple(file.digest for file in listing.files)
        first = whole.setdefault(digests, reference)
        if first is not reference:
            found[reference].append(f"the same parameters as {_short(first)}")
        else:
            for file in listing.files:
                name, other = single.setdefault(file.digest, (file.name, reference))
                if other is not reference:
                    found[reference].append(f"its {file.name} is {name} of {_short(other)}")
        if before is not None and listing.config not in (None, before.config):
            found[reference].append(f"another architecture than {_short(before.reference)}")
        before = listing if listing.config is not None else before  # a GGUF file's is not read
    for reference, missing in _gaps([listing.reference for listing in listings]).items():
        found[reference].append(missing)
    return dict(found)


def _short(reference: Reference) -> str:
    return reference.revision or str(reference)


def _gaps(references: Iterable[Reference]) -> dict[Reference, str]:
    """The checkpoints before which steps are missing, of branches that are regular elsewhere."""
    branches: dict[tuple[str, str], list[Reference]] = collections.defaultdict(list)
    for reference in references:
        if reference.step is not None:
            branches[reference.path, reference.says.branch].append(reference)
    found = {}
    for branch in branches.values():
        ordered = sorted(branch, key=lambda reference: reference.step or 0)
        steps = [reference.step or 0 for reference in ordered]
        apart = [b - a for a, b in itertools.pairwise(steps)]
        usual, times = collections.Counter(apart).most_common(1)[0] if apart else (0, 0)
        if not usual or times < 3 or times * 2 < len(apart):
            continue
        for reference, last, distance in zip(ordered[1:], steps[:-1], apart, strict=True):
            if distance > usual and distance % usual == 0:
                count = distance // usual - 1
                found[reference] = (
                    f"{count} missing after step {last}, where others are {usual} apart"
                )
    return found


def table(listings: Sequence[Listing]) -> list[str]:
    """The lines that `lmdyn series` prints: a checkpoint each.

    Args:
      listings: in the order of training.

    >>> one = Reference("hf", "org/name", "step10-tokens2B")
    >>> file = StoredFile("model.safetensors", 7 * 2**20, "abcdef")
    >>> for line in table([Listing(one, (file,))]):
    ...     print(line)
    checkpoint       stage  step  tokens  MiB  file               sha256  remarks
    step10-tokens2B      -    10      2B  7.0  model.safetensors  abcdef
    """
    noted = remarks(listings)
    rows = [("checkpoint", "stage", "step", "tokens", "MiB", "file", "sha256", "remarks")]
    for listing in listings:
        says, files = listing.reference.says, listing.files
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        digest = hashlib.sha256(json.dumps([f.digest for f in files]).encode()).hexdigest()
        rows.append(
            (
                _short(listing.reference),
                _or_dash(says.stage),
                _or_dash(says.step),
                "-" if says.tokens is None else f"{says.tokens / 1e9:g}B",
                f"{listing.size / 2**20:.1f}" if files else "-",
                files[0].name + more if files else "-",
                (files[0].digest if len(files) == 1 else digest)[:12] if files else "-",
                "; ".join(noted.get(listing.reference, [])),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [_line(row, widths) for row in rows]


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    left = (0, 5, 6, 7)  # words; the others are numbers
    cells = [
        cell.ljust(width) if i in left else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
