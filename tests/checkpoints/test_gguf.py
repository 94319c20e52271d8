"""GGUF files of every architecture, written here as llama.cpp's converter writes them."""

import contextlib

import jax
import numpy as np
import pytest
from flax import traverse_util

from lmdyn import checkpoints
from lmdyn.checkpoints.formats.folder import read_folder
from lmdyn.checkpoints.formats.gguf import read_gguf
from lmdyn.errors import InputError
from lmdyn.models import RotaryScaling
from lmdyn.models.matrices.quantized import unpack
from lmdyn.params import partition
from tests.checkpoints.cases import CASES, VOCAB, Case, random_model
from tests.helpers import assert_close, jit_logits

gguf = pytest.importorskip("gguf")
TOKENS = ["<|endoftext|>", "a", "b", "ab", "c", "\u0120"]


def permute(weights, heads):
    """What llama.cpp's converter does to queries and keys of Llama (`LlamaModel.permute`)."""
    return (
        weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


LLAMA_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
NAMES = {
    "gpt2": {
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.ln_f": "output_norm",
        "ln_1": "attn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "ln_2": "ffn_norm",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    },
    "gptneox": {
        "gpt_neox.embed_in": "token_embd",
        "gpt_neox.final_layer_norm": "output_norm",
        "embed_out": "output",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "attention.query_key_value": "attn_qkv",
        "attention.dense": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.dense_h_to_4h": "ffn_up",
        "mlp.dense_4h_to_h": "ffn_down",
    },
    "olmo2": {
        **LLAMA_NAMES,
        "post_attention_layernorm": "post_attention_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}


def converted(model, architecture: str):
    """Pairs of name and array, by the rules of convert_hf_to_gguf.py."""
    config, names = model.config, NAMES.get(architecture, LLAMA_NAMES)
    for name, value in model.state_dict().items():
        value, (stem, kind) = value.numpy(), name.rsplit(".", 1)
        parts = stem.split(".")
        number = next((p for p in parts if p.isdigit()), None)
        if stem == "lm_head" and config.tie_word_embeddings:
            continue
        if number is not None:
            stem = stem[stem.index(f".{number}.") + len(number) + 2 :]
        heads = config.num_attention_heads
        if architecture in ("llama", "olmo") and stem.endswith(("q_proj", "k_proj")):
            value = permute(value, heads if stem.endswith("q_proj") else config.num_key_value_heads)
        if architecture == "gpt2" and value.ndim == 2 and number is not None:
            value = value.T
        if architecture == "gptneox" and stem.endswith("query_key_value"):
            value = (
                value.reshape(heads, 3, -1, *value.shape[1:]).swapaxes(0, 1).reshape(value.shape)
            )
        yield (
            (f"blk.{number}." if number is not None else "") + f"{names[stem]}.{kind}",
            np.ascontiguousarray(value),
        )


def metadata(writer, config, architecture: str):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_feed_forward_length(
        getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    )
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if architecture in ("gpt2", "gptneox", "olmo"):
        writer.add_layer_norm_eps(
            getattr(config, "layer_norm_epsilon", None) or getattr(config, "layer_norm_eps", 1e-5)
        )
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if architecture == "gpt2":
        return
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if architecture == "gptneox":
        writer.add_rope_dimension_count(int(head * rope["partial_rotary_factor"]))
        writer.add_parallel_residual(config.use_parallel_residual)
        return
    writer.add_rope_dimension_count(head)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
        if rope["rope_type"] == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if getattr(config, "clip_qkv", None):
        writer.add_clamp_kqv(config.clip_qkv)


def tokens(writer, pre="gpt-2", model="gpt2"):
    writer.add_tokenizer_model(model)
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)


def write(
    path, model, architecture: str, quantise=None, extra=lambda writer: None, tokenizer=tokens
):
    writer = gguf.GGUFWriter(path, architecture)
    metadata(writer, model.config, architecture)
    tokenizer(writer)
    extra(writer)
    for name, value in converted(model, architecture):
        if quantise is not None and value.ndim == 2:
            writer.add_tensor(name, gguf.quants.quantize(value, quantise), raw_dtype=quantise)
        else:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


MODELS = {
    "gpt2": CASES["gpt2"],
    "gptneox": (
        CASES["neox-serial-yarn"]._replace(
            options={
                **CASES["neox-serial-yarn"].options,
                "hidden_act": "gelu",
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e4,
                    "partial_rotary_factor": 0.5,
                },
            }
        )
    ),
    "llama": CASES["llama-biases-linear"],
    "olmo": CASES["olmo-clipped"],
    "olmo2": CASES["olmo2"],
    "qwen2": CASES["qwen2-yarn-tied"],
    "qwen3": CASES["qwen3-biased"],
}


@pytest.mark.parametrize("architecture", MODELS)
def test_a_gguf_holds_the_model_that_the_folder_holds(architecture, tmp_path):
    case = MODELS[architecture]
    model = random_model(case.family, case.options)
    model.save_pretrained(tmp_path / "folder")
    config, params = read_folder(tmp_path / "folder")
    (found, theirs), tokenizer = read_gguf(write(tmp_path / "m.gguf", model, architecture))
    assert found == config
    paths = traverse_util.flatten_dict(theirs, sep="/")
    for path, value in traverse_util.flatten_dict(params, sep="/").items():
        assert np.array_equal(paths.pop(path), value), path
    assert not paths
    assert tokenizer.encode("abc a").tolist() == [3, 4, 5, 1]


@pytest.fixture
def shards(tmp_path, small):
    """The files of one model, as `gguf` splits it."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=9)
    metadata(writer, small.config, "llama")
    tokens(writer)
    for name, value in converted(small, "llama"):
        writer.add_tensor(name, value)
    writer.write_header_to_file(tmp_path / "m.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(tmp_path.glob("m-*.gguf"))


def test_shards_are_read_like_one_file(shards, small, tmp_path):
    whole, _ = read_gguf(write(tmp_path / "whole.gguf", small, "llama"))
    assert len(shards) > 2
    for shard in (shards[0], shards[2]):
        (config, params), _ = read_gguf(shard)
        assert config == whole.config
        jax.tree.map(np.testing.assert_array_equal, params, whole.params)


def test_shards_that_are_missing_or_renamed_are_named(shards):
    shards[1].rename(shards[1].with_name("kept"))
    with pytest.raises(InputError, match=rf"one of {len(shards)} shards.*00002-of-.* is missing"):
        read_gguf(shards[0])
    shards[1].write_bytes(shards[2].read_bytes())
    with pytest.raises(InputError, match="says that it is shard 3; shards have been renamed"):
        read_gguf(shards[0])


KINDS = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0"]
WIDE = Case(
    "llama",
    {
        "vocab_size": VOCAB,
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "intermediate_size": 512,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
    },
)


@pytest.fixture(scope="module")
def wide():
    return random_model("llama", WIDE.options)


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_kinds_are_decoded(kind, wide, tmp_path):
    kind = gguf.GGMLQuantizationType[kind]
    (_, params), _ = read_gguf(write(tmp_path / "m.gguf", wide, "llama", kind))
    layers = range(2)
    up = np.stack([wide.model.layers[i].mlp.up_proj.weight.detach().numpy() for i in layers])
    expected = gguf.dequantize(gguf.quants.quantize(up, kind), kind).swapaxes(1, 2)
    assert np.array_equal(params["blocks"]["mlp"]["up"]["kernel"], expected)
    key = np.stack(
        [permute(wide.model.layers[i].self_attn.k_proj.weight.detach().numpy(), 2) for i in layers]
    )
    rows = gguf.dequantize(gguf.quants.quantize(key, kind), kind)
    unpermuted = rows.reshape(2, 2, 32, 2, 256).swapaxes(2, 3).reshape(key.shape)
    assert np.array_equal(params["blocks"]["attention"]["key"]["kernel"], unpermuted.swapaxes(1, 2))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_packed_matrices_hold_the_same_numbers_in_less_memory(kind, wide, tmp_path):
    """Queries and keys are unpermuted, the embedding is looked up and used as head: all without a
    float32 copy.
    """
    path = write(tmp_path / "m.gguf", wide, "llama", gguf.GGMLQuantizationType[kind])
    model, params, *_ = checkpoints.load(f"gguf:{path}")
    packed = checkpoints.load(f"gguf:{path}", packed=True).params
    for name in ("query", "key", "output"):
        found = unpack(packed["blocks"]["attention"][name]["kernel"]).swapaxes(1, 2)
        np.testing.assert_allclose(
            found, params["blocks"]["attention"][name]["kernel"], rtol=1e-6, atol=1e-9
        )
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    assert size(packed) < size(params) / 3
    tokens = np.arange(14).reshape(2, 7) % VOCAB
    assert_close(jit_logits(model, packed, tokens), jit_logits(model, params, tokens), 1e-5)
    with pytest.raises(InputError, match="quantised"):
        partition(packed, "blocks.mlp")


@pytest.fixture(scope="module")
def small():
    options = {
        **CASES["llama-biases-linear"].options,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
    }
    return random_model("llama", options)


def llama3_divisors(half, base, factor, original=8192):
    turns = original * base ** -(np.arange(half) / half) / (2 * np.pi)
    blend = np.clip((turns - 1) / 3, 0, 1)
    return (1 / (blend + (1 - blend) / factor)).astype(np.float32)


def test_llama_3_scaling_is_recognised_in_its_divisors(small, tmp_path):
    add = lambda writer: writer.add_tensor("rope_freqs.weight", llama3_divisors(3, 5e5, 8.0))
    (config, _), _ = read_gguf(write(tmp_path / "m.gguf", small, "llama", extra=add))
    assert config.rotary_scaling == RotaryScaling("llama3", 8.0, 8192)


BAD = {
    "other divisors": (
        lambda w: w.add_tensor("rope_freqs.weight", np.array([1, 3, 2], np.float32)),
        "rope_freqs.weight",
    ),
    "longrope": (lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE), "longrope"),
    "window": (lambda w: w.add_sliding_window(16), "llama.attention.sliding_window=16"),
    "experts": (lambda w: w.add_expert_count(4), "llama.expert_count=4"),
    "a shard": (
        lambda w: (w.add_uint16("split.no", 0), w.add_uint16("split.count", 2)),
        "m.gguf is shard 1 of 2",
    ),
    "extra tensor": (
        lambda w: w.add_tensor("blk.0.attn_q_norm.weight", np.ones(6, np.float32)),
        "blk.0.attn_q_norm.weight has no place",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_expressed_is_refused(name, small, tmp_path):
    extra, words = BAD[name]
    with pytest.raises(InputError) as caught:
        read_gguf(write(tmp_path / "m.gguf", small, "llama", extra=extra))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture_and_pre_tokenizer_list_the_known(small, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(
        InputError, match="architecture 'mamba' are not supported; supported: gpt2, gptneox, llama"
    ):
        read_gguf(tmp_path / "m.gguf")
    with pytest.raises(
        InputError, match=r"unknown tokenizer.ggml.pre 'smolm'; did you mean 'smollm'"
    ):
        read_gguf(
            write(tmp_path / "n.gguf", small, "llama", tokenizer=lambda w: tokens(w, "smolm"))
        )


def test_a_gguf_cut_short_anywhere_is_one_clear_line(small, tmp_path):
    whole = write(tmp_path / "m.gguf", small, "llama").read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in [0, 3, 10, 23, 24, 60, 333, 900, len(whole) // 5, len(whole) // 2, len(whole) - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(InputError) as caught:
            checkpoints.load(f"gguf:{cut}")
        assert "cut.gguf" in str(caught.value), size
        assert "\n" not in str(caught.value), size


def test_damaged_bytes_never_escape_as_tracebacks(small, tmp_path):
    path = write(tmp_path / "m.gguf", small, "llama")
    whole, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    damaged = tmp_path / "damaged.gguf"
    for position in rng.integers(4, 3000, 60):
        spoiled = bytearray(whole)
        spoiled[position : position + 2] = rng.bytes(2)
        damaged.write_bytes(spoiled)
        with contextlib.suppress(InputError):  # damage to a weight is not an error
            read_gguf(damaged)


def test_other_files(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"PK\x03\x04 and so on")
    for name, words in (("a.gguf", "not a GGUF file"), ("none.gguf", "No such file")):
        with pytest.raises(InputError, match=words):
            checkpoints.load(f"gguf:{tmp_path / name}")


def test_nan_is_named(small, tmp_path):
    import torch

    spoiled = random_model("llama", CASES["llama-biases-linear"].options)
    with torch.no_grad():
        spoiled.model.layers[1].mlp.up_proj.weight[3, 2] = float("inf")
    with pytest.raises(InputError, match=r"blk.1.ffn_up.weight holds NaN or infinity"):
        read_gguf(write(tmp_path / "m.gguf", spoiled, "llama"))


def test_the_tokenizer_may_not_exceed_the_embedding(small, tmp_path):
    def many(writer):
        tokens(writer)
        writer.kv_data[0].pop("tokenizer.ggml.tokens")
        writer.kv_data[0].pop("tokenizer.ggml.token_type")
        writer.add_token_list(["<|endoftext|>", *TOKENS[1:], *(f"t{i}" for i in range(60))])

    with pytest.raises(
        InputError, match=r"the tokenizer has 66 ids but the embedding only 61 rows"
    ):
        checkpoints.load(f"gguf:{write(tmp_path / 'm.gguf', small, 'llama', tokenizer=many)}")


def test_load_and_export_a_gguf(small, tmp_path):
    loaded = checkpoints.load(f"gguf:{write(tmp_path / 'toy.F32.gguf', small, 'llama')}")
    assert (loaded.name, loaded.step) == ("toy.F32", None)
    checkpoints.export(loaded.model, loaded.params, loaded.tokenizer, tmp_path / "out")
    again = checkpoints.load(f"dir:{tmp_path}/out")
    assert again.model.config == loaded.model.config
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bool((a == b).all()), again.params, loaded.params)
    )
