"""Text to token ids and back, through the `tokenizers` library.

`Tokenizer.encode` adds no special tokens; `Tokenizer.first_token` says what a document begins with.
Text that literally contains a special token, such as
"<|endoftext|>", becomes that token, as the library does it.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import tokenizers

from lmdyn.errors import InputError, choose

END_OF_TEXT = "<|endoftext|>"
BOS = ("auto", "document", "window", "none")
"""Where a beginning-of-text token is put."""


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

    def encode(self, text: str) -> np.ndarray:
        """The ids of `text`, `[N]` int32, without special tokens.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().encode("hi").tolist()
        [104, 105]
        """
        return np.asarray(
            self.backend.encode_batch_fast([text], add_special_tokens=False)[0].ids, np.int32
        )

    def first_token(self, bos: str = "auto") -> int | None:
        """The token to put before a document, or None.

        Args:
          bos: `auto`: what the model's own tokenizer puts first, if anything; `document` or
            `window`: its beginning-of-text token; `none`.

        Raises:
          InputError: another `bos`, or a model without such a token.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().first_token() is None
        True
        """
        choose("bos", bos, BOS)
        if bos == "none" or (bos == "auto" and self._prefix is None):
            return None
        found = self._prefix if self._prefix is not None else self.bos
        if found is None:
            raise InputError(
                f"bos={bos}: the tokenizer {self.name} has no beginning-of-text token; use auto or"
                " none"
            )
        return found

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


def document_token(tokenizer: Tokenizer, bos: str) -> int | None:
    """The token that every document begins with, or None.

    Args:
      tokenizer: of the model.
      bos: `auto`, `document` or `none`, see `Tokenizer.first_token`.

    Raises:
      InputError: `window`, or as for `Tokenizer.first_token`.

    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> document_token(byte_tokenizer(), "auto") is None
    True
    """
    if bos == "window":
        raise InputError("bos=window puts a token before windows, not documents; use document")
    return None if bos == "none" else tokenizer.first_token(bos)


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
    end_of_text: str | int | None,
    name: str,
    source: str,
    bos: str | int | None = None,
) -> Tokenizer:
    """A `Tokenizer` around a backend, without truncation and padding.

    Args:
      backend: of the `tokenizers` library; it is changed.
      end_of_text: token or id to use when the vocabulary has no "<|endoftext|>".
      name: for reports.
      source: what errors call it.
      bos: token or id that begins a text; None, or one that is not there, means that none does.

    Raises:
      InputError: no token ends a text.

    >>> finish(
    ...     tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, [])), "a", "a", "a"
    ... ).end_of_text
    0
    """
    backend.no_truncation()
    backend.no_padding()
    eos = backend.token_to_id(end_of_text) if isinstance(end_of_text, str) else end_of_text
    found = backend.token_to_id(END_OF_TEXT)
    if found is None:
        found = eos
    if found is None or backend.id_to_token(found) is None:
        raise InputError(
            f"{source}: no token ends a text: neither {END_OF_TEXT} nor an eos token; give"
            " end_of_text="
        )
    first = backend.token_to_id(bos) if isinstance(bos, str) else bos
    first, eos = (
        i if i is not None and backend.id_to_token(i) is not None else None for i in (first, eos)
    )
    return Tokenizer(backend, int(found), name, first, eos=eos)


def one_line(err: Exception) -> str:
    r"""What an exception says, on one line.

    >>> one_line(ValueError("two\n lines"))
    'two lines'
    """
    return " ".join(str(err).split())
