"""Hugging Face folders: whole, in shards, in half precision; and every way one can be bad."""

import json

import jax
import numpy as np
import pytest

from lmdyn import checkpoints
from lmdyn.checkpoints.formats.folder import read_folder
from lmdyn.errors import InputError
from tests.checkpoints.cases import CASES, TINY, random_model, write_tiny, write_tokenizer


def equal(ours, theirs) -> bool:
    return jax.tree.all(
        jax.tree.map(
            lambda a, b: a.dtype == b.dtype and bool((np.asarray(a) == np.asarray(b)).all()),
            ours,
            theirs,
        )
    )


def test_a_tensor_lands_where_it_belongs(tmp_path):
    tensors = write_tiny(tmp_path)
    config, params = read_folder(tmp_path)
    assert params["blocks"]["attention"]["key"]["kernel"].shape == (2, 8, 4)
    for layer in range(2):
        up = np.asarray(params["blocks"]["mlp"]["up"]["kernel"][layer])
        assert np.array_equal(up, tensors[f"model.layers.{layer}.mlp.up_proj.weight"].T)
    assert np.array_equal(params["embed"]["embedding"], tensors["model.embed_tokens.weight"])
    assert config.kv_heads == 1
    assert config.vocab == 61


def test_large_tensors_are_read_in_pieces(tmp_path, monkeypatch):
    write_tiny(tmp_path)
    whole = read_folder(tmp_path).params
    monkeypatch.setattr("lmdyn.checkpoints.assemble.BLOCK_NUMBERS", 24)
    assert equal(read_folder(tmp_path).params, whole)


def test_names_without_the_models_prefix(tmp_path):
    tensors = write_tiny(tmp_path / "a")
    renamed = {name.removeprefix("model."): value for name, value in tensors.items()}
    write_tiny(tmp_path / "b", tensors={**dict.fromkeys(tensors), **renamed})
    assert equal(*(read_folder(tmp_path / x).params for x in "ab"))


def test_old_buffers_are_ignored_and_a_tied_head_may_be_there_twice(tmp_path):
    buffers = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
    write_tiny(tmp_path, tensors=buffers, tie_word_embeddings=True)
    assert "head" not in read_folder(tmp_path).params


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64"])
def test_other_precisions_become_float32(kind, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = write_tiny(tmp_path)
    cast = {
        name: torch.from_numpy(value).to(getattr(torch, kind)) for name, value in tensors.items()
    }
    save_file(cast, tmp_path / "model.safetensors")
    leaf = read_folder(tmp_path).params["head"]["kernel"]
    assert leaf.dtype == np.float32
    assert np.array_equal(leaf, cast["lm_head.weight"].float().numpy().T)


def test_shards_read_like_one_file(tmp_path):
    model = random_model("llama", CASES["llama"].options)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="9KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    assert equal(*(read_folder(tmp_path / x).params for x in ("whole", "shards")))


def test_load_gives_model_parameters_and_tokenizer(tmp_path):
    write_tiny(tmp_path / "toy")
    loaded = checkpoints.load(f"dir:{tmp_path}/toy")
    assert (loaded.name, loaded.step) == ("toy", None)
    assert loaded.tokenizer.encode("abc").tolist() == [3, 4]
    assert loaded.tokenizer.end_of_text == 0
    assert loaded.model.config.width == 8
    assert loaded.params["final_norm"]["scale"].shape == (8,)


def _cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def _renamed(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _no_weights(folder):
    (folder / "model.safetensors").unlink()


def _two_files(folder):
    _no_weights(folder)
    for name in ("a.pt", "b.bin"):
        (folder / name).touch()


def _missing_shard(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "model-00001-of-00002.safetensors"}})
    )


def _no_config(folder):
    (folder / "config.json").unlink()


def _no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def _wide_tokenizer(folder):
    write_tokenizer(folder, ["<|endoftext|>", *map(chr, range(33, 33 + 70))])


def _no_end(folder):
    write_tokenizer(folder, ["a", "b"])


def _text(name, content):
    def write(folder):
        (folder / name).write_text(content)

    return write


NAN = np.full([8, 5], np.nan, np.float32)
BAD_TENSORS = {
    "missing": (
        {"model.layers.1.mlp.up_proj.weight": None},
        "tensor layers.1.mlp.up_proj.weight is missing",
    ),
    "shape": (
        {"model.layers.0.mlp.up_proj.weight": np.ones([6, 8], np.float32)},
        "layers.0.mlp.up_proj.weight has shape [6, 8]; its config wants [5, 8]",
    ),
    "nan": (
        {"model.layers.1.mlp.down_proj.weight": NAN},
        "layers.1.mlp.down_proj.weight holds NaN",
    ),
    "infinity": (
        {"model.norm.weight": np.full(8, np.inf, np.float32)},
        "norm.weight holds NaN or infinity",
    ),
    "unknown": (
        {"model.layers.0.self_attn.q_norm.weight": np.ones(4, np.float32)},
        "layers.0.self_attn.q_norm.weight has no place",
    ),
    "integers": ({"lm_head.weight": np.ones([61, 8], np.int8)}, "lm_head.weight has type I8"),
    "extra layer": (
        {"model.layers.2.input_layernorm.weight": np.ones(8, np.float32)},
        "layers.2.input_layernorm.weight",
    ),
}
BAD_FOLDERS = {
    "cut short": (_cut, "model.safetensors is not a whole safetensors file"),
    "not safetensors": (
        _text("model.safetensors", "hello"),
        "model.safetensors is not a whole safetensors file",
    ),
    "no pickle": (_renamed, "pytorch_model.bin: it is not a PyTorch file"),
    "no weights": (_no_weights, "has no model.safetensors or pytorch_model.bin"),
    "two files": (_two_files, "holds 2 PyTorch files (a.pt, ...), none of them named pytorch_mo"),
    "missing shard": (_missing_shard, "shard model-00001-of-00002.safetensors is missing"),
    "bad index": (_text("model.safetensors.index.json", "{}"), "no weight_map"),
    "no config": (_no_config, "has no config.json"),
    "config is no json": (_text("config.json", "{"), "config.json is not JSON"),
    "config is a list": (_text("config.json", "[]"), "config.json is not a JSON object"),
    "no family": (_text("config.json", "{}"), "no model_type"),
    "no tokenizer": (_no_tokenizer, "has no tokenizer.json"),
    "bad tokenizer": (_text("tokenizer.json", "{}"), "tokenizer.json is not a tokenizer.json"),
    "wide tokenizer": (_wide_tokenizer, "the tokenizer has 71 ids but the embedding only 61 rows"),
    "no end of text": (_no_end, "no token ends a text"),
}


def _moved_to(name):
    def rename(folder):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / "model.safetensors").rename(folder / name)

    return rename


def _bytes(name, content):
    return lambda folder: (folder / name).write_bytes(content) and None


def _config(**values):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
OTHER_KINDS = {
    "one shard": (
        _moved_to("model-00001-of-00002.safetensors"),
        "holds model-00001-of-00002.safetensors, a shard, but not the index that",
    ),
    "other name": (_moved_to("weights.safetensors"), "give the model's file that name"),
    "unfinished": (_moved_to("model.safetensors.incomplete"), "a download that did not end"),
    "onnx": (_moved_to("onnx/model.onnx"), "holds onnx/model.onnx, an ONNX graph"),
    "tensorflow": (_moved_to("tf_model.h5"), "holds tf_model.h5, weights of TensorFlow or Flax"),
    "gguf in it": (_moved_to("q8.gguf"), "holds q8.gguf, a GGUF file; write gguf:"),
    "lfs weights": (_bytes("model.safetensors", LFS), "is a Git LFS pointer, not a whole"),
    "lfs tokenizer": (_bytes("tokenizer.json", LFS), "with git lfs pull"),
    "page": (_bytes("config.json", b"\n<!DOCTYPE html><p>"), "is an HTML page, not JSON"),
    "empty file": (_bytes("model.safetensors", b""), "is empty, not a whole safetensors file"),
    "pickle by name": (
        _bytes("model.safetensors", b"PK\x03\x04xx"),
        "save the model as safetensors",
    ),
    "gguf by name": (_bytes("model.safetensors", b"GGUF" + bytes(60)), "write gguf:"),
    "awq": (
        _config(quantization_config={"quant_method": "awq"}),
        "quantised checkpoints (quantization_config: awq)",
    ),
    "mlx": (_config(quantization={"bits": 4}), "quantised checkpoints (quantization) are not read"),
    "layers": (_config(num_hidden_layers=0), "config.json: num_hidden_layers=0: a model needs"),
    "activation": (_config(hidden_act="swig"), "activation 'swig' are not supported; supported"),
    "rope": (_config(rope_scaling={"type": "dynamic"}), "rope_type 'dynamic' are not supported"),
}


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_a_bad_tensor_is_named(name, tmp_path):
    tensors, words = BAD_TENSORS[name]
    write_tiny(tmp_path, tensors=tensors)
    with pytest.raises(InputError) as caught:
        read_folder(tmp_path)
    assert words in one_line(caught)


@pytest.mark.parametrize("name", [*BAD_FOLDERS, *OTHER_KINDS])
def test_a_bad_folder_is_one_clear_line(name, tmp_path):
    spoil, words = {**BAD_FOLDERS, **OTHER_KINDS}[name]
    write_tiny(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError) as caught:
        checkpoints.load(f"dir:{tmp_path}")
    assert words in one_line(caught)


def test_a_fused_tensor_with_nan_is_named(tmp_path):
    model = random_model("gpt2", CASES["gpt2"].options)
    model.transformer.h[1].attn.c_attn.weight.data[3, 50] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"h.1.attn.c_attn.weight holds NaN"):
        read_folder(tmp_path)


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"no such folder"):
        checkpoints.load(f"dir:{tmp_path}/nowhere")
    assert TINY["hidden_size"] == 8


def test_what_a_folder_is_instead(tmp_path):
    (tmp_path / "model").mkdir()
    for path, words in (
        (tmp_path / "model", "is an empty folder; name one with config.json"),
        (tmp_path, "has no config.json; name the folder"),
    ):
        with pytest.raises(InputError, match=words):
            checkpoints.load(f"dir:{path}")
    write_tiny(tmp_path / "model")
    with pytest.raises(InputError, match=f"its folder model has; write dir:{tmp_path}/model"):
        checkpoints.load(f"dir:{tmp_path}")
    with pytest.raises(InputError, match=f"is a file, .* write dir:{tmp_path}/model"):
        checkpoints.load(f"dir:{tmp_path}/model/config.json")
    with pytest.raises(InputError, match=f"is a folder; .* write dir:{tmp_path}/model"):
        checkpoints.load(f"gguf:{tmp_path}/model")
    (tmp_path / "model.gguf").touch()
    with pytest.raises(InputError, match=f"write gguf:{tmp_path}/model.gguf"):
        checkpoints.load(f"dir:{tmp_path}")


def test_foreign_tensors_say_what_they_are(tmp_path):
    for name, words in {
        "q_proj.lora_A.weight": "merge the adapter",
        "qweight": "quantised",
    }.items():
        write_tiny(tmp_path, tensors={f"model.layers.0.{name}": np.ones([2, 2], np.float32)})
        with pytest.raises(InputError, match=words):
            read_folder(tmp_path)


def test_an_adapters_folder_says_that_it_is_one(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    (tmp_path / "adapter_model.safetensors").touch()
    for read in (read_folder, lambda folder: checkpoints.load(f"dir:{folder}")):
        with pytest.raises(InputError, match="holds an adapter for org/base, not a model; merge"):
            read(tmp_path)
