"""A reference to a model that runs."""

import contextlib
import hashlib
import pathlib
from typing import Any, NamedTuple

from lmdyn.checkpoints import hub, runs
from lmdyn.checkpoints.assemble import Checkpoint
from lmdyn.checkpoints.formats.folder import check_folder, read_folder
from lmdyn.checkpoints.formats.gguf import read_gguf
from lmdyn.checkpoints.references import Reference, parse
from lmdyn.data.tokenizers import Tokenizer, from_folder
from lmdyn.errors import InputError
from lmdyn.models import Compute, LanguageModel


class Loaded(NamedTuple):
    """A model, its parameters and tokenizer, made by `load`."""

    model: LanguageModel
    params: Any
    tokenizer: Tokenizer
    name: str
    """for the rows of results"""
    step: int | None
    """of training, for the rows of results"""


def load(
    ref: str | Reference,
    compute: Compute | None = None,
    packed: bool = False,
    family: str | None = None,
    end_of_text: str | int | None = None,
    pre: str | None = None,
) -> Loaded:
    """The checkpoint that `ref` names, on the default device, in float32.

    Args:
      ref: such as "hf:EleutherAI/pythia-70m@step1000", "dir:folder", "gguf:model.gguf",
        "run:folder@1000", or a `Reference`.
      compute: how the model is run; default `Compute()`.
      packed: keep the quantised matrices of a GGUF file as they are
        (`lmdyn.models.QuantizedMatrix`): the same numbers in an eighth of the memory, for measuring
        only. Other files are read as always.
      family: for the folders of models that lmdyn does not know: the dotted name of a
        `lmdyn.checkpoints.families.Family`, such as `my_pkg.GPTJ`.
      end_of_text: the token that ends a document, or its id, in place of the tokenizer's own.
      pre: of a GGUF file: how its tokenizer cuts text before it merges bytes, by llama.cpp's name,
        such as "llama-bpe"; default: as the file says.

    Raises:
      InputError: one line that says what is wrong with the reference or the files.

    >>> import tempfile
    >>> from lmdyn import checkpoints, models
    >>> from lmdyn.data import tokenizers
    >>> config = models.ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> folder = tempfile.mkdtemp() + "/tiny"
    >>> checkpoints.export(model, models.init(model), tokenizers.byte_tokenizer(), folder)
    >>> loaded = load(f"dir:{folder}")
    >>> loaded.model.config.width, loaded.params["blocks"]["mlp"]["up"]["kernel"].shape
    (6, (2, 6, 10))
    """
    found = parse(ref) if isinstance(ref, str) else ref
    if pre is not None and found.kind != "gguf":
        raise InputError(f"pre={pre} is for gguf: references, and {found} is none; leave it out")
    if found.kind == "run":
        found = parse(str(found))
        config, tokenizer, *_ = runs.describe(found.path)
        tokenizer = tokenizer.with_end_of_text(end_of_text)
        checkpoint = Checkpoint(config, runs.read_params(found.path, found.step))
    elif found.kind == "gguf":
        checkpoint, tokenizer = read_gguf(found.path, found.name, packed, end_of_text, pre)
    else:
        folder = _folder(found)
        check_folder(folder, family)
        tokenizer = from_folder(folder, found.name, end_of_text)
        checkpoint = read_folder(folder, family)
    config = checkpoint.config
    if tokenizer.vocab > config.vocab:
        tokenizer = tokenizer.within(config.vocab)
    if tokenizer.vocab > config.vocab:
        raise InputError(
            f"{found}: the tokenizer has {tokenizer.vocab} ids but the embedding only"
            f" {config.vocab} rows; they are of different models"
        )
    return Loaded(
        LanguageModel(config, compute or Compute()),
        checkpoint.params,
        tokenizer,
        found.name,
        found.step,
    )


def _folder(found: Reference) -> pathlib.Path:
    if found.kind == "hf":
        return hub.download(found.path, found.revision)
    whole = pathlib.Path(found.path)
    folder = whole / (found.revision or "")
    if whole.is_dir() and not folder.is_dir():
        there = ", ".join(sorted(path.parent.name for path in whole.glob("*/config.json")))
        raise InputError(
            f"{found}: {whole} has no folder {found.revision}; its checkpoints are:"
            f" {there or 'none'}"
        )
    return folder


def prefetch(reference: Reference) -> None:
    """Brings a hub's checkpoint into the cache; what goes wrong is said when it is loaded.

    >>> prefetch(Reference("dir", "/nowhere"))  # nothing to bring
    """
    if reference.kind == "hf":
        with contextlib.suppress(InputError):
            hub.download(reference.path, reference.revision)


def stamp(reference: Reference) -> str:
    """Changes when the files of a checkpoint on this machine do; empty for one of the hub.

    >>> import tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> before = stamp(Reference("dir", str(folder)))
    >>> (folder / "config.json").touch()
    >>> before == stamp(Reference("dir", str(folder)))
    False
    """
    if reference.kind == "hf":
        return reference.revision or ""
    path = pathlib.Path(reference.path)
    if reference.kind == "run":
        path = path / "checkpoints" / (reference.revision or "")
    elif reference.kind == "dir":
        path = path / (reference.revision or "")
    files = [path] if path.is_file() else sorted(path.glob("*"))
    told = [(p.name, s.st_size, s.st_mtime_ns) for p in files for s in [p.stat()]]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
