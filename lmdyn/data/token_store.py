"""Tokens on disk: a text is tokenised once, and read from then on as a memory map.

A store is a folder named by a digest of what was said (every document's text) and by whom (the
tokenizer), so another text, a changed file or another tokenizer never meets old tokens. Reading the
text to make the digest takes seconds per gigabyte.
"""

import dataclasses
import hashlib
import json
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lmdyn.data.lazy_documents import Documents
from lmdyn.data.sources.parser import documents
from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError
from lmdyn.files import atomic_folder

STORE_FORMAT = 1
BATCH_CHARACTERS = 2**21
"""Documents are tokenised together, on all cores, up to this many characters at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of many documents, back to back; made by `store`.

    `len(tokens)` is the number of documents, `tokens[i]` the ids of one, `[n]` int32.

    Attributes:
      name: the text reference.
      digest: hexadecimal, of texts and tokenizer.
      ids: `[total]` uint16 or uint32, usually a memory map.
      ends: `[documents]` int64: where each document ends in `ids`.
    """

    name: str
    digest: str
    ids: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> np.ndarray:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {self.name}, which has {len(self)}")
        index %= len(self)
        start = self.ends[index - 1] if index else 0
        return np.asarray(self.ids[start : self.ends[index]], np.int32)


def default_cache() -> Path:
    """Where stores are kept: `lmdyn/tokens` in the user's cache folder.

    >>> default_cache().parts[-2:]
    ('lmdyn', 'tokens')
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lmdyn" / "tokens"


def store(
    source: str | Sequence[str],
    tokenizer: Tokenizer,
    *,
    cache: str | os.PathLike | None = None,
    progress: bool = False,
    on_bad_document: str = "error",
) -> Tokens:
    """The tokens of a text, from the cache on disk if they are there, else tokenised and put there.

    Args:
      source: a text reference (see `documents`) or a sequence of str.
      tokenizer: a `lmdyn.data.tokenizers.Tokenizer`; its `document_token` is put first.
      cache: folder of stores; default `default_cache()`. One that cannot be written costs time at
        the next start only.
      progress: a bar on stderr, from two seconds on.
      on_bad_document: `error` or `skip`, see `documents`.

    Returns:
      A `Tokens`; documents without a token are left out.

    Raises:
      InputError: no document has a token, or one cannot be read.

    >>> import tempfile
    >>> from lmdyn.data import tokenizers
    >>> tokens = store(["ab", "", "cde"], tokenizers.byte_tokenizer(), cache=tempfile.mkdtemp())
    >>> len(tokens), tokens[1].tolist()
    (2, [99, 100, 101])
    """
    name = source if isinstance(source, str) else getattr(source, "reference", "the text")
    texts = documents(source, on_bad_document) if isinstance(source, str) else source
    first = tokenizer.document_token
    digest = _digest(texts, tokenizer, first, progress)
    if isinstance(texts, Documents):
        texts.warn()
    encoded = lambda: _encoded(texts, tokenizer, name, first, progress)
    folder = Path(cache or default_cache()) / digest[:32]
    if (found := _open(folder, name, digest)) is None:
        try:
            with atomic_folder(folder) as new:
                _fill(new, encoded, tokenizer, name, digest)
            found = _open(folder, name, digest)
        except OSError:
            found = None  # a full or read-only cache; the tokens are kept in memory
    return _in_memory(encoded, tokenizer, name, digest) if found is None else found


def _digest(texts, tokenizer, first, progress) -> str:
    made = hashlib.sha256(f"{STORE_FORMAT} {tokenizer.end_of_text} {tokenizer.to_json()}".encode())
    if first is not None:
        made.update(f" first {first}".encode())
    for text in tqdm(texts, desc="reading", unit="doc", delay=2, leave=False, disable=not progress):
        raw = text.encode("utf-8", "surrogatepass")
        made.update(len(raw).to_bytes(8, "little"))
        made.update(raw)
    return made.hexdigest()


def _open(folder: Path, name: str, digest: str) -> Tokens | None:
    """The store in `folder`; None if it is not there, or not whole."""
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        if about["digest"] != digest:
            return None
        ends = np.load(folder / "ends.npy", allow_pickle=False)
        ids = np.memmap(folder / "ids.bin", about["dtype"], "r")
    except (OSError, ValueError, KeyError):
        return None
    return Tokens(name, digest, ids, ends) if len(ends) and len(ids) == ends[-1] else None


def _encoded(texts, tokenizer, name, first, progress) -> Iterator[np.ndarray]:
    """Each document's ids, several documents at a time; `InputError` if not one has a token."""
    batch, size, some = [], 0, False
    prefix = [] if first is None else [first]

    def encode(batch):
        found = tokenizer.backend.encode_batch_fast(batch, add_special_tokens=False)
        return (np.asarray(prefix + one.ids) for one in found if one.ids)

    for text in tqdm(
        texts, desc="tokenizing", unit="doc", delay=2, leave=False, disable=not progress
    ):
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            for ids in encode(batch):
                some = True
                yield ids
            batch, size = [], 0
    for ids in encode(batch):
        some = True
        yield ids
    if not some:
        raise InputError(
            f"{name} has no text: {len(texts)} documents and not one token; give a text with some"
        )


def _dtype(tokenizer):
    return np.uint16 if tokenizer.vocab <= 2**16 else np.uint32


def _fill(folder: Path, encoded, tokenizer, name, digest):
    dtype, ends, total = _dtype(tokenizer), [], 0
    with open(folder / "ids.bin", "wb") as file:
        for ids in encoded():
            file.write(ids.astype(dtype).data)
            total += len(ids)
            ends.append(total)
    np.save(folder / "ends.npy", np.asarray(ends, np.int64))
    about = {
        "format": STORE_FORMAT,
        "name": name,
        "digest": digest,
        "dtype": np.dtype(dtype).str,
        "tokens": total,
    }
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _in_memory(encoded, tokenizer, name, digest) -> Tokens:
    docs = [ids.astype(_dtype(tokenizer)) for ids in encoded()]
    return Tokens(
        name, digest, np.concatenate(docs), np.cumsum([len(d) for d in docs], dtype=np.int64)
    )
