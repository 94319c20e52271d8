"""Byte-level BPE of folders without `tokenizer.json`.

`vocab.json` and `merges.txt` say how bytes are merged; the tokenizer's class, how a text is cut
first; `added_tokens_decoder` in `tokenizer_config.json`, or `added_tokens.json`, what is found
before that.
"""

import copy
import json
import pathlib
from typing import Any

import tokenizers
from tokenizers import models

from lmdyn.data.tokenizers.byte_level import PRE_TOKENIZERS, byte_level_bpe
from lmdyn.data.tokenizers.tokenizer import END_OF_TEXT, one_line
from lmdyn.errors import InputError
from lmdyn.file_kinds import mismatch

CLASSES = {
    "GPT2Tokenizer": "gpt-2",
    "CodeGenTokenizer": "gpt-2",
    "GPTNeoXTokenizer": "gpt-neox",
    "Qwen2Tokenizer": "qwen2",
}
"""How each class cuts a text: a key of `byte_level.PRE_TOKENIZERS`."""
_MODEL_CLASSES = {
    "gpt2": "GPT2Tokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    "olmo": "GPTNeoXTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
}
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def from_vocabulary(folder: pathlib.Path) -> tokenizers.Tokenizer:
    """The backend of a folder with `vocab.json` and `merges.txt`.

    Args:
      folder: its path.

    Raises:
      InputError: the files do not fit together, or the class is not known.

    >>> import tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "vocab.json").write_text('{"a": 0, "b": 1}')
    >>> _ = (folder / "merges.txt").write_text("#version: 0.2")
    >>> _ = (folder / "added_tokens.json").write_text('{"ab": 2}')
    >>> from_vocabulary(folder).encode("baab").ids
    [1, 0, 2]
    """
    pre = PRE_TOKENIZERS[CLASSES[_class(folder)]]
    added = _added_tokens(folder)
    try:
        vocab, merges = models.BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
        tokens = {i: token for token, i in vocab.items()}
        for i, token in added.items():
            if tokens.setdefault(i, token.content) != token.content:
                raise InputError(
                    f"{folder}: id {i} is {tokens[i]!r} in vocab.json and {token.content!r} among"
                    " the added tokens"
                )
            if vocab.setdefault(token.content, i) != i:
                raise InputError(
                    f"{folder}: {token.content!r} has id {vocab[token.content]} in vocab.json and"
                    f" {i} among the added tokens"
                )
        model = models.BPE(vocab, merges)
    except InputError:
        raise
    except Exception as err:  # the library raises bare Exception
        raise InputError(
            f"{folder}: vocab.json and merges.txt are no tokenizer: {one_line(err)}"
        ) from err
    if json_value(folder / "tokenizer_config.json", "add_prefix_space"):
        *first, last = copy.deepcopy(pre.split)
        last.add_prefix_space = True
        pre = type(pre)((*first, last), pre.normalizer)
    backend = byte_level_bpe(model, pre)
    for token in added.values():  # one by one: each keeps its own flags
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    known = {token.content for token in added.values()}
    backend.add_special_tokens([t for t in _special(folder) if t in vocab and t not in known])
    return backend


def _class(folder: pathlib.Path) -> str:
    """The class of the tokenizer, of those in `CLASSES`."""
    named = json_value(folder / "tokenizer_config.json", "tokenizer_class") or json_value(
        folder / "config.json", "tokenizer_class"
    )
    model = str(json_value(folder / "config.json", "model_type") or "gpt2")
    name = named or _MODEL_CLASSES.get(model, f"of a {model} model")
    name = str(name).removesuffix("Fast")
    if name not in CLASSES:
        raise InputError(
            f"{folder} has no tokenizer.json, and how the tokenizer class {name} cuts text is not"
            f" known ({', '.join(CLASSES)} are); make one with"
            " AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
        )
    return name


def _added_tokens(folder: pathlib.Path) -> dict[int, tokenizers.AddedToken]:
    """Tokens beside the vocabulary by id, in its order, as `transformers` reads them."""
    path = folder / "tokenizer_config.json"
    try:
        if declared := json_value(path, "added_tokens_decoder"):
            given = {int(i): tokenizers.AddedToken(**token) for i, token in declared.items()}
        else:
            path = folder / "added_tokens.json"
            special = _special(folder)
            given = {
                int(i): tokenizers.AddedToken(
                    token, special=token in special, normalized=token not in special
                )
                for token, i in (json_object(path) or {}).items()
            }
    except (TypeError, ValueError, AttributeError) as err:
        raise InputError(f"{path}: the added tokens are malformed: {one_line(err)}") from err
    return dict(sorted(given.items()))


def _special(folder: pathlib.Path) -> list[str]:
    """The tokens that have a role."""
    found = [END_OF_TEXT]
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        values = json_object(folder / file) or {}
        tokens = [values.get(f"{role}_token") for role in _ROLES]
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = values.get(key) or []
            tokens += more.values() if isinstance(more, dict) else more
        found += [token.get("content") if isinstance(token, dict) else token for token in tokens]
    return list(dict.fromkeys(token for token in found if isinstance(token, str)))


def json_value(path: pathlib.Path, key: str) -> Any:
    """One value of a JSON object; None if the file or the key is not there.

    >>> json_value(pathlib.Path("/nowhere/config.json"), "model_type") is None
    True
    """
    return (json_object(path) or {}).get(key)


def json_object(path: pathlib.Path) -> dict | None:
    """A JSON object; None if the file is not there.

    Raises:
      InputError: the file is something else.

    >>> json_object(pathlib.Path("/nowhere/config.json")) is None
    True
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise InputError(mismatch(path, "a JSON object", one_line(err))) from err
    if not isinstance(found, dict):
        raise InputError(mismatch(path, "a JSON object", f"it is a {type(found).__name__}"))
    return found
