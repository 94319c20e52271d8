"""Final states of a frozen body, computed once and kept on disk.

What a head reads is then a memory map.

A store is a folder named by a digest of the body's parameters, how it is run, and the text's tokens
and windows, so another model or text never meets old states. It takes 4 D bytes a token: 0.6 GB for
280,000 tokens of width 576.

Shape letters: N predictions, D width.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from lmdyn.data import Windows, check_tokens
from lmdyn.data.token_store import default_cache
from lmdyn.errors import InputError
from lmdyn.files import atomic_folder
from lmdyn.models import LanguageModel, forward
from lmdyn.types import Params, present

STATES_FORMAT = 1


class FinalStates(NamedTuple):
    """The states that a head reads, and the tokens it has to predict. Made by `final_states`.

    Attributes:
      states: `[N, D]` float32, after the final norm; a memory map.
      targets: `[N]` int32.
      digest: hexadecimal, of model and text.
    """

    states: np.ndarray
    targets: np.ndarray
    digest: str


def final_states(
    model: LanguageModel,
    params: Params,
    batches: Windows,
    *,
    cache: str | os.PathLike | None = None,
    progress: bool = False,
) -> FinalStates:
    """The final states of a text, from the cache on disk.

    Computed and put there if they are not.

    Args:
      model: the model, as `lmdyn.load` returns it.
      params: the model's parameters.
      batches: windows of the text; see `lmdyn.data.batches`. Every prediction is one row, in the
        text's order.
      cache: folder of stores; default `lmdyn/states` in the user's cache folder.
      progress: a bar on stderr, from two seconds on.

    Raises:
      InputError: a token outside the vocabulary, or a cache that cannot be written.

    >>> import tempfile
    >>> from lmdyn import data, models
    >>> config = models.ModelConfig(
    ...     vocab=11, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = models.LanguageModel(config)
    >>> found = final_states(
    ...     model, models.init(model), data.windows(np.arange(9), 5), cache=tempfile.mkdtemp()
    ... )
    >>> found.states.shape, found.targets.tolist()
    ((8, 6), [1, 2, 3, 4, 5, 6, 7, 8])
    """
    check_tokens(batches.stream, model.config.vocab)
    digest = _digest(model, params, batches)
    folder = Path(cache or default_cache().parent / "states") / digest[:32]
    if (found := _open(folder, digest)) is None:
        try:
            with atomic_folder(folder) as new:
                _fill(new, model, params, batches, digest, progress)
        except OSError as err:
            size = 4 * model.config.width * batches.tokens / 1e9
            raise InputError(
                f"cannot keep {size:.2g} GB of states in {folder.parent}: {err.strerror}; make"
                " room, or name another cache"
            ) from err
        found = _open(folder, digest)
    return present(found)


def _digest(model, params, batches) -> str:
    body = {
        name: part for name, part in params.items() if name != "head"
    }  # states do not depend on the head
    made = hashlib.sha256(
        f"{STATES_FORMAT} {model.config} {model.compute.resolved()} {batches.length}".encode()
    )
    for path, leaf in jax.tree_util.tree_flatten_with_path(body)[0]:
        leaf = np.ascontiguousarray(leaf)
        made.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        made.update(leaf.view(np.uint8).data)
    made.update(np.ascontiguousarray(batches.stream).data)
    return made.hexdigest()


def _open(folder: Path, digest: str) -> FinalStates | None:
    """The store in `folder`; None if it is not there, or not whole."""
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        states = np.load(folder / "states.npy", mmap_mode="r", allow_pickle=False)
        targets = np.load(folder / "targets.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return FinalStates(states, targets, digest) if about.get("digest") == digest else None


def _fill(folder: Path, model, params, batches, digest, progress):
    width = model.config.width
    run = jax.jit(lambda params, inputs: forward(model, params, inputs).states)
    states = np.lib.format.open_memmap(
        folder / "states.npy", "w+", np.float32, (batches.tokens, width)
    )
    start = 0
    for batch in tqdm(
        batches, desc="final states", unit="batch", delay=2, leave=False, disable=not progress
    ):
        count = int(batch.mask.sum())  # padding is at the end
        states[start : start + count] = np.asarray(run(params, batch.inputs), np.float32).reshape(
            -1, width
        )[:count]
        start += count
    states.flush()
    np.save(folder / "targets.npy", np.asarray(batches.stream[1:], np.int32))
    about = {"format": STATES_FORMAT, "digest": digest, "tokens": batches.tokens, "width": width}
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
