"""Tokenizers of Hugging Face folders."""

import dataclasses
import pathlib

import tokenizers

from lmdyn.data.tokenizers.tokenizer import Tokenizer, finish, one_line, put_first
from lmdyn.data.tokenizers.vocabulary_files import from_vocabulary, json_value
from lmdyn.errors import InputError
from lmdyn.file_kinds import mismatch
from lmdyn.types import PathLike

FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tiktoken.model",
    "spiece.model",
    "*.tiktoken",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.*",
    "additional_chat_templates/*.jinja",
)
"""Patterns of the files that belong to a tokenizer, `Tokenizer.files`."""

_NO_BOS = ("PreTrainedTokenizerFast", "TokenizersBackend", "Qwen2Tokenizer", "Qwen2TokenizerFast")
"""Classes without a beginning-of-text token, unless their own settings name one."""


def from_file(
    path: PathLike,
    end_of_text: str | int | None = None,
    name: str | None = None,
    bos: str | int | None = None,
    eos: str | int | None = None,
) -> Tokenizer:
    """A tokenizer from a `tokenizer.json`.

    Args:
      path: the file.
      end_of_text: token or id that ends a document; default "<|endoftext|>", or else `eos`.
      name: for reports; default the name of the folder.
      bos: token or id that begins a text.
      eos: token or id that the model's other files end a text with.

    Raises:
      InputError: no such file, one that is not a tokenizer, or that has no token to end a text.

    >>> import tempfile
    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "tokenizer.json"
    >>> _ = path.write_text(byte_tokenizer().to_json())
    >>> from_file(path).encode("hi").tolist()
    [104, 105]
    """
    path = pathlib.Path(path)
    try:
        backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except OSError as err:
        why = err.strerror or err
        raise InputError(f"{path} cannot be read: {why}; check the path") from err
    except Exception as err:  # the library raises bare Exception
        what = "a tokenizer.json of the tokenizers library"
        raise InputError(mismatch(path, what, one_line(err))) from err
    name = name or path.resolve().parent.name
    return finish(backend, eos, name, str(path), bos, end_of_text)


def from_folder(
    folder: PathLike, name: str | None = None, end_of_text: str | int | None = None
) -> Tokenizer:
    """The tokenizer of a Hugging Face folder.

    It is read from `tokenizer.json`, or else from the vocabulary (`vocab.json` with `merges.txt`, a
    SentencePiece `tokenizer.model`, or tiktoken's ranks), the added tokens and the rules of the
    tokenizer's class. The end of text, where there is no "<|endoftext|>", is the eos token of
    `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json` or `config.json`,
    whichever names one first. A text begins with the bos token if `add_bos_token` of
    `tokenizer_config.json` says so; where that says nothing, as the post-processor of
    `tokenizer.json`, or the class, does it.

    Args:
      folder: its path.
      name: for reports; default the name of the folder.
      end_of_text: token or id that ends a document, in place of these.

    Raises:
      InputError: the folder holds neither, or they do not fit together.

    >>> import tempfile
    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "tokenizer.json").write_text(byte_tokenizer().to_json())
    >>> from_folder(folder, "bytes").name
    'bytes'
    """
    folder = pathlib.Path(folder)
    found = _from_folder(folder, name or folder.resolve().name, end_of_text)
    paths = [path for pattern in FILES for path in sorted(folder.glob(pattern)) if path.is_file()]
    try:
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    except OSError as err:
        raise InputError(f"{err.filename}: {err.strerror or err}") from err
    return dataclasses.replace(found, files=files)


def _from_folder(folder: pathlib.Path, name: str, end_of_text: str | int | None) -> Tokenizer:
    eos, bos = _role(folder, "eos"), _role(folder, "bos")
    adds = json_value(folder / "tokenizer_config.json", "add_bos_token")
    if (folder / "tokenizer.json").is_file():
        found = from_file(folder / "tokenizer.json", end_of_text, name, bos, eos)
    else:
        known = from_vocabulary(folder)
        eos, bos = known.eos if eos is None else eos, known.bos if bos is None else bos
        found = finish(known.backend, eos, name, str(folder), bos, end_of_text)
        adds = known.adds_bos if adds is None else adds
    if adds is not None:
        wanted = found.bos if adds else None
        if found.first_token != wanted:
            put_first(found.backend, wanted)
            found = dataclasses.replace(found)  # what it puts first is remembered
    return found


def _role(folder: pathlib.Path, role: str) -> str | int | None:
    """The token (or its id) of a role, `eos` or `bos`, from the first file that names one.

    What the model's config says of `bos` does not count where the tokenizer has none by its class.
    """
    keys = {
        "tokenizer_config.json": f"{role}_token",
        "special_tokens_map.json": f"{role}_token",
        "generation_config.json": f"{role}_token_id",
        "config.json": f"{role}_token_id",
    }
    if role == "bos" and json_value(folder / "tokenizer_config.json", "tokenizer_class") in _NO_BOS:
        keys = {file: key for file, key in keys.items() if key == "bos_token"}
    for file, key in keys.items():
        found = json_value(folder / file, key)
        found = found.get("content") if isinstance(found, dict) else found
        found = found[0] if isinstance(found, list) and found else found
        if isinstance(found, (str, int)):
            return found
    return None
