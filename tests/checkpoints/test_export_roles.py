"""What `transformers` reads of a folder is what it reads of its export: roles of tokens, chat
template, added tokens, generation config.
"""

import json

import pytest

from lmdyn import checkpoints
from lmdyn.checkpoints import runs
from tests.checkpoints.cases import CASES, random_model, write_tiny

transformers = pytest.importorskip("transformers")

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] + '\n' + m['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>a\n{% endif %}"
)
CHAT = [{"role": "a", "content": "ab a b"}, {"role": "b", "content": "<|im_end|>c"}]
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "c", "\u0120", "\u010a"]
VOCAB = {token: i for i, token in enumerate(TOKENS)}
ROLES = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}


def gpt2():
    return transformers.GPT2TokenizerFast(vocab=VOCAB, merges=[("a", "b")], **ROLES)


def qwen2():
    return transformers.Qwen2TokenizerFast(vocab=VOCAB, merges=[("a", "b")], **ROLES)


def llama():
    tokens = ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "<0x0A>"]
    return transformers.LlamaTokenizerFast(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[("a", "b")],
        add_bos_token=True,
        pad_token="</s>",
    )


def fast():
    """As SmolLM2-Instruct: the end of text is none of the roles."""
    backend = gpt2().backend_tokenizer
    backend.enable_truncation(5)
    backend.enable_padding(pad_id=2, pad_token="<|im_end|>")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=16, padding_side="left", **ROLES
    )


def write(folder, tokenizer, **config):
    """A model with that tokenizer, as `transformers` saves one for chats."""
    tokenizer.add_tokens(["cc"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    tokenizer.chat_template = TEMPLATE
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "pad")}
    ids["eos_token_id"] = tokenizer.eos_token_id
    write_tiny(folder, **{"initializer_range": 0.04, "torch_dtype": "bfloat16", **ids, **config})
    (folder / "tokenizer.json").unlink()
    tokenizer.save_pretrained(folder)
    transformers.GenerationConfig(
        **{**ids, "eos_token_id": [ids["eos_token_id"], 0]}, temperature=0.6, do_sample=True
    ).save_pretrained(folder)
    return folder


def seen(folder) -> dict:
    """What `transformers` makes of the tokenizer of a folder."""
    found = transformers.AutoTokenizer.from_pretrained(folder)
    return {
        "class": type(found).__name__,
        "roles": found.special_tokens_map,
        "ids": [found.bos_token_id, found.eos_token_id, found.pad_token_id, found.unk_token_id],
        "added": {i: repr(token) for i, token in found.added_tokens_decoder.items()},
        "sides": [found.padding_side, found.truncation_side, found.model_max_length],
        "template": found.chat_template,
        "chat": found.apply_chat_template(CHAT, add_generation_prompt=True).input_ids,
        "text": found("a cc<tool>\nab<|im_end|>").input_ids,
    }


def config(folder) -> dict:
    values = transformers.AutoConfig.from_pretrained(folder).to_dict()
    values.pop("dtype")  # of the weights, which are float32 in an export
    values.pop("architectures")  # a file may leave it out
    values.pop("_name_or_path", None)
    return values


def generation(folder) -> dict:
    return transformers.GenerationConfig.from_pretrained(folder).to_dict()


@pytest.mark.parametrize("make", [gpt2, qwen2, llama, fast])
def test_a_folder_and_its_export_are_equal(make, tmp_path):
    folder = write(tmp_path / "in", make())
    loaded = checkpoints.load(f"dir:{folder}")
    checkpoints.export(loaded.model, loaded.params, loaded.tokenizer, tmp_path / "out")
    for look in (seen, config, generation):
        assert look(tmp_path / "out") == look(folder)
    changed = {"config.json", "model.safetensors"}
    left = {path.name for path in folder.iterdir()}
    assert left == {path.name for path in (tmp_path / "out").iterdir()}
    for name in left - changed:
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_older_way_to_keep_a_template_and_tokens(tmp_path):
    """transformers 4: the template in tokenizer_config.json, roles in special_tokens_map.json."""
    folder = write(tmp_path / "in", fast())
    about = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "chat_template.jinja").unlink()
    added = transformers.AutoTokenizer.from_pretrained(folder).added_tokens_encoder
    files = {
        "tokenizer_config.json": {**about, "chat_template": TEMPLATE},
        "special_tokens_map.json": ROLES,
        "added_tokens.json": added,
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values))
    loaded = checkpoints.load(f"dir:{folder}")
    checkpoints.export(loaded.model, loaded.params, loaded.tokenizer, tmp_path / "out")
    assert seen(tmp_path / "out") == seen(folder)
    assert seen(folder)["template"] == TEMPLATE
    for name, values in files.items():
        assert json.loads((tmp_path / "out" / name).read_text()) == values


def test_a_folder_without_tokenizer_json(tmp_path):
    folder = write(tmp_path / "in", qwen2())
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    added = {"cc": len(VOCAB), "<tool>": len(VOCAB) + 1}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    loaded = checkpoints.load(f"dir:{folder}")
    assert loaded.tokenizer.encode("a cc<tool>\nab<|im_end|>").tolist() == seen(folder)["text"]
    checkpoints.export(loaded.model, loaded.params, loaded.tokenizer, tmp_path / "out")
    assert seen(tmp_path / "out") == seen(folder)
    assert {p.name for p in folder.iterdir()} == {p.name for p in (tmp_path / "out").iterdir()}


def test_a_run_keeps_them(tmp_path):
    folder = write(tmp_path / "in", fast())
    loaded = checkpoints.load(f"dir:{folder}")
    architecture, tokenizer = loaded.model.config, loaded.tokenizer
    run = tmp_path / "run"
    runs.create(run, model=architecture, tokenizer=tokenizer, config={}, data={})
    tokenizer = runs.describe(run).tokenizer
    checkpoints.export(loaded.model, loaded.params, tokenizer, tmp_path / "out")
    for look in (seen, config, generation):
        assert look(tmp_path / "out") == look(folder)


def test_a_model_of_another_shape_keeps_the_roles(tmp_path):
    from lmdyn import models

    folder = write(tmp_path / "in", fast())
    tokenizer = checkpoints.load(f"dir:{folder}").tokenizer
    shape = models.ModelConfig(
        vocab=20, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    )
    model = models.LanguageModel(shape)
    checkpoints.export(model, models.init(model), tokenizer, tmp_path / "out")
    assert seen(tmp_path / "out") == seen(folder)
    assert generation(tmp_path / "out") == generation(folder)
    found = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert (found.hidden_size, found.vocab_size) == (6, 20)
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (1, 2, 2)


def test_a_gguf_becomes_a_folder_with_its_roles(tmp_path):
    """SmolLM2-Instruct's roles: beginning 1, end 2, padding 2, and a chat template."""
    pytest.importorskip("torch")
    gguf = pytest.importorskip("gguf")
    from tests.checkpoints.test_gguf import write as write_gguf

    def tokens(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list([*TOKENS, "cc"])
        writer.add_token_types([3] * 3 + [1] * (len(TOKENS) - 3) + [4])
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_pad_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_bos_token(False)
        writer.add_chat_template([{"name": "default", "template": TEMPLATE}])

    options = {
        **CASES["llama-biases-linear"].options,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    }
    path = tmp_path / "model.gguf"
    write_gguf(path, random_model("llama", options), "llama", tokenizer=tokens)
    assert gguf.GGUFReader(path).fields["tokenizer.chat_template"]
    loaded = checkpoints.load(f"gguf:{path}")
    checkpoints.export(loaded.model, loaded.params, loaded.tokenizer, tmp_path / "out")
    expected = gpt2()  # the same vocabulary in the hands of transformers
    expected.add_tokens(["cc"])
    expected.chat_template = TEMPLATE
    found = seen(tmp_path / "out")
    assert found["ids"] == [1, 2, 2, 0]
    assert found["template"] == TEMPLATE
    assert found["chat"] == (
        expected.apply_chat_template(CHAT, add_generation_prompt=True).input_ids
    )
    assert found["text"] == expected("a cc<tool>\nab<|im_end|>").input_ids
    for read in (transformers.AutoConfig, transformers.GenerationConfig):
        ids = read.from_pretrained(tmp_path / "out")
        assert (ids.bos_token_id, ids.eos_token_id, ids.pad_token_id) == (1, 2, 2)
    assert checkpoints.load(f"dir:{tmp_path / 'out'}").tokenizer.end_of_text == 0
