"""Which keys a query may see.

Shape letters: B batch, T queries, S keys (S >= T: the last T keys are the queries' own).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmdyn.types import Array, present


class Reach(NamedTuple):
    """Which keys a query may see: those at a position `0 <= key <= query`, in its own document.

    `query` `[B, T]`, `key` `[B, S]`: positions, -1 for an empty place of a cache. The two document
    arrays have the same shapes, or are None when everything is one document.

    >>> import numpy as np
    >>> Reach(np.array([[0, 1]]), np.array([[0, 1]])).allows(0, 2, 2)[0, 0].tolist()
    [[True, False], [True, True]]
    """

    query: Array
    key: Array
    query_document: Array | None = None
    key_document: Array | None = None

    def allows(self, start: int, stop: int, end: int) -> Array:
        """`[B, 1, stop - start, end]` booleans, for queries `start:stop` and keys `:end`."""
        query, key = self.query[:, start:stop, None], self.key[:, None, :end]
        allowed = (key <= query) & (key >= 0)
        if self.query_document is not None:
            allowed &= (
                self.query_document[:, start:stop, None]
                == present(self.key_document)[:, None, :end]
            )
        return allowed[:, None]


def allowed_keys(
    reach: Reach | None, start: int, stop: int, end: int, past: int, share: int = 1
) -> jax.Array:
    """Which of the keys `:end` the queries `start:stop` may see.

    Args:
      reach: a `Reach`, or None for plain causal order.
      start: the first query.
      stop: the query after the last one.
      end: the key after the last one.
      past: S - T, keys before the first query.
      share: how many heads the rows are repeated for.

    Returns:
      `[1 or B, 1, share * (stop - start), end]` booleans.

    >>> allowed_keys(None, 1, 3, 3, past=0).astype(int).tolist()
    [[[[1, 1, 0], [1, 1, 1]]]]
    """
    if reach is not None:
        return jnp.tile(reach.allows(start, stop, end), (1, 1, share, 1))
    shape = (1, 1, share * (stop - start), end)
    query = jax.lax.broadcasted_iota(jnp.int32, shape, 2) % (stop - start) + (start + past)
    return jax.lax.broadcasted_iota(jnp.int32, shape, 3) <= query
