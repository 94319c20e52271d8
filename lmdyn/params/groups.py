"""Groups of parameters, which gradients are measured by and updates are restricted to.

A group is a selector, or a short name for one.
"""

from lmdyn.params.selectors import Path, flatten, select
from lmdyn.types import Params

GROUPS = {
    "attention": "blocks.attention",
    "mlp": "blocks.mlp",
    "norms": "blocks.attention_norm+blocks.mlp_norm",
    "embed": "embed",
    "positions": "positions",
    "final_norm": "final_norm",
    "head": "head",
}
"""Short names.

`attention` has its query and key norms with it; `norms` are the two on a block's residual stream; a
tied head is `embed`.
"""


def group_names(params: Params) -> tuple[str, ...]:
    """The names of `GROUPS` that a model has parameters for.

    Together they are all of its parameters.

    Args:
      params: the nested dict of parameters (or of their shapes).

    >>> import numpy as np
    >>> group_names(
    ...     {
    ...         "embed": {"embedding": np.ones([5, 2])},
    ...         "blocks": {"mlp": {"up": {"kernel": np.ones([4, 2, 3])}}},
    ...     }
    ... )
    ('mlp', 'embed')
    """
    leaves = [".".join(path) + "." for path in flatten(params)]
    has = lambda selector: any(
        leaf.startswith(term + ".") for leaf in leaves for term in selector.split("+")
    )
    return tuple(name for name, selector in GROUPS.items() if has(selector))


def group_members(params: Params, group: str) -> dict[Path, tuple[int, ...] | None]:
    """The parameters of a group, as `select` returns them.

    Args:
      params: the nested dict of parameters (or of their shapes).
      group: a name of `GROUPS`, or a selector.

    Raises:
      InputError: the model has no such parameters.

    >>> import numpy as np
    >>> group_members({"blocks": {"mlp": {"up": {"kernel": np.ones([3, 2, 3])}}}}, "mlp")
    {('blocks', 'mlp', 'up', 'kernel'): (0, 1, 2)}
    """
    return select(params, GROUPS.get(group, group))


def group_layers(members: dict[Path, tuple[int, ...] | None]) -> tuple[int, ...] | None:
    """The layers that hold a group's parameters, sorted; None if some are outside the blocks.

    Args:
      members: from `group_members`.

    >>> group_layers(
    ...     {
    ...         ("blocks", "mlp", "up", "kernel"): (0, 2),
    ...         ("blocks", "mlp", "down", "kernel"): (1,),
    ...     }
    ... )
    (0, 1, 2)
    >>> group_layers({("head", "kernel"): None})
    """
    inside = [found for found in members.values() if found is not None]
    return (
        tuple(sorted({layer for found in inside for layer in found}))
        if len(inside) == len(members)
        else None
    )
