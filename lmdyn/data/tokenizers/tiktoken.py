"""Byte-level BPE of tiktoken files: a token and its rank per line."""

import base64

from lmdyn.data.tokenizers.byte_level import byte_letters


def parse_ranks(data: bytes) -> dict[bytes, int] | None:
    r"""The tokens of a tiktoken file and their ranks, which are their ids; None: it is none.

    Args:
      data: lines of a token in base 64, a space, and its rank.

    >>> parse_ranks(b"YQ== 0\nYg== 1\n")
    {b'a': 0, b'b': 1}
    """
    try:
        lines = (line.split() for line in data.splitlines() if line)
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except ValueError:
        return None
    return ranks if ranks and all(ranks) else None


def merges_of_ranks(ranks: dict[bytes, int]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges that join bytes as tiktoken does: what has the lowest rank, first.

    Args:
      ranks: of all tokens.

    Returns:
      The ids of the tokens, in the letters of byte-level BPE, and the pairs that become one, in
      all ways to each token. Words that are a token need no merging (`ignore_merges`).

    >>> merges_of_ranks({b"a": 0, b"b": 1, b"ab": 2})
    ({'a': 0, 'b': 1, 'ab': 2}, [('a', 'b')])
    """
    letters = dict(enumerate(byte_letters()))
    texts = {token: token.decode("latin-1").translate(letters) for token in ranks}
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        halves = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = [(ranks[a], ranks[b], a, b) for a, b in halves if a in ranks and b in ranks]
        merges += [(texts[a], texts[b]) for _, _, a, b in sorted(pairs)]
    return {texts[token]: rank for token, rank in ranks.items()}, merges
