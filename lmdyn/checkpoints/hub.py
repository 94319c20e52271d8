"""The Hugging Face hub: local folders of its repositories, and their revisions."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from lmdyn.errors import InputError

PYTORCH = ("pytorch_model*.bin",)
CHECKPOINT = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "tokenizer*",
    "merges.txt",
    "*.tiktoken",
    "tiktoken.model",
    "spiece.model",
)


def download(
    repository: str, revision: str | None = None, patterns: Sequence[str] = CHECKPOINT
) -> pathlib.Path:
    """The local folder of a hub repository's revision: from the cache, or fetched into it.

    Honours what `huggingface_hub` does: `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_TOKEN`.

    Args:
      repository: `ORG/NAME`.
      revision: a branch, a tag or a commit; default the main branch.
      patterns: which files: `CHECKPOINT` (where it has no safetensors, PyTorch's files too), or
        `lmdyn.data.tokenizers.FILES` without weights.

    Raises:
      InputError: the extra `hub` is not installed, there is no such repository or revision, or the
        hub is out of reach.

    >>> folder = download("HuggingFaceTB/SmolLM2-135M")  # doctest: +SKIP
    """
    hub = _hub()

    def fetch(patterns: Sequence[str]) -> pathlib.Path:
        return pathlib.Path(
            hub.snapshot_download(repository, revision=revision, allow_patterns=list(patterns))
        )

    try:
        folder = fetch(patterns)
        if patterns == CHECKPOINT and not any(folder.glob("*.safetensors")):
            folder = fetch(PYTORCH)
        return folder
    except Exception as err:
        raise _translated(err, repository, revision) from err


def revisions(repository: str) -> list[str]:
    """The names of a hub repository's branches and tags; without a network, those in the cache.

    Raises:
      InputError: as `download`.

    >>> revisions("EleutherAI/pythia-70m")[:2]  # doctest: +SKIP
    ['main', 'step0']
    """
    hub = _hub()
    try:
        refs = hub.list_repo_refs(repository)
        return [ref.name for ref in (*refs.branches, *refs.tags)]
    except Exception as err:
        cached = pathlib.Path(
            hub.constants.HF_HUB_CACHE, "models--" + repository.replace("/", "--"), "refs"
        )
        names = [str(p.relative_to(cached)) for p in cached.rglob("*") if p.is_file()]
        if names and not isinstance(err, hub.errors.RepositoryNotFoundError):
            return names
        raise _translated(err, repository, None) from err


class HubFile(NamedTuple):
    """A file of a repository. Made by `files`."""

    name: str
    size: int
    """in bytes"""
    digest: str
    """SHA-256 of a large file; of a small one, git's name for its content"""


def files(repository: str, revision: str | None = None) -> list[HubFile]:
    """The files of a repository's revision, by its list: nothing is downloaded.

    Args:
      repository: `ORG/NAME`.
      revision: a branch, a tag or a commit; default the main branch.

    Raises:
      InputError: as `download`.

    >>> [file.name for file in files("EleutherAI/pythia-70m", "step0")]  # doctest: +SKIP
    ['.gitattributes', 'config.json', 'model.safetensors', ...]
    """
    hub = _hub()
    try:
        tree = list(hub.HfApi().list_repo_tree(repository, revision=revision))
    except Exception as err:
        raise _translated(err, repository, revision) from err
    return [
        HubFile(one.path, one.size, one.lfs.sha256 if one.lfs else one.blob_id)
        for one in tree
        if isinstance(one, hub.hf_api.RepoFile)
    ]


def download_file(repository: str, revision: str | None, name: str) -> pathlib.Path:
    """One file of a repository's revision: from the cache, or fetched into it.

    Args:
      repository: `ORG/NAME`.
      revision: a branch, a tag or a commit; default the main branch.
      name: of the file.

    Raises:
      InputError: as `download`.

    >>> path = download_file("EleutherAI/pythia-70m", "step0", "config.json")  # doctest: +SKIP
    """
    hub = _hub()
    try:
        return pathlib.Path(hub.hf_hub_download(repository, name, revision=revision))
    except Exception as err:
        raise _translated(err, repository, revision) from err


def _hub():
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as err:
        raise InputError("hf: references need huggingface_hub; pip install lmdyn[hub]") from err
    return huggingface_hub


def _translated(err: Exception, repository: str, revision: str | None) -> InputError:
    errors = _hub().errors
    where = f"hf:{repository}" + (f"@{revision}" if revision else "")
    if isinstance(err, errors.GatedRepoError):
        return InputError(
            f"{where} is gated; accept its terms on the hub and log in with `hf auth login`"
        )
    if isinstance(err, errors.RevisionNotFoundError):
        return InputError(f"{where}: no such revision; `hf:{repository}@*` takes all there are")
    if isinstance(err, errors.RepositoryNotFoundError):
        return InputError(
            f"{where}: no such repository on the hub, or it is private and needs `hf auth login`"
        )
    if isinstance(err, errors.HFValidationError):
        return InputError(
            f"{where}: '{repository}' is not the name of a repository; write hf:ORG/NAME[@REVISION]"
        )
    if isinstance(err, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return InputError(
            f"{where} is not in the cache, and the hub is out of reach or HF_HUB_OFFLINE is set;"
            f" fetch it with a network (hf download {repository}), or name a folder: dir:PATH"
        )
    reason = " ".join(str(err).split())[:200] or type(err).__name__
    return InputError(
        f"{where} could not be fetched: {reason}; try again, or name a folder: dir:PATH"
    )
