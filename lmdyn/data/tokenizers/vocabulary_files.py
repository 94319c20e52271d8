"""Tokenizers of folders without `tokenizer.json`.

The tokenizer's class says how a text is cut; the vocabulary stands in `vocab.json` and `merges.txt`
(byte-level BPE), a SentencePiece `tokenizer.model`, or a file of tiktoken's ranks. The tokens that
are found before that are `added_tokens_decoder` in `tokenizer_config.json`, or `added_tokens.json`.
"""

import copy
import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import tokenizers
from tokenizers import models

from lmdyn.data.tokenizers import sentencepiece
from lmdyn.data.tokenizers.byte_level import PRE_TOKENIZERS, byte_level_bpe
from lmdyn.data.tokenizers.classes import (
    MERGES,
    MODEL_CLASSES,
    RANKS,
    SENTENCEPIECE,
    TokenizerClass,
)
from lmdyn.data.tokenizers.tiktoken import merges_of_ranks, parse_ranks
from lmdyn.data.tokenizers.tokenizer import END_OF_TEXT, one_line
from lmdyn.errors import InputError
from lmdyn.file_kinds import mismatch

_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_MODELS = ("tokenizer.model", "tiktoken.model", "spiece.model", "*.tiktoken")


class Vocabulary(NamedTuple):
    """A tokenizer's backend and its roles, made by `from_vocabulary`."""

    backend: tokenizers.Tokenizer
    bos: str | int | None
    """what begins a text, if no setting says otherwise"""
    eos: str | int | None
    """what ends one"""
    adds_bos: bool
    """whether texts begin with `bos`, if no setting says otherwise"""


def from_vocabulary(folder: pathlib.Path) -> Vocabulary:
    """The backend of a folder without `tokenizer.json`, and the roles that its class knows.

    Args:
      folder: its path.

    Raises:
      InputError: there is no vocabulary, its files do not fit together, or its class is not known.

    >>> import tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "vocab.json").write_text('{"a": 0, "b": 1}')
    >>> _ = (folder / "merges.txt").write_text("#version: 0.2")
    >>> _ = (folder / "added_tokens.json").write_text('{"ab": 2}')
    >>> from_vocabulary(folder).backend.encode("baab").ids
    [1, 0, 2]
    """
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _from_merges(folder)
    path = next((p for pattern in _MODELS for p in sorted(folder.glob(pattern))), None)
    if path is None:
        raise InputError(
            f"{folder} has no tokenizer.json and no vocabulary (vocab.json with merges.txt,"
            " tokenizer.model, *.tiktoken); make one with transformers:"
            f" AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')"
        )
    try:
        data = path.read_bytes()
        ranks = parse_ranks(data)
        if ranks is not None:
            return _from_ranks(folder, ranks)
        return _from_sentencepiece(folder, sentencepiece.parse_model(data))
    except InputError:
        raise
    except OSError as err:
        raise InputError(f"{path}: {err.strerror or err}") from err
    except Exception as err:  # the library raises bare Exception
        raise InputError(
            f"{path} is neither a SentencePiece model nor tiktoken's ranks: {one_line(err)}"
        ) from err


def _from_merges(folder: pathlib.Path) -> Vocabulary:
    known = _class(folder, MERGES, "GPT2Tokenizer")
    pre = PRE_TOKENIZERS[known.rule]
    added = _added_tokens(folder)
    try:
        vocab, merges = models.BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
        _add(folder, "vocab.json", vocab, added)
        model = models.BPE(vocab, merges)
    except InputError:
        raise
    except Exception as err:  # the library raises bare Exception
        raise InputError(
            f"{folder}: vocab.json and merges.txt are not a tokenizer: {one_line(err)}"
        ) from err
    if json_value(folder / "tokenizer_config.json", "add_prefix_space"):
        *first, last = copy.deepcopy(pre.split)
        last.add_prefix_space = True
        pre = dataclasses.replace(pre, split=(*first, last))
    backend = byte_level_bpe(model, pre)
    _find(folder, backend, vocab, added)
    return Vocabulary(backend, known.bos, known.eos, known.adds_bos)


def _from_ranks(folder: pathlib.Path, ranks: dict[bytes, int]) -> Vocabulary:
    known = _class(folder, RANKS, "that is not named")
    first = max(ranks.values()) + 1
    added = _added_tokens(folder) or {
        first + i: tokenizers.AddedToken(token, special=True, normalized=False)
        for i, token in enumerate(known.added)
    }
    if not added:
        raise InputError(
            f"{folder} has no tokenizer.json, and names no tokens beside tiktoken's ranks; write"
            " them into tokenizer_config.json as added_tokens_decoder"
        )
    vocab, merges = merges_of_ranks(ranks)
    _add(folder, "the ranks", vocab, added)
    model = models.BPE(vocab, merges, ignore_merges=True)
    backend = byte_level_bpe(model, PRE_TOKENIZERS[known.rule])
    _find(folder, backend, vocab, added)
    return Vocabulary(backend, known.bos, known.eos, known.adds_bos)


def _from_sentencepiece(
    folder: pathlib.Path, model: sentencepiece.SentencePieceModel
) -> Vocabulary:
    known = _class(folder, SENTENCEPIECE, "PreTrainedTokenizer")
    settings = json_object(folder / "tokenizer_config.json") or {}
    # The pieces that a model itself defines are part of a text, which begins once.
    first_only = settings.get("legacy") is False or sentencepiece.USER_DEFINED in model.kinds
    pieces, kinds = list(model.pieces), list(model.kinds)
    added = _added_tokens(folder)
    if not added and known.added:
        tokens = reversed(known.added[: settings.get("extra_ids", len(known.added))])
        added = {
            len(pieces) + i: tokenizers.AddedToken(t, special=True) for i, t in enumerate(tokens)
        }
    for i, token in added.items():
        if i > len(pieces):
            raise InputError(
                f"{folder}: the added token {token.content!r} has id {i}, but there are only"
                f" {len(pieces)} before it"
            )
        kind = sentencepiece.CONTROL if token.special else sentencepiece.USER_DEFINED
        pieces[i : i + 1], kinds[i : i + 1] = [token.content], [kind]
    model = dataclasses.replace(
        model,
        pieces=pieces,
        kinds=kinds,
        scores=model.scores + [0.0] * (len(pieces) - len(model.scores)),
        add_prefix=model.add_prefix and settings.get("add_prefix_space") is not False,
    )
    backend = sentencepiece.sentencepiece_backend(
        model, first_only, added={token.content: token for token in added.values()}
    )
    bos, eos = (i if 0 <= i < len(pieces) else None for i in (model.bos, model.eos))
    return Vocabulary(backend, bos, eos, known.adds_bos)


def _add(folder: pathlib.Path, file: str, vocab: dict[str, int], added: dict) -> None:
    """Puts the added tokens into a vocabulary, in which each must have its own id."""
    tokens = {i: token for token, i in vocab.items()}
    for i, token in added.items():
        if tokens.setdefault(i, token.content) != token.content:
            raise InputError(
                f"{folder}: id {i} is {tokens[i]!r} in {file} and {token.content!r} among the added"
                " tokens"
            )
        if vocab.setdefault(token.content, i) != i:
            raise InputError(
                f"{folder}: {token.content!r} has id {vocab[token.content]} in {file} and {i} among"
                " the added tokens"
            )


def _find(folder: pathlib.Path, backend: tokenizers.Tokenizer, vocab: dict, added: dict) -> None:
    """Has the added tokens, and those with a role, found in a text first."""
    for token in added.values():  # one by one: each keeps its own flags
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    known = {token.content for token in added.values()}
    backend.add_special_tokens([t for t in _special(folder) if t in vocab and t not in known])


def _class(folder: pathlib.Path, known: dict[str, TokenizerClass], default: str) -> TokenizerClass:
    """The class of the tokenizer, of those that read such files; `default`: nothing names one."""
    named = json_value(folder / "tokenizer_config.json", "tokenizer_class") or json_value(
        folder / "config.json", "tokenizer_class"
    )
    model = json_value(folder / "config.json", "model_type")
    of_model = MODEL_CLASSES.get(str(model), "")
    name = str(named or f"of a {model} model").removesuffix("Fast")
    if named is None and model is None:
        name = default
    elif of_model in known and (not named or name in ("PreTrainedTokenizer", "TokenizersBackend")):
        name = of_model
    if name not in known:
        raise InputError(
            f"{folder} has no tokenizer.json, and how the tokenizer class {name} cuts text is not"
            f" known ({', '.join(known)} are); make one with transformers:"
            f" AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')"
        )
    return known[name]


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
