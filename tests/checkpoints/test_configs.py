"""config.json in both layouts; what cannot be expressed is refused by name."""

import dataclasses
import json

import pytest

from lmdyn.checkpoints.families import FAMILIES, family
from lmdyn.checkpoints.hf_config import read_config, write_config
from lmdyn.errors import InputError
from lmdyn.models import ModelConfig
from tests.checkpoints.cases import CASES, version_4

OF_TRANSFORMERS = [name for name, entry in FAMILIES.items() if entry.translate is None]


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_missing_keys_mean_what_transformers_makes_of_them(name):
    transformers = pytest.importorskip("transformers")
    full = json.loads(transformers.AutoConfig.for_model(name).to_json_string(use_diff=False))
    small = {"model_type": name}
    if name == "qwen3":  # its own defaults do not divide evenly otherwise
        assert read_config(small).head_width == 128
    assert read_config(small) == read_config(full)


@pytest.mark.parametrize("name", CASES)
def test_both_layouts_read_alike(name):
    transformers = pytest.importorskip("transformers")
    case = CASES[name]
    values = json.loads(
        transformers.AutoConfig.for_model(case.family, **case.options).to_json_string(
            use_diff=False
        )
    )
    if case.family == "gpt2":
        assert read_config(values).position == "learned"
        return
    assert "rope_parameters" in values
    assert read_config(values) == read_config(version_4(values))


@pytest.mark.parametrize("name", CASES)
def test_a_written_config_reads_back_and_transformers_agrees(name):
    transformers = pytest.importorskip("transformers")
    case = CASES[name]
    config = read_config(
        json.loads(
            transformers.AutoConfig.for_model(case.family, **case.options).to_json_string(
                use_diff=False
            )
        )
    )
    written = json.loads(json.dumps(write_config(config)))
    assert written["model_type"] == case.family
    assert read_config(written) == config
    theirs = transformers.AutoConfig.for_model(**written)
    assert read_config(json.loads(theirs.to_json_string(use_diff=False))) == config
    for dropped in ("rope_parameters", "rope_scaling"):  # either layout alone is enough
        assert read_config({k: v for k, v in written.items() if k != dropped}) == config


def test_a_model_that_is_no_family_is_named_with_what_differs():
    config = ModelConfig(
        vocab=5, width=4, depth=1, heads=2, head_width=2, mlp_width=3, positions=8, parallel=True
    )
    with pytest.raises(InputError, match=r"nearest, llama, differs in parallel=True"):
        write_config(config)


def test_an_unknown_family_lists_those_that_are_known():
    with pytest.raises(
        InputError, match=r"^models of model_type 'gtp2' are not supported; supported: gpt2, "
    ) as caught:
        family("gtp2")
    assert all(name in str(caught.value) for name in FAMILIES)


SLIDING = {
    "use_sliding_window": True,
    "sliding_window": 64,
    "max_window_layers": 1,
    "num_hidden_layers": 4,
}
REFUSED = [
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0}},
        "longrope",
    ),
    ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
    ("llama", {"rope_scaling": {"type": "linear"}}, "factor"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": "2"}}, "factor='2'"),
    ("llama", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "rope_parameters"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ("llama", {"hidden_act": "mish"}, "mish"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ("llama", {"hidden_size": "wide"}, "hidden_size='wide'"),
    ("llama", {"hidden_size": 10, "num_attention_heads": 3}, "width 10"),
    ("llama", {"num_attention_heads": 0}, "0 heads"),
    ("llama", {"num_key_value_heads": 5}, "num_key_value_heads=5"),
    ("llama", {"rms_norm_eps": None, "tie_word_embeddings": "yes"}, "tie_word_embeddings='yes'"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=False"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True"),
    ("qwen2", SLIDING, "sliding_window=64"),
    ("qwen3", SLIDING, "sliding_window=64"),
    ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
    ("gpt_neox", {"rotary_pct": 0.001}, "rotary_share"),
    ("gpt_neox", {"head_dim": 7}, "head_dim=7"),
    ("llama", {"rope_scaling": {"rope_type": 5}}, "rope_type '5'"),
    ("gpt_neox", {"head_dim": 7, "num_attention_heads": 0}, "config.json of gpt_neox is malformed"),
    (
        "qwen2",
        {"use_sliding_window": True, "num_hidden_layers": "many"},
        "config.json of qwen2 is malformed",
    ),
    ("mamba", {}, "mamba"),
]


@pytest.mark.parametrize("name, change, word", REFUSED, ids=[f"{n}-{w}" for n, _, w in REFUSED])
def test_what_cannot_be_expressed_is_refused(name, change, word):
    with pytest.raises(InputError) as caught:
        read_config({"model_type": name, **change})
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unused_sliding_windows_are_fine():
    values = {
        "model_type": "qwen2",
        "use_sliding_window": False,
        "sliding_window": 4096,
        "num_hidden_layers": 30,
    }
    assert read_config(values) == read_config({**values, "sliding_window": None})


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("gelu", "gelu"),
        ("gelu_new", "gelu_tanh"),
        ("gelu_fast", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
        ("swish", "silu"),
        ("relu", "relu"),
    ],
)
def test_activations(theirs, ours):
    assert read_config({"model_type": "llama", "hidden_act": theirs}).activation == ours


def test_yarn_with_two_scales_fixes_the_attention_factor():
    rope = {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.5}
    scaling = read_config(
        {"model_type": "llama", "rope_scaling": rope, "max_position_embeddings": 99}
    ).rotary_scaling
    assert scaling.attention_factor == pytest.approx(1.138629 / 1.069315, abs=1e-5)
    assert scaling.original_positions == 99


def test_initialisation_follows_the_family():
    kinds = {
        name: read_config({"model_type": name, "initializer_range": 0.5}).init
        for name in OF_TRANSFORMERS
    }
    assert kinds["gpt2"] == "depth"
    assert kinds["gpt_neox"] == "small"
    assert kinds["llama"] == "normal"
    assert dataclasses.is_dataclass(read_config({"model_type": "llama"}))
