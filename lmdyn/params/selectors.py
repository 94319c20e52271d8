"""One address for parameters: the selector.

    selector = term ("+" term)*
    term     = "all" | name ("[" layers "]")? ("." name)*
    layers   = index, slice (Python's, negative too) or a comma-separated list of them

`"blocks[5:9].mlp"`, `"blocks.attention.query"`, `"head"`, `"embed+blocks[-1]"`. A term selects
every parameter below its path. Only `blocks` has layers.
"""

import re
from collections.abc import Mapping
from typing import Any

from lmdyn.errors import InputError
from lmdyn.types import Params, Tree

Path = tuple[str, ...]


def flatten(tree: Tree, prefix: Path = ()) -> dict[Path, Any]:
    """`{path: leaf}` of a nested dict, in key order.

    >>> flatten({"b": {"c": 1}, "a": 2})
    {('a',): 2, ('b', 'c'): 1}
    """
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {
        path: leaf
        for name in sorted(tree)
        for path, leaf in flatten(tree[name], (*prefix, name)).items()
    }


def unflatten(leaves: Mapping[Path, Any]) -> dict:
    """The nested dict of `{path: leaf}`.

    >>> unflatten({("b", "c"): 1, ("a",): 2})
    {'b': {'c': 1}, 'a': 2}
    """
    tree: dict = {}
    for path, leaf in leaves.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = leaf
    return tree


def _layers(text: str, depth: int, term: str) -> set[int]:
    chosen: set[int] = set()
    for item in text.split(","):
        match = re.fullmatch(r"\s*(-?\d+)?\s*(:\s*(-?\d+)?\s*(:\s*(-?\d+)?)?)?\s*", item)
        if not match or not item.strip():
            raise InputError(
                f"'{item}' in selector '{term}' is not a layer; write an index or a slice like 5:9"
            )
        if match[2] is None:
            index = int(match[1])
            if not -depth <= index < depth:
                raise InputError(
                    f"layer {index} in selector '{term}' is outside the model's {depth} blocks; use"
                    f" 0 to {depth - 1}"
                )
            chosen.add(index % depth)
        else:
            start, stop, step = (int(g) if g else None for g in (match[1], match[3], match[5]))
            if step == 0:
                raise InputError(f"step 0 in selector '{term}'; a slice needs a step other than 0")
            chosen |= set(range(depth)[start:stop:step])
    return chosen


def select(params: Params, selector: str) -> dict[Path, tuple[int, ...] | None]:
    """Which parameters a selector names.

    Args:
      params: the nested dict of parameters (or of their shapes).
      selector: see the top of this file.

    Returns:
      `{path: layers}` in key order: the sorted layer indices for parameters of `blocks`, None (the
      whole) for others.

    Raises:
      InputError: nothing matches; the message lists what exists there.

    >>> import numpy as np
    >>> params = {
    ...     "embed": {"embedding": np.ones([5, 2])},
    ...     "blocks": {"mlp": {"up": {"kernel": np.ones([4, 2, 3])}}},
    ... }
    >>> select(params, "blocks[1:3].mlp+embed")
    {('blocks', 'mlp', 'up', 'kernel'): (1, 2), ('embed', 'embedding'): None}
    >>> select(params, "blocks.attention")
    Traceback (most recent call last):
    lmdyn.errors.InputError: selector 'blocks.attention' matches nothing: 'blocks' holds mlp
    """
    leaves = flatten(params)
    depth = next((leaf.shape[0] for path, leaf in leaves.items() if path[0] == "blocks"), 0)
    found: dict[Path, set[int] | None] = {}
    for term in (part.strip() for part in selector.split("+")):
        # A term is a name, layers in brackets, and names below it: blocks[5:9].mlp.
        if term == "all":
            found |= {path: set(range(depth)) if path[0] == "blocks" else None for path in leaves}
            continue
        match = re.fullmatch(r"(\w+)(?:\[([^\]]*)\])?((?:\.\w+)*)", term)
        if not match:
            raise InputError(
                f"selector '{term}' cannot be read; write for example 'blocks[5:9].mlp', 'head' or"
                " 'all'"
            )
        # Its layers; None is all of them.
        layers = None
        if match[2] is not None:
            if match[1] != "blocks":
                raise InputError(
                    f"selector '{term}': only blocks have layers, '{match[1]}' has none"
                )
            layers = _layers(match[2], depth, term)
            if not layers:
                raise InputError(
                    f"selector '{term}' matches no layer of the model's {depth} blocks; use 0 to"
                    f" {depth - 1}"
                )
        # Its names, walked down the parameters, so that the error says where they end.
        node, walked = params, ""
        names = (match[1], *match[3].split(".")[1:])
        for name in names:
            if not isinstance(node, Mapping) or name not in node:
                holds = f"'{walked}' holds" if walked else "the model holds"
                there = ", ".join(sorted(node)) if isinstance(node, Mapping) else "nothing below it"
                hint = " (its head is tied to embed)" if name == "head" and not walked else ""
                raise InputError(f"selector '{term}' matches nothing: {holds} {there}{hint}")
            node, walked = node[name], f"{walked}.{name}".lstrip(".")
        # Every leaf below; terms that overlap add their layers.
        for path in leaves:
            if path[: len(names)] == names:
                every = set(range(depth)) if layers is None else layers
                found[path] = (found.get(path) or set()) | every if path[0] == "blocks" else None
    return {
        path: None if (layers := found[path]) is None else tuple(sorted(layers))
        for path in sorted(found)
    }


def check_selector(params: Params, selector: str) -> None:
    """Checks that a selector names parameters that are there.

    Args:
      params: as for `select`.
      selector: as for `select`.

    Raises:
      InputError: as `select`.

    >>> check_selector({"head": {"kernel": [[1.0]]}}, "embed")
    Traceback (most recent call last):
    lmdyn.errors.InputError: selector 'embed' matches nothing: the model holds head
    """
    select(params, selector)
