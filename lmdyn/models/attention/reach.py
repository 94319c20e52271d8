"""Which keys a query may see, said by numbers: no mask `[T, S]` is ever passed on.

Every kernel reads this description and makes of it what it needs for a block of queries and keys.

Shape letters: B batch, T queries, S keys (S >= T: the last T keys are the queries' own).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from lmdyn.types import Array, present


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["query_segment", "key_segment"],
    meta_fields=["window"],
)
@dataclasses.dataclass(frozen=True)
class Reach:
    """Which keys a query may see: none after its own, none of another segment, none too far back.

    Query t's own key is number S - T + t; what comes later in the array is in its future, whatever
    positions say. A segment is a document, or what is no text at all: -1 stands for empty places
    of a cache and for padding, which text then does not see.

    Attributes:
      query_segment: `[B, T]` integers; None where all is one segment.
      key_segment: `[B, S]` integers, None together with `query_segment`.
      window: how many keys a query sees at most, its own included; None for all.

    >>> two_documents = jnp.array([[0, 0, 1]])
    >>> allowed_keys(Reach(two_documents, two_documents), 0, 3, 0, 3, past=0)[0, 0].astype(
    ...     int
    ... ).tolist()
    [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """

    query_segment: Array | None = None
    key_segment: Array | None = None
    window: int | None = None


CAUSAL = Reach()
"""A query sees its own key and all before it."""


def allowed_keys(
    reach: Reach, start: int, stop: int, first: int, end: int, past: int, share: int = 1
) -> jax.Array:
    """Which of the keys `first:end` the queries `start:stop` may see.

    Args:
      reach: what a query may see.
      start: the first query.
      stop: the query after the last one.
      first: the first key.
      end: the key after the last one.
      past: S - T, keys before the first query's own.
      share: how many heads the rows are repeated for.

    Returns:
      `[1 or B, 1, share * (stop - start), end - first]` booleans.

    >>> allowed_keys(Reach(window=2), 1, 3, 0, 3, past=0).astype(int).tolist()
    [[[[1, 1, 0], [0, 1, 1]]]]
    """
    shape = (1, 1, share * (stop - start), end - first)
    query = jax.lax.broadcasted_iota(jnp.int32, shape, 2) % (stop - start) + (start + past)
    key = jax.lax.broadcasted_iota(jnp.int32, shape, 3) + first
    allowed = key <= query
    if reach.window is not None:
        allowed &= key > query - reach.window
    if reach.query_segment is not None:
        queries, keys = reach.query_segment[:, start:stop], present(reach.key_segment)
        same = queries[:, :, None] == keys[:, None, first:end]
        allowed &= jnp.tile(same[:, None], (1, 1, share, 1))
    return allowed


def padded_segments(reach: Reach, queries: int, keys: int) -> tuple[jax.Array, jax.Array] | None:
    """The segments of longer arrays: what is added at the end belongs to the last segment.

    Args:
      reach: what a query may see.
      queries: how many queries there are then.
      keys: how many keys there are then.

    Returns:
      `[B, queries]` and `[B, keys]` int32, or None where all is one segment.

    >>> padded_segments(Reach(jnp.array([[3]]), jnp.array([[2, 3]])), 2, 4)[1].tolist()
    [[2, 3, 3, 3]]
    """
    if reach.query_segment is None:
        return None

    def pad(segment, length):
        ends = ((0, 0), (0, length - segment.shape[1]))
        return jnp.pad(jnp.asarray(segment, jnp.int32), ends, mode="edge")

    return pad(reach.query_segment, queries), pad(present(reach.key_segment), keys)
