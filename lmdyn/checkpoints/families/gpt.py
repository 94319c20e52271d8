"""GPT-2 and GPT-NeoX."""

from lmdyn.checkpoints.families.base import Family, Rule, fused, linear, norm, without
from lmdyn.checkpoints.families.llama import KEYS, LAYER

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
    *norm("blocks/attention_norm", LAYER + "input_layernorm"),
    *fused(LAYER + "attention.query_key_value", "interleaved"),
    *linear("blocks/attention/output", LAYER + "attention.dense"),
    *norm("blocks/mlp_norm", LAYER + "post_attention_layernorm"),
    *linear("blocks/mlp/up", LAYER + "mlp.dense_h_to_4h"),
    *linear("blocks/mlp/down", LAYER + "mlp.dense_4h_to_h"),
    *norm("final_norm", "final_layer_norm"),
    Rule("head/kernel", "embed_out.weight", "transposed"),
)

GPT2 = Family(
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
)
GPT_NEOX = Family(
    architecture="GPTNeoXForCausalLM",
    prefix="gpt_neox.",
    keys={
        **without(KEYS, "kv_heads", "head_width"),
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
    fixed={"norm": "layer", "norm_bias": True, "gated": False, "mlp_bias": True, "init": "small"},
    rotary=("rotary_emb_base", "rotary_pct"),
    rules=_GPT_NEOX_RULES,
)
