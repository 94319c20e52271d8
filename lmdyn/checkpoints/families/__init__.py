"""The families of models whose checkpoints are read and written, by `model_type`.

`hf_config.py` translates configurations with a family's row, `assemble.py` tensors.
"""

from collections.abc import Iterable

from lmdyn.checkpoints.families.base import Family, Rule, fused, linear, norm
from lmdyn.checkpoints.families.gpt import GPT2, GPT_NEOX
from lmdyn.checkpoints.families.hf_olmo import HF_OLMO
from lmdyn.checkpoints.families.llama import LLAMA, OLMO, OLMO2, QWEN2, QWEN3
from lmdyn.errors import InputError
from lmdyn.names import resolve

__all__ = ["FAMILIES", "Family", "Rule", "family", "fused", "linear", "norm", "unsupported"]

FAMILIES: dict[str, Family] = {
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "llama": LLAMA,
    "olmo": OLMO,
    "olmo2": OLMO2,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "hf_olmo": HF_OLMO,
}

# Tensors that older files hold and that are not parameters: masks, and rotary tables that follow
# from the config.
IGNORED = (r".*rotary_emb\.inv_freq", r".*\.attn\.(masked_)?bias", r".*\.attention\.(masked_)?bias")

# Names that never carry the prefix of the model.
HEAD_NAMES = ("lm_head.weight", "embed_out.weight")


def family(name: str) -> Family:
    """The family of a `model_type`, or a `Family` by its dotted name.

    Raises:
      InputError: it is not known; lists those that are.

    >>> family("gpt2").architecture
    'GPT2LMHeadModel'
    """
    if name not in FAMILIES and "." not in name:  # another family is not a misspelling of this one
        raise InputError(unsupported("model_type", name, FAMILIES))
    return resolve(name, FAMILIES, "model_type")


def unsupported(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a family of models that lmdyn does not know.

    Args:
      what: what names the family.
      name: its name.
      known: those that are supported.

    >>> unsupported("model_type", "mamba", ["gpt2", "llama"])
    "models of model_type 'mamba' are not supported; supported: gpt2, llama"
    """
    return f"models of {what} '{name}' are not supported; supported: {', '.join(sorted(known))}"
