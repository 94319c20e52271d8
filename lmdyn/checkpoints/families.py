"""What distinguishes the families of models, as data.

A `Family` holds tensor names, config keys, defaults and fixed choices, and is named after
`model_type` in Hugging Face's `config.json`. `hf_config.py` translates configurations with it,
`assemble.py` tensors. Defaults equal those of the `transformers`
configuration classes (version 5), because a key that is missing from `config.json` means exactly
that default.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lmdyn.errors import InputError
from lmdyn.names import resolve


class Rule(NamedTuple):
    """Where one leaf of our parameters lies in a file.

    >>> rule = Rule("blocks/mlp/up/kernel", "layers.{layer}.mlp.up_proj.weight", "transposed")
    >>> rule.source.format(layer=3)
    'layers.3.mlp.up_proj.weight'
    """

    path: str
    """of the leaf, such as `blocks/mlp/up/kernel`"""
    source: str
    """the file's tensor; `{layer}` in it marks a leaf that is stacked over layers"""
    layout: str = "plain"
    """how it lies in that tensor: a key of `lmdyn.checkpoints.layouts.LAYOUTS`"""
    part: int = 0
    """which part of a tensor that holds several"""


class Family(NamedTuple):
    """A row of the table; see `FAMILIES`.

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
    """where the parameters lie"""
    only: Mapping[str, Any] = MappingProxyType({})
    """keys that have one value we can represent"""
    rotary: tuple[str, str | None] | None = ("rope_theta", None)
    """the keys of version 4 for base and share; None: no such key, or no rotary positions"""
    written: Mapping[str, Any] = MappingProxyType({})
    """keys that are written besides"""


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


_LAYER = "layers.{layer}."
_LLAMA_RULES = (
    Rule("embed/embedding", "embed_tokens.weight"),
    *norm("blocks/attention_norm", _LAYER + "input_layernorm"),
    *linear("blocks/attention/query", _LAYER + "self_attn.q_proj"),
    *linear("blocks/attention/key", _LAYER + "self_attn.k_proj"),
    *linear("blocks/attention/value", _LAYER + "self_attn.v_proj"),
    *linear("blocks/attention/output", _LAYER + "self_attn.o_proj"),
    *norm("blocks/attention/query_norm", _LAYER + "self_attn.q_norm"),
    *norm("blocks/attention/key_norm", _LAYER + "self_attn.k_norm"),
    *norm("blocks/mlp_norm", _LAYER + "post_attention_layernorm"),
    *linear("blocks/mlp/gate", _LAYER + "mlp.gate_proj"),
    *linear("blocks/mlp/up", _LAYER + "mlp.up_proj"),
    *linear("blocks/mlp/down", _LAYER + "mlp.down_proj"),
    *norm("final_norm", "norm"),
    Rule("head/kernel", "lm_head.weight", "transposed"),
)
_OLMO2_NORMS = {
    "input_layernorm": "post_attention_layernorm",
    "post_attention_layernorm": "post_feedforward_layernorm",
}


def _renamed(rule: Rule) -> Rule:
    for old, new in _OLMO2_NORMS.items():
        if f".{old}." in rule.source:
            return rule._replace(source=rule.source.replace(old, new))
    return rule


_OLMO2_RULES = tuple(_renamed(rule) for rule in _LLAMA_RULES)
_GPT2_RULES = (
    Rule("embed/embedding", "wte.weight"),
    Rule("positions/embedding", "wpe.weight"),
    *norm("blocks/attention_norm", "h.{layer}.ln_1"),
    *fused("h.{layer}.attn.c_attn", "fused_columns"),
    *linear("blocks/attention/output", "h.{layer}.attn.c_proj", "plain"),
    *norm("blocks/mlp_norm", "h.{layer}.ln_2"),
    *linear("blocks/mlp/up", "h.{layer}.mlp.c_fc", "plain"),
    *linear("blocks/mlp/down", "h.{layer}.mlp.c_proj", "plain"),
    *norm("final_norm", "ln_f"),
    Rule("head/kernel", "lm_head.weight", "transposed"),
)
_GPT_NEOX_RULES = (
    Rule("embed/embedding", "embed_in.weight"),
    *norm("blocks/attention_norm", _LAYER + "input_layernorm"),
    *fused(_LAYER + "attention.query_key_value", "interleaved"),
    *linear("blocks/attention/output", _LAYER + "attention.dense"),
    *norm("blocks/mlp_norm", _LAYER + "post_attention_layernorm"),
    *linear("blocks/mlp/up", _LAYER + "mlp.dense_h_to_4h"),
    *linear("blocks/mlp/down", _LAYER + "mlp.dense_4h_to_h"),
    *norm("final_norm", "final_layer_norm"),
    Rule("head/kernel", "embed_out.weight", "transposed"),
)

_LLAMA_KEYS = {
    "vocab": ("vocab_size",),
    "width": ("hidden_size",),
    "depth": ("num_hidden_layers",),
    "heads": ("num_attention_heads",),
    "kv_heads": ("num_key_value_heads",),
    "head_width": ("head_dim",),
    "mlp_width": ("intermediate_size",),
    "positions": ("max_position_embeddings",),
    "activation": ("hidden_act",),
    "norm_eps": ("rms_norm_eps",),
    "tied_head": ("tie_word_embeddings",),
    "init_std": ("initializer_range",),
    "qkv_bias": ("attention_bias",),
    "output_bias": ("attention_bias",),
}
_LLAMA_DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}
_LLAMA_FIXED = {"norm": "rms", "norm_bias": False, "gated": True, "init": "normal"}
_OLMO_DEFAULTS = {**_LLAMA_DEFAULTS, "vocab_size": 50304, "clip_qkv": None}
_QWEN_DEFAULTS = {
    **_LLAMA_DEFAULTS,
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
}


def _without(keys: dict, *names: str) -> dict:
    return {k: v for k, v in keys.items() if k not in names}


FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        architecture="GPT2LMHeadModel",
        prefix="transformer.",
        keys={
            "vocab": ("vocab_size",),
            "width": ("n_embd", "hidden_size"),
            "depth": ("n_layer", "num_hidden_layers"),
            "heads": ("n_head", "num_attention_heads"),
            "mlp_width": ("n_inner",),
            "positions": ("n_positions", "max_position_embeddings"),
            "activation": ("activation_function",),
            "norm_eps": ("layer_norm_epsilon",),
            "tied_head": ("tie_word_embeddings",),
            "init_std": ("initializer_range",),
        },
        defaults={
            "vocab_size": 50257,
            "n_positions": 1024,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_inner": None,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
        },
        fixed={
            "norm": "layer",
            "norm_bias": True,
            "position": "learned",
            "gated": False,
            "qkv_bias": True,
            "output_bias": True,
            "mlp_bias": True,
            "init": "depth",
        },
        only={
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        rotary=None,
        rules=_GPT2_RULES,
    ),
    "gpt_neox": Family(
        architecture="GPTNeoXForCausalLM",
        prefix="gpt_neox.",
        keys={
            **_without(_LLAMA_KEYS, "kv_heads", "head_width"),
            "norm_eps": ("layer_norm_eps",),
            "parallel": ("use_parallel_residual",),
        },
        defaults={
            "vocab_size": 50432,
            "hidden_size": 6144,
            "num_hidden_layers": 44,
            "num_attention_heads": 64,
            "intermediate_size": 24576,
            "hidden_act": "gelu",
            "max_position_embeddings": 2048,
            "initializer_range": 0.02,
            "layer_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "use_parallel_residual": True,
            "attention_bias": True,
            "rotary_pct": 0.25,
        },
        fixed={
            "norm": "layer",
            "norm_bias": True,
            "gated": False,
            "mlp_bias": True,
            "init": "small",
        },
        rotary=("rotary_emb_base", "rotary_pct"),
        rules=_GPT_NEOX_RULES,
    ),
    "llama": Family(
        architecture="LlamaForCausalLM",
        prefix="model.",
        keys={**_LLAMA_KEYS, "mlp_bias": ("mlp_bias",)},
        defaults=_LLAMA_DEFAULTS,
        fixed=_LLAMA_FIXED,
        rules=_LLAMA_RULES,
    ),
    "olmo": Family(
        architecture="OlmoForCausalLM",
        prefix="model.",
        keys={**_without(_LLAMA_KEYS, "norm_eps"), "clip_qkv": ("clip_qkv",)},
        defaults=_OLMO_DEFAULTS,
        fixed={**_LLAMA_FIXED, "norm": "layer", "norm_scale": False, "norm_eps": 1e-5},
        rules=_LLAMA_RULES,
    ),
    "olmo2": Family(
        architecture="Olmo2ForCausalLM",
        prefix="model.",
        keys=_LLAMA_KEYS,
        defaults={**_OLMO_DEFAULTS, "rms_norm_eps": 1e-5},
        fixed={**_LLAMA_FIXED, "norm_place": "output", "query_key_norm": "all"},
        rules=_OLMO2_RULES,
    ),
    "qwen2": Family(
        architecture="Qwen2ForCausalLM",
        prefix="model.",
        keys=_without(_LLAMA_KEYS, "qkv_bias", "output_bias"),
        defaults=_QWEN_DEFAULTS,
        fixed={**_LLAMA_FIXED, "qkv_bias": True, "output_bias": False},
        written={"use_sliding_window": False},
        rules=_LLAMA_RULES,
    ),
    "qwen3": Family(
        architecture="Qwen3ForCausalLM",
        prefix="model.",
        keys=_LLAMA_KEYS,
        defaults={**_QWEN_DEFAULTS, "head_dim": 128},
        fixed={**_LLAMA_FIXED, "query_key_norm": "head"},
        written={"use_sliding_window": False},
        rules=_LLAMA_RULES,
    ),
}

# Tensors that older files hold and that are no parameters: masks, and rotary tables that follow
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
    if name not in FAMILIES and "." not in name:  # another family is no misspelling of this one
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
