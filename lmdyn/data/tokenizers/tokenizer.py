"""Text to token ids and back, through the `tokenizers` library.

A `Tokenizer` never adds special tokens. Text that literally contains a special token, such as
"<|endoftext|>", becomes that token, as the library does it.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import tokenizers

from lmdyn.errors import InputError

END_OF_TEXT = "<|endoftext|>"


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to token ids and back.

    Args:
      backend: the tokenizer of the `tokenizers` library.
      end_of_text: the id that ends a document.
      name: for reports.

    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> tokenizer = byte_tokenizer()
    >>> tokenizer.encode("hi").tolist(), tokenizer.decode([104, 105])
    ([104, 105], 'hi')
    """

    backend: tokenizers.Tokenizer
    end_of_text: int
    name: str

    def encode(self, text: str) -> np.ndarray:
        """The ids of `text`, `[N]` int32, without special tokens.

        >>> from lmdyn.data.tokenizers import byte_tokenizer
        >>> byte_tokenizer().encode("hi").tolist()
        [104, 105]
        """
        return np.asarray(
            self.backend.encode_batch_fast([text], add_special_tokens=False)[0].ids, np.int32
        )

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


def finish(
    backend: tokenizers.Tokenizer, end_of_text: str | int | None, name: str, source: str
) -> Tokenizer:
    """A `Tokenizer` around a backend, without truncation and padding.

    Args:
      backend: of the `tokenizers` library; it is changed.
      end_of_text: token or id to use when the vocabulary has no "<|endoftext|>".
      name: for reports.
      source: what errors call it.

    Raises:
      InputError: no token ends a text.

    >>> finish(
    ...     tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, [])), "a", "a", "a"
    ... ).end_of_text
    0
    """
    backend.no_truncation()
    backend.no_padding()
    found = backend.token_to_id(END_OF_TEXT)
    if found is None:
        found = backend.token_to_id(end_of_text) if isinstance(end_of_text, str) else end_of_text
    if found is None or backend.id_to_token(found) is None:
        raise InputError(
            f"{source}: no token ends a text: neither {END_OF_TEXT} nor an eos token; give"
            " end_of_text="
        )
    return Tokenizer(backend, int(found), name)


def one_line(err: Exception) -> str:
    r"""What an exception says, on one line.

    >>> one_line(ValueError("two\n lines"))
    'two lines'
    """
    return " ".join(str(err).split())
