"""Small random models of every family, as `transformers` saves them, and what it computes with
them.

A case of `length` T runs T - 1 inputs, so 132 and 8 are odd lengths of 131 (more than one block of
queries) and 7.
"""

import json
from typing import NamedTuple

import numpy as np
import pytest

WIDTH, DEPTH, VOCAB = 24, 3, 61
_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "intermediate_size": 37,
}
_GROUPED = {
    **_COMMON,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 160,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 40,
    "rope_theta": 5000.0,
}
_YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 40,
    "rope_theta": 3000.0,
}
_LINEAR = {"rope_type": "linear", "factor": 2.5, "rope_theta": 10000.0}


class Case(NamedTuple):
    """A model of `family` with `options`, run on rows of `length` tokens; `layout`: of the rotary
    keys in config.json.
    """

    family: str
    options: dict
    length: int = 132
    layout: int = 5


# `pad_token_id` None: torch would leave the padding token's row out of the embedding's gradient.
CASES = {
    "gpt2": Case(
        "gpt2",
        {"vocab_size": VOCAB, "n_embd": WIDTH, "n_layer": DEPTH, "n_head": 3, "n_positions": 160},
    ),
    "gpt2-wide-untied": Case(
        "gpt2",
        {
            "vocab_size": VOCAB,
            "n_embd": WIDTH,
            "n_layer": DEPTH,
            "n_head": 3,
            "n_inner": 31,
            "n_positions": 8,
            "activation_function": "gelu",
            "tie_word_embeddings": False,
        },
        8,
    ),
    "neox": Case("gpt_neox", {**_COMMON, "num_attention_heads": 3, "max_position_embeddings": 160}),
    "neox-serial-yarn": Case(
        "gpt_neox",
        {
            **_COMMON,
            "num_attention_heads": 2,
            "use_parallel_residual": False,
            "max_position_embeddings": 160,
            "hidden_act": "gelu_new",
            "rope_parameters": {**_YARN, "partial_rotary_factor": 0.5},
        },
        layout=4,
    ),
    "neox-nobias-tied": Case(
        "gpt_neox",
        {**_COMMON, "num_attention_heads": 3, "attention_bias": False, "tie_word_embeddings": True},
        8,
    ),
    "llama": Case("llama", {**_GROUPED, "head_dim": 10, "rope_parameters": _LLAMA3}),
    "llama-biases-linear": Case(
        "llama",
        {
            **_GROUPED,
            "attention_bias": True,
            "mlp_bias": True,
            "head_dim": 6,
            "tie_word_embeddings": True,
            "rope_parameters": _LINEAR,
        },
        layout=4,
    ),
    "llama-llama3": Case(
        "llama",
        {**_GROUPED, "head_dim": 10, "rope_parameters": _LLAMA3, "hidden_act": "relu"},
        8,
        4,
    ),
    "olmo-clipped": Case(
        "olmo", {**_GROUPED, "num_key_value_heads": 3, "clip_qkv": 0.4, "pad_token_id": None}
    ),
    "olmo2": Case(
        "olmo2",
        {**_GROUPED, "num_key_value_heads": 3, "rms_norm_eps": 1e-3, "pad_token_id": None},
        layout=4,
    ),
    "qwen2-yarn-tied": Case(
        "qwen2", {**_GROUPED, "tie_word_embeddings": True, "rope_parameters": _YARN}
    ),
    "qwen3": Case(
        "qwen3",
        {**_GROUPED, "head_dim": 10, "rope_parameters": {**_YARN, "attention_factor": 1.3}},
        layout=4,
    ),
    "qwen3-biased": Case("qwen3", {**_GROUPED, "head_dim": 14, "attention_bias": True}, 8),
}


class Reference(NamedTuple):
    """A saved model and what `transformers` computes: `tokens [B, T]`, `logits [B, T, V]`;
    `gradients` is a folder that holds the gradient of the mean next-token loss as if it were a
    checkpoint.
    """

    folder: object
    gradients: object
    tokens: np.ndarray
    logits: np.ndarray


def version_4(values: dict) -> dict:
    """A `config.json` as transformers 4 wrote it: rotary settings at the top level."""
    values = dict(values)
    rope = dict(values.pop("rope_parameters"))
    neox = values["model_type"] == "gpt_neox"
    values["rotary_emb_base" if neox else "rope_theta"] = rope.pop("rope_theta")
    share = rope.pop("partial_rotary_factor", None)
    if neox:
        values["rotary_pct"] = share
    values["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    return values


def rewrite(folder, layout: int):
    """Puts the rotary keys of a saved config.json into the layout of transformers 4 or 5."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    if layout == 4 and values.get("rope_parameters"):
        values = version_4(values)
    path.write_text(json.dumps(values))


def random_model(family: str, options: dict, seed: int = 0):
    """A `transformers` model with every parameter drawn at random, biases and norms too."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(family, **options)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "bias" not in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0.0, 0.2)
    return model


def make(case: Case, root) -> Reference:
    torch = pytest.importorskip("torch")
    model = random_model(case.family, case.options)
    folder, gradients = root / "model", root / "gradients"
    model.save_pretrained(folder)
    rewrite(folder, case.layout)
    tokens = torch.randint(0, VOCAB, (2, case.length), generator=torch.Generator().manual_seed(1))
    logits = model(tokens).logits
    torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, VOCAB), tokens[:, 1:].reshape(-1)
    ).backward()
    for parameter in model.parameters():
        parameter.data = parameter.grad
    model.save_pretrained(gradients)
    rewrite(gradients, case.layout)
    return Reference(folder, gradients, tokens.numpy(), logits.detach().numpy())


TINY = {
    "vocab_size": VOCAB,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 5,
    "max_position_embeddings": 16,
}


def write_tokenizer(folder, tokens=("<|endoftext|>", "a", "b", "ab", "c")):
    """A small byte-level tokenizer.json."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    merges = [("a", "b")] if "ab" in tokens else []
    backend = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if "<|endoftext|>" in tokens:
        backend.add_special_tokens(["<|endoftext|>"])
    backend.save(str(folder / "tokenizer.json"))


def write_tiny(folder, seed: int = 0, **changes):
    """A tiny Llama folder without torch: config.json, model.safetensors, tokenizer.json."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    tensors = {
        "model.embed_tokens.weight": normal(VOCAB, 8),
        "model.norm.weight": normal(8),
        "lm_head.weight": normal(VOCAB, 8),
    }
    for i in range(2):
        name = f"model.layers.{i}."
        tensors |= {
            name + "self_attn.q_proj.weight": normal(8, 8),
            name + "self_attn.k_proj.weight": normal(4, 8),
            name + "self_attn.v_proj.weight": normal(4, 8),
            name + "self_attn.o_proj.weight": normal(8, 8),
            name + "mlp.gate_proj.weight": normal(5, 8),
            name + "mlp.up_proj.weight": normal(5, 8),
            name + "mlp.down_proj.weight": normal(8, 5),
            name + "input_layernorm.weight": normal(8),
            name + "post_attention_layernorm.weight": normal(8),
        }
    tensors |= changes.pop("tensors", {})
    tensors = {name: value for name, value in tensors.items() if value is not None}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **TINY, **changes}))
    save_file(tensors, folder / "model.safetensors")
    write_tokenizer(folder)
    return tensors
