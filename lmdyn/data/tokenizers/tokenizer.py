"""Text to token ids and back, through the `tokenizers` library.

`Tokenizer.encode` adds no special tokens. Which one a text begins with is `Tokenizer.first_token`;
`data.tokenize` and `data.windows` put it there.
Text that literally contains a special token, such as
"<|endoftext|>", becomes that token, as the library does it.
"""

import copy
import dataclasses
import functools
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Self, get_args

import numpy as np
import tokenizers

from lmdyn.errors import InputError, choose
from lmdyn.types import Bos

END_OF_TEXT = "<|endoftext|>"


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to token ids and back.

    Args:
      backend: the tokenizer of the `tokenizers` library.
      end_of_text: the id that ends a document.
      name: for reports.
      bos: the id that begins a text; None if the model has no such token.
      files: the files of its Hugging Face folder, content by name, that an export keeps: roles of
        tokens, chat template, generation config.
      eos: the id that the model's own files end a text with (of a chat model, its turn); None:
        `end_of_text`.
      bos_rule: where beginning-of-text tokens go: `auto`: once per document, if the backend's
        post-processor puts one; `document`; `window`; `none`. See `with_bos`.

    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> tokenizer = byte_tokenizer()
    >>> tokenizer.encode("hi").tolist(), tokenizer.decode([104, 105])
    ([104, 105], 'hi')
    """

    backend: tokenizers.Tokenizer
    end_of_text: int
    name: str
    bos: int | None = None
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict, repr=False)
    eos: int | None = None
    bos_rule: str = "auto"

    def encode(self, text: str) -> np.ndarray:
        """The ids of `text`, `[N]` int32, without special tokens.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().encode("hi").tolist()
        [104, 105]
        """
        return np.asarray(
            self.backend.encode_batch_fast([text], add_special_tokens=False)[0].ids, np.int32
        )

    def with_bos(self, bos: str) -> Self:
        """The same tokenizer with another rule for the beginning-of-text token.

        Args:
          bos: `auto` leaves the rule as it is; `document`: before every document; `window`: in the
            place of the first input of every window; `none`.

        Raises:
          InputError: another `bos`, or a model without such a token.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().with_bos("document")
        Traceback (most recent call last):
        lmdyn.errors.InputError: bos=document: the tokenizer bytes has no beginning-of-text token;
        use auto or none
        """
        choose("bos", bos, get_args(Bos))
        if bos == "auto":
            return self
        found = dataclasses.replace(self, bos_rule=bos)
        if bos != "none" and found.first_token is None:
            raise InputError(
                f"bos={bos}: the tokenizer {self.name} has no beginning-of-text token; use auto or"
                " none"
            )
        return found

    def with_end_of_text(self, token: str | int | None) -> Self:
        """The same tokenizer with another token between documents.

        Args:
          token: the token, or its id (digits are an id); None leaves it as it is.

        Raises:
          InputError: the vocabulary does not have it.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().with_end_of_text("a").end_of_text
        97
        """
        if token is None:
            return self
        return dataclasses.replace(self, end_of_text=find_token(self.backend, token, self.name))

    def within(self, rows: int) -> Self:
        """The same tokenizer without the added tokens that an embedding has no rows for.

        Text that contains one is read as any other; a warning says so. Where a token with a role
        has no row, or one of the vocabulary, nothing is left out: it belongs to another model.

        Args:
          rows: of the embedding.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().within(257).vocab
        257
        """
        content = json.loads(self.backend.to_str())
        beyond = [t["content"] for t in content["added_tokens"] if t["id"] >= rows]
        content["added_tokens"] = [t for t in content["added_tokens"] if t["id"] < rows]
        vocab = content["model"]["vocab"]  # to which the readers of some folders have added them
        if isinstance(vocab, dict):
            content["model"]["vocab"] = vocab = {t: i for t, i in vocab.items() if t not in beyond}
        roles = [i for i in (self.end_of_text, self.bos, self.eos) if i is not None]
        if not beyond or len(vocab) > rows or max(roles) >= rows:
            return self
        warnings.warn(
            f"{len(beyond)} tokens of {self.name}, such as {beyond[0]}, have no row in the"
            f" embedding of {rows} and are read as text",
            stacklevel=3,
        )
        return dataclasses.replace(self, backend=tokenizers.Tokenizer.from_str(json.dumps(content)))

    @functools.cached_property
    def first_token(self) -> int | None:
        """The token that a text begins with, or None.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().first_token is None
        True
        """
        if self.bos_rule == "none":
            return None
        return self.bos if self._prefix is None and self.bos_rule != "auto" else self._prefix

    @property
    def document_token(self) -> int | None:
        """The token that every document begins with, or None.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().document_token is None
        True
        """
        return None if self.bos_rule == "window" else self.first_token

    @property
    def window_token(self) -> int | None:
        """The token that every window begins with, or None.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().window_token is None
        True
        """
        return self.first_token if self.bos_rule == "window" else None

    def backend_with_first(self) -> tokenizers.Tokenizer:
        """The backend, its post-processor putting the first token where texts begin with one.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().backend_with_first().encode("a").ids
        [97]
        """
        if self.first_token == self._prefix:
            return self.backend
        backend = copy.deepcopy(self.backend)
        put_first(backend, self.first_token)
        return backend

    def special_tokens(self) -> dict[str, str | None]:
        """Where texts get a special token, and which, as the provenance says it.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().special_tokens()
        {'bos': 'none', 'first': None, 'end_of_text': '<|endoftext|>'}
        """
        rule = "document" if self.bos_rule == "auto" else self.bos_rule
        first = None if self.first_token is None else self.backend.id_to_token(self.first_token)
        return {
            "bos": "none" if first is None else rule,
            "first": first,
            "end_of_text": self.backend.id_to_token(self.end_of_text),
        }

    @functools.cached_property
    def _prefix(self) -> int | None:
        """What the backend's post-processor puts first."""
        if getattr(self.backend, "post_processor", None) is None:
            return None
        plain, whole = (
            self.backend.encode("a", add_special_tokens=special).ids for special in (False, True)
        )
        return whole[0] if len(whole) > len(plain) and whole[: len(plain)] != plain else None

    def encode_with_offsets(self, text: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """The ids of `text`, and for each the characters `[start, end)` that it stands for.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().encode_with_offsets("né")[1]
        [(0, 1), (1, 2), (1, 2)]
        """
        encoding = self.backend.encode(text, add_special_tokens=False)
        return np.asarray(encoding.ids, np.int32), encoding.offsets

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of token ids, special tokens included.

        Raises:
          InputError: an id that the vocabulary does not have.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().decode([104, 105, 256])
        'hi<|endoftext|>'
        """
        ids = np.asarray(ids)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocab:
            raise InputError(
                f"token id {ids.max() if ids.min() >= 0 else ids.min()} is outside 0 to"
                f" {self.vocab - 1} ({self.name})"
            )
        return self.backend.decode(ids.tolist(), skip_special_tokens=False)

    @functools.cached_property
    def vocab(self) -> int:
        """The largest id, plus one.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().vocab
        257
        """
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def to_json(self) -> str:
        """The contents of a `tokenizer.json`.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().to_json().startswith("{")
        True
        """
        return self.backend.to_str()


def find_token(backend: tokenizers.Tokenizer, token: str | int, name: str) -> int:
    """The id of a token that a user names.

    Args:
      backend: of the `tokenizers` library.
      token: the token, or its id (digits are an id).
      name: of the tokenizer, for the error.

    Raises:
      InputError: the vocabulary does not have it.

    >>> backend = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "<s>": 1}, []))
    >>> find_token(backend, "<s>", "tiny"), find_token(backend, "0", "tiny")
    (1, 0)
    """
    if isinstance(token, int) or token.isdecimal():
        found = int(token) if backend.id_to_token(int(token)) is not None else None
    else:
        found = backend.token_to_id(token)
    if found is None:
        raise InputError(
            f"end_of_text={token}: the tokenizer {name} has no such token; give one of its tokens,"
            f" or an id below {backend.get_vocab_size()}"
        )
    return found


def put_first(backend: tokenizers.Tokenizer, bos: int | None) -> None:
    """Makes a backend's post-processor put `bos` before a text; None: nothing.

    >>> backend = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "<s>": 1}, []))
    >>> put_first(backend, 1)
    >>> backend.encode("a").ids
    [1, 0]
    """
    token = None if bos is None else backend.id_to_token(bos)
    if token is None:
        backend.post_processor = None  # type: ignore[assignment]
    else:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, bos)]
        )


def finish(
    backend: tokenizers.Tokenizer,
    eos: str | int | None,
    name: str,
    source: str,
    bos: str | int | None = None,
    end_of_text: str | int | None = None,
) -> Tokenizer:
    """A `Tokenizer` around a backend, without truncation and padding.

    Args:
      backend: of the `tokenizers` library; it is changed.
      eos: token or id that the files of the model end a text with.
      name: for reports.
      source: its name in error messages.
      bos: token or id that begins a text; None, or one that is not there, means that none does.
      end_of_text: token or id that ends a document, as the user says; default "<|endoftext|>" or,
        if there is no such token, `eos`.

    Raises:
      InputError: no token ends a text.

    >>> finish(
    ...     tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, [])), "a", "a", "a"
    ... ).end_of_text
    0
    """
    backend.no_truncation()
    backend.no_padding()
    first, last = (
        backend.token_to_id(role) if isinstance(role, str) else role for role in (bos, eos)
    )
    first, last = (
        i if i is not None and backend.id_to_token(i) is not None else None for i in (first, last)
    )
    if end_of_text is not None:
        found = find_token(backend, end_of_text, source)
    elif (found := backend.token_to_id(END_OF_TEXT)) is None:
        found = last
    if found is None:
        raise InputError(
            f"{source}: no token ends a text: neither {END_OF_TEXT} nor an eos token; name one with"
            " --end-of-text (in Python end_of_text=)"
        )
    return Tokenizer(backend, int(found), name, first, eos=last)


def one_line(err: Exception) -> str:
    r"""What an exception says, on one line.

    >>> one_line(ValueError("two\n lines"))
    'two lines'
    """
    return " ".join(str(err).split())
