"""Tokenizers that need no file: bytes, and byte-level BPE that is trained on a text."""

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from lmdyn.data.tokenizers.byte_level import PRE_TOKENIZERS, byte_letters, byte_level_bpe
from lmdyn.data.tokenizers.tokenizer import END_OF_TEXT, Tokenizer, finish
from lmdyn.errors import InputError


def byte_tokenizer() -> Tokenizer:
    """One id for every byte, and 256 for the end of text.

    >>> byte_tokenizer().vocab, byte_tokenizer().encode("é<|endoftext|>").tolist()
    (257, [195, 169, 256])
    """
    letters = byte_letters()
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={letter: byte for byte, letter in enumerate(letters)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return Tokenizer(backend, 256, "bytes")


def train_bpe(documents: Iterable[str], vocab: int, name: str = "bpe") -> Tokenizer:
    """A byte-level BPE trained on text, cut into words as GPT-2's is.

    It can write any text: every byte has an id. The same documents in the same order give the same
    tokenizer.

    Args:
      documents: str, one per document, such as `lmdyn.data.documents` gives.
      vocab: how many ids, the 256 bytes and "<|endoftext|>" (id 0) included. Where the text has
        fewer words to merge, there are fewer: see `Tokenizer.vocab`.
      name: for reports.

    Raises:
      InputError: a vocab below 257, documents without text, or one that cannot be read.

    >>> tokenizer = train_bpe(["low lower lowest"] * 3, vocab=259)
    >>> tokenizer.vocab, [tokenizer.decode([i]) for i in tokenizer.encode("low, é")]
    (259, ['low', ',', ' ', '\ufffd', '\ufffd'])
    """
    if isinstance(documents, str):
        raise InputError(
            "train_bpe takes a sequence of documents, not one text; give [text] or"
            " documents(reference)"
        )
    if vocab < 257:
        raise InputError(
            f"vocab={vocab} of a byte-level BPE; 256 bytes and {END_OF_TEXT} need 257, so give more"
        )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend = byte_level_bpe(models.BPE(), PRE_TOKENIZERS["gpt-2"])
    found, failed = 0, []

    def texts():  # an exception must not cross the library, which would change its type
        nonlocal found
        try:
            for text in documents:
                found += bool(text)
                yield from text.split(END_OF_TEXT)  # which is a token and no text to learn from
        except InputError as err:
            failed.append(err)

    backend.train_from_iterator(texts(), trainer)
    if failed:
        raise failed[0]
    if not found:
        raise InputError(
            f"{getattr(documents, 'reference', 'the text')} has no text to train a BPE on"
        )
    return finish(backend, None, name, name)
