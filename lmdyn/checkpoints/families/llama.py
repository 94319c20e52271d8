"""Llama and its relatives: Llama, OLMo 1 and 2, Qwen 2 and 3."""

from lmdyn.checkpoints.families.base import Family, Rule, linear, norm, without

LAYER = "layers.{layer}."
RULES = (
    Rule("embed/embedding", "embed_tokens.weight"),
    *norm("blocks/attention_norm", LAYER + "input_layernorm"),
    *linear("blocks/attention/query", LAYER + "self_attn.q_proj"),
    *linear("blocks/attention/key", LAYER + "self_attn.k_proj"),
    *linear("blocks/attention/value", LAYER + "self_attn.v_proj"),
    *linear("blocks/attention/output", LAYER + "self_attn.o_proj"),
    *norm("blocks/attention/query_norm", LAYER + "self_attn.q_norm"),
    *norm("blocks/attention/key_norm", LAYER + "self_attn.k_norm"),
    *norm("blocks/mlp_norm", LAYER + "post_attention_layernorm"),
    *linear("blocks/mlp/gate", LAYER + "mlp.gate_proj"),
    *linear("blocks/mlp/up", LAYER + "mlp.up_proj"),
    *linear("blocks/mlp/down", LAYER + "mlp.down_proj"),
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


_OLMO2_RULES = tuple(_renamed(rule) for rule in RULES)

KEYS = {
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
DEFAULTS = {
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
FIXED = {"norm": "rms", "norm_bias": False, "gated": True, "init": "normal"}
_OLMO_DEFAULTS = {**DEFAULTS, "vocab_size": 50304, "clip_qkv": None}
_QWEN_DEFAULTS = {
    **DEFAULTS,
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
}


LLAMA = Family(
    architecture="LlamaForCausalLM",
    prefix="model.",
    keys={**KEYS, "mlp_bias": ("mlp_bias",)},
    defaults=DEFAULTS,
    fixed=FIXED,
    rules=RULES,
)
OLMO = Family(
    architecture="OlmoForCausalLM",
    prefix="model.",
    keys={**without(KEYS, "norm_eps"), "clip_qkv": ("clip_qkv",)},
    defaults=_OLMO_DEFAULTS,
    fixed={**FIXED, "norm": "layer", "norm_scale": False, "norm_eps": 1e-5},
    rules=RULES,
)
OLMO2 = Family(
    architecture="Olmo2ForCausalLM",
    prefix="model.",
    keys=KEYS,
    defaults={**_OLMO_DEFAULTS, "rms_norm_eps": 1e-5},
    fixed={**FIXED, "norm_place": "output", "query_key_norm": "all"},
    rules=_OLMO2_RULES,
)
QWEN2 = Family(
    architecture="Qwen2ForCausalLM",
    prefix="model.",
    keys=without(KEYS, "qkv_bias", "output_bias"),
    defaults=_QWEN_DEFAULTS,
    fixed={**FIXED, "qkv_bias": True, "output_bias": False},
    written={"use_sliding_window": False},
    rules=RULES,
)
QWEN3 = Family(
    architecture="Qwen3ForCausalLM",
    prefix="model.",
    keys=KEYS,
    defaults={**_QWEN_DEFAULTS, "head_dim": 128},
    fixed={**FIXED, "query_key_norm": "head"},
    written={"use_sliding_window": False},
    rules=RULES,
)
