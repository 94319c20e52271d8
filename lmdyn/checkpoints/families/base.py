"""What a family of models is, as data: a row of the table `FAMILIES`.

Defaults equal those of the `transformers` configuration classes (version 5), because a key that
is missing from `config.json` means exactly that default.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """Where a file stores one leaf of our parameters.

    >>> rule = Rule("blocks/mlp/up/kernel", "layers.{layer}.mlp.up_proj.weight", "transposed")
    >>> rule.source.format(layer=3)
    'layers.3.mlp.up_proj.weight'
    """

    path: str
    """of the leaf, such as `blocks/mlp/up/kernel`"""
    source: str
    """the file's tensor; `{layer}` in it marks a leaf that is stacked over layers"""
    layout: str = "plain"
    """how that tensor holds it: a key of `lmdyn.checkpoints.layouts.LAYOUTS`"""
    part: int = 0
    """which part of a tensor that holds several"""


class Family(NamedTuple):
    """A row of the table; see `FAMILIES`.

    >>> from lmdyn.checkpoints.families import FAMILIES
    >>> FAMILIES["llama"].architecture, FAMILIES["llama"].keys["depth"]
    ('LlamaForCausalLM', ('num_hidden_layers',))
    """

    architecture: str
    """the class of `transformers`"""
    prefix: str
    """of the names of tensors"""
    keys: dict[str, tuple[str, ...]]
    """our config field to the `config.json` keys that may hold it; the first is written"""
    defaults: dict[str, Any]
    """of those keys"""
    fixed: dict[str, Any]
    """our fields that every member shares"""
    rules: tuple[Rule, ...]
    """where the parameters are stored"""
    only: Mapping[str, Any] = MappingProxyType({})
    """keys that have one value we can represent"""
    rotary: tuple[str, str | None] | None = ("rope_theta", None)
    """the keys of version 4 for base and share; None: no such key, or no rotary positions"""
    written: Mapping[str, Any] = MappingProxyType({})
    """keys that are written besides"""
    translate: Callable[[dict], dict] | None = None
    """`config.json` to the same in the keys above, where one of its keys says what several of ours
    say; such a family is read only"""


def linear(path: str, source: str, layout: str = "transposed", part: int = 0) -> tuple[Rule, Rule]:
    """Kernel and bias of one linear layer.

    >>> [rule.path for rule in linear("blocks/mlp/up", "h.{layer}.mlp.c_fc", "plain")]
    ['blocks/mlp/up/kernel', 'blocks/mlp/up/bias']
    """
    return (
        Rule(f"{path}/kernel", f"{source}.weight", layout, part),
        Rule(f"{path}/bias", f"{source}.bias", layout, part),
    )


def norm(path: str, source: str) -> tuple[Rule, Rule]:
    """Scale and bias of one norm.

    >>> [rule.source for rule in norm("final_norm", "ln_f")]
    ['ln_f.weight', 'ln_f.bias']
    """
    return Rule(f"{path}/scale", f"{source}.weight"), Rule(f"{path}/bias", f"{source}.bias")


def fused(source: str, layout: str) -> tuple[Rule, ...]:
    """Queries, keys and values that share one tensor.

    >>> [rule.part for rule in fused("h.{layer}.attn.c_attn", "fused_columns")]
    [0, 0, 1, 1, 2, 2]
    """
    names = ("query", "key", "value")
    return tuple(
        rule
        for i, n in enumerate(names)
        for rule in linear(f"blocks/attention/{n}", source, layout, i)
    )


def without(keys: dict, *names: str) -> dict:
    """`keys` but for those of `names`.

    >>> without({"width": ("n_embd",), "heads": ("n_head",)}, "heads")
    {'width': ('n_embd',)}
    """
    return {k: v for k, v in keys.items() if k not in names}
