"""OLMo as its own code names it (`ai2-olmo`): OLMo 1's first folders, and DataDecide's."""

from typing import Any

from lmdyn.checkpoints.families.base import Family, Rule, fused, linear, norm
from lmdyn.errors import InputError, choose

_BLOCK = "transformer.blocks.{layer}."


def _translate(values: dict) -> dict:
    """The settings of `olmo.config.ModelConfig`, in the names of `lmdyn.models.ModelConfig`."""
    given: dict[str, Any] = {**HF_OLMO.defaults, **values}
    if not given["rope"]:
        raise InputError("rope=False is not supported for hf_olmo; only rope=True")
    kind = choose("layer_norm_type", given["layer_norm_type"], ("default", "low_precision", "rms"))
    if given["attention_layer_norm"] and not (
        kind == "rms" and given["attention_layer_norm_with_affine"]
    ):
        raise InputError(
            "attention_layer_norm=True is supported with layer_norm_type='rms' and a trained scale"
        )
    hidden = given["mlp_hidden_size"] or given["mlp_ratio"] * given["d_model"]
    bias, norm_bias = given["include_bias"], given["bias_for_layer_norm"]
    heads, kv_heads = given["n_heads"], given["n_kv_heads"]
    if kv_heads is None:
        kv_heads = 1 if given["multi_query_attention"] else heads
    return {
        **given,
        "vocab": given["embedding_size"] or given["vocab_size"],
        "kv_heads": kv_heads,
        "mlp_width": hidden // 2,  # the hidden size counts up and gate
        "norm": "rms" if kind == "rms" else "layer",
        "norm_bias": (bias if norm_bias is None else norm_bias) and given["layer_norm_with_affine"],
        "norm_place": "output" if given["norm_after"] else "input",
        "query_key_norm": "all" if given["attention_layer_norm"] else "none",
    }


HF_OLMO = Family(
    architecture="OLMoForCausalLM",
    prefix="model.",
    keys={
        "vocab": ("vocab",),
        "width": ("d_model",),
        "depth": ("n_layers",),
        "heads": ("n_heads",),
        "kv_heads": ("kv_heads",),
        "mlp_width": ("mlp_width",),
        "positions": ("max_sequence_length",),
        "norm": ("norm",),
        "norm_scale": ("layer_norm_with_affine",),
        "norm_bias": ("norm_bias",),
        "norm_place": ("norm_place",),
        "norm_eps": ("layer_norm_eps",),
        "query_key_norm": ("query_key_norm",),
        "clip_qkv": ("clip_qkv",),
        "tied_head": ("weight_tying",),
        "qkv_bias": ("include_bias",),
        "output_bias": ("include_bias",),
        "mlp_bias": ("include_bias",),
        "init_std": ("init_std",),
    },
    defaults={
        "d_model": 768,
        "n_heads": 12,
        "n_kv_heads": None,
        "multi_query_attention": None,
        "n_layers": 12,
        "mlp_ratio": 4,
        "mlp_hidden_size": None,
        "rope": False,
        "clip_qkv": None,
        "attention_layer_norm": False,
        "attention_layer_norm_with_affine": True,
        "layer_norm_type": "default",
        "layer_norm_with_affine": True,
        "layer_norm_eps": 1e-5,
        "norm_after": False,
        "max_sequence_length": 1024,
        "include_bias": True,
        "bias_for_layer_norm": None,
        "vocab_size": 50257,
        "embedding_size": 50304,
        "weight_tying": True,
        "init_std": 0.02,
    },
    fixed={"gated": True, "activation": "silu", "init": "normal"},
    only={
        "activation_type": "swiglu",
        "block_type": "sequential",
        "alibi": False,
        "embedding_layer_norm": False,
        "scale_logits": False,
    },
    rules=(
        Rule("embed/embedding", "transformer.wte.weight"),
        *norm("blocks/attention_norm", _BLOCK + "attn_norm"),
        *fused(_BLOCK + "att_proj", "fused_rows"),
        *linear("blocks/attention/output", _BLOCK + "attn_out"),
        *norm("blocks/attention/query_norm", _BLOCK + "q_norm"),
        *norm("blocks/attention/key_norm", _BLOCK + "k_norm"),
        *norm("blocks/mlp_norm", _BLOCK + "ff_norm"),
        *linear("blocks/mlp/up", _BLOCK + "ff_proj", "halved_rows"),
        *linear("blocks/mlp/gate", _BLOCK + "ff_proj", "halved_rows", 1),
        *linear("blocks/mlp/down", _BLOCK + "ff_out"),
        *norm("final_norm", "transformer.ln_f"),
        Rule("head/kernel", "transformer.ff_out.weight", "transposed"),
    ),
    translate=_translate,
)
