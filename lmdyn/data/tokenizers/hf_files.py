"""Tokenizers of Hugging Face folders."""

import json
import pathlib

import tokenizers
from tokenizers import models

from lmdyn.data.tokenizers.byte_level import PRE_TOKENIZERS, byte_level_bpe
from lmdyn.data.tokenizers.tokenizer import END_OF_TEXT, Tokenizer, finish, one_line
from lmdyn.errors import InputError
from lmdyn.types import PathLike


def from_file(
    path: PathLike, end_of_text: str | int | None = None, name: str | None = None
) -> Tokenizer:
    """A tokenizer from a `tokenizer.json`.

    Args:
      path: the file.
      end_of_text: token or id to use when the vocabulary has no "<|endoftext|>".
      name: for reports; default the name of the folder.

    Raises:
      InputError: no such file, a file that is no tokenizer, or one with no token that ends a text.

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
        raise InputError(f"{path}: {err.strerror or err}") from err
    except Exception as err:  # the library raises bare Exception
        raise InputError(f"{path} is no tokenizer.json: {one_line(err)}") from err
    return finish(backend, end_of_text, name or path.resolve().parent.name, str(path))


def from_folder(folder: PathLike, name: str | None = None) -> Tokenizer:
    """The tokenizer of a Hugging Face folder.

    It is read from `tokenizer.json`, or else from `vocab.json` with `merges.txt`. The end of text,
    where there is no "<|endoftext|>", is the eos token of `tokenizer_config.json`,
    `special_tokens_map.json`, `generation_config.json` or `config.json`, whichever names one first.

    Args:
      folder: its path.
      name: for reports; default the name of the folder.

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
    name = name or folder.resolve().name
    end = _end_of_text(folder)
    if (folder / "tokenizer.json").is_file():
        return from_file(folder / "tokenizer.json", end, name)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        try:
            model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
        except Exception as err:
            raise InputError(
                f"{folder}: vocab.json and merges.txt are no tokenizer: {one_line(err)}"
            ) from err
        backend = byte_level_bpe(model, PRE_TOKENIZERS["gpt-2"])
        if backend.token_to_id(END_OF_TEXT) is not None:
            backend.add_special_tokens([END_OF_TEXT])
        return finish(backend, end, name, str(folder))
    raise InputError(
        f"{folder} has no tokenizer.json; make one with"
        " AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
    )


def _end_of_text(folder: pathlib.Path) -> str | int | None:
    keys = {
        "tokenizer_config.json": "eos_token",
        "special_tokens_map.json": "eos_token",
        "generation_config.json": "eos_token_id",
        "config.json": "eos_token_id",
    }
    for file, key in keys.items():
        if not (folder / file).is_file():
            continue
        try:
            found = json.loads((folder / file).read_text(encoding="utf-8")).get(key)
        except (OSError, ValueError, AttributeError) as err:
            raise InputError(f"{folder / file} is no JSON object: {one_line(err)}") from err
        found = found.get("content") if isinstance(found, dict) else found
        found = found[0] if isinstance(found, list) and found else found
        if isinstance(found, (str, int)):
            return found
    return None
