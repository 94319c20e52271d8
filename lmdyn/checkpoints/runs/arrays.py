"""Trees of arrays as nested dicts with string keys: Orbax stores them under names that mean it."""

from typing import Any

import jax
import numpy as np

from lmdyn.types import Tree

LeafPath = tuple[str, ...]


def named(tree: Tree) -> dict[LeafPath, Any]:
    """The leaves of any pytree by their path.

    A path holds keys of dicts, fields of NamedTuples, and positions in lists.

    >>> import optax
    >>> state = optax.chain(optax.clip(1.0), optax.trace(0.9)).init({"w": np.ones(2)})
    >>> ["/".join(path) for path in named(state)]
    ['1/trace/w']
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(_part(key) for key in path) or ("value",): leaf for path, leaf in leaves}


def _part(key) -> str:
    for field in ("key", "name", "idx"):
        if hasattr(key, field):
            return str(getattr(key, field))
    return str(key)


def nested(leaves: dict[LeafPath, Any]) -> dict:
    """Nested dicts with those leaves.

    >>> nested({("a", "b"): 1, ("c",): 2})
    {'a': {'b': 1}, 'c': 2}
    """
    tree: dict = {}
    for path, leaf in leaves.items():
        place = tree
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = leaf
    return tree


def describe(leaves: dict[LeafPath, Any]) -> dict[str, list]:
    """`{"a/b": [shape, dtype]}`, as it is written into `checkpoint.json`.

    >>> describe({("a", "b"): np.ones([2, 3], np.float32)})
    {'a/b': [[2, 3], 'float32']}
    """
    return {
        "/".join(path): [list(np.shape(leaf)), str(leaf.dtype)] for path, leaf in leaves.items()
    }


def stored(leaves: dict[LeafPath, Any]) -> dict[LeafPath, Any]:
    """Those leaves that have numbers in them; Orbax refuses the others.

    >>> list(stored({("a",): np.ones(2), ("b",): np.ones(0)}))
    [('a',)]
    """
    return {path: leaf for path, leaf in leaves.items() if np.size(leaf)}


def local(leaf: Any) -> Any:
    """A leaf that Orbax can write.

    NumPy arrays are copied, so that the caller may change them meanwhile.

    >>> local(np.arange(3)).tolist()
    [0, 1, 2]
    """
    if isinstance(leaf, jax.Array) and (jax.process_count() == 1 or not leaf.is_fully_addressable):
        return leaf
    return np.array(leaf)
