"""OLMo in its own names (`hf_olmo`), against `transformers`' classes for the same models.

Against `ai2-olmo` 0.6.0 itself the logits of these and of two further shapes agreed to 2e-6.
"""

import json

import numpy as np
import pytest

from lmdyn import checkpoints, models
from lmdyn.checkpoints.formats.folder import read_folder
from lmdyn.errors import InputError
from tests.checkpoints.cases import CASES, random_model
from tests.helpers import assert_close

torch = pytest.importorskip("torch")

BASE = {"model_type": "hf_olmo", "rope": True, "include_bias": False, "weight_tying": False}
RMS = {"layer_norm_type": "rms", "bias_for_layer_norm": False}
# The family of transformers that is the same model, and what OLMo's own config says of it.
SAME = {
    "olmo-clipped": {"layer_norm_type": "default", "layer_norm_with_affine": False},
    "olmo2": {**RMS, "norm_after": True, "attention_layer_norm": True},
    "llama": RMS,
}


def renamed(state: dict) -> dict:
    """Tensors of `transformers`, under the names of `ai2-olmo` and fused as there."""
    found = {
        "transformer.wte.weight": state["model.embed_tokens.weight"],
        "transformer.ff_out.weight": state["lm_head.weight"],
    }
    if "model.norm.weight" in state:
        found["transformer.ln_f.weight"] = state["model.norm.weight"]
    norms = ["input_layernorm", "post_attention_layernorm", "post_feedforward_layernorm"]
    norms = [norm for norm in norms if f"model.layers.0.{norm}.weight" in state]
    for layer in range(sum(name.endswith("mlp.up_proj.weight") for name in state)):
        theirs, ours = f"model.layers.{layer}.", f"transformer.blocks.{layer}."
        qkv = [state[f"{theirs}self_attn.{x}_proj.weight"] for x in "qkv"]
        halves = [state[f"{theirs}mlp.{x}_proj.weight"] for x in ("up", "gate")]
        found[f"{ours}att_proj.weight"] = torch.cat(qkv)
        found[f"{ours}ff_proj.weight"] = torch.cat(halves)
        found[f"{ours}attn_out.weight"] = state[f"{theirs}self_attn.o_proj.weight"]
        found[f"{ours}ff_out.weight"] = state[f"{theirs}mlp.down_proj.weight"]
        for norm, name in zip(norms, ("attn_norm", "ff_norm"), strict=False):
            found[f"{ours}{name}.weight"] = state[f"{theirs}{norm}.weight"]
        for name in ("q_norm", "k_norm"):
            if f"{theirs}self_attn.{name}.weight" in state:
                found[f"{ours}{name}.weight"] = state[f"{theirs}self_attn.{name}.weight"]
    return {f"model.{name}": value for name, value in found.items()}


@pytest.mark.parametrize("name", SAME)
def test_the_same_model_under_its_own_names(name, tmp_path):
    family, options = CASES[name].family, {**CASES[name].options, "rope_parameters": None}
    if name == "llama":  # OLMo's heads are as wide as its width divided by their number
        options |= {"head_dim": 4, "num_key_value_heads": 2}
    model = random_model(family, options).eval()
    theirs = model.config
    torch.save(renamed(model.state_dict()), tmp_path / "pytorch_model.bin")
    values = {
        **BASE,
        **SAME[name],
        "d_model": theirs.hidden_size,
        "n_heads": theirs.num_attention_heads,
        "n_kv_heads": theirs.num_key_value_heads,
        "n_layers": theirs.num_hidden_layers,
        "mlp_hidden_size": 2 * theirs.intermediate_size,
        "max_sequence_length": theirs.max_position_embeddings,
        "embedding_size": theirs.vocab_size,
        "clip_qkv": getattr(theirs, "clip_qkv", None),
        "layer_norm_eps": getattr(theirs, "rms_norm_eps", 1e-5),
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    config, params = read_folder(tmp_path)
    tokens = np.random.default_rng(0).integers(0, config.vocab, (2, 17))
    with torch.no_grad():
        wanted = model(torch.from_numpy(tokens)).logits.numpy()
    compute = models.Compute(dtype="float32")
    assert_close(models.logits(models.LanguageModel(config, compute), params, tokens), wanted, 1e-5)
    # It is exported as the family of transformers that it is.
    checkpoints.export(models.LanguageModel(config), params, None, tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == family


REFUSED = {
    "alibi": ({"alibi": True}, "alibi=True"),
    "learned positions": ({"rope": False}, "rope=False is not supported"),
    "other blocks": ({"block_type": "llama"}, "block_type='llama'"),
    "gelu": ({"activation_type": "gelu"}, "activation_type='gelu'"),
    "layer norm of queries": ({"attention_layer_norm": True}, "layer_norm_type='rms'"),
    "scaled logits": ({"scale_logits": True}, "scale_logits=True"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_settings_are_refused_by_name(name, tmp_path):
    change, words = REFUSED[name]
    (tmp_path / "config.json").write_text(json.dumps({**BASE, **change}))
    with pytest.raises(InputError, match=words):
        read_folder(tmp_path)
