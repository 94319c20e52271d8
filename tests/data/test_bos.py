"""The token that begins a text: as the model's own tokenizer puts it, or as the user says."""

import json

import numpy as np
import pytest
from tokenizers import AddedToken, processors

from lmdyn.data import Probe, batches, encode_probes, store, tokenize, tokenizers
from lmdyn.errors import InputError

BOS, EOS = 257, 256


def folder(path, template: bool, **config):
    """A tokenizer of bytes with `<s>`, as a Hugging Face folder has it."""
    backend = tokenizers.byte_tokenizer().backend
    backend.add_special_tokens([AddedToken("<s>", special=True, normalized=False)])
    if template:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", BOS)]
        )
    path.mkdir()
    (path / "tokenizer.json").write_text(backend.to_str())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"} | config
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("template", [True, False])
@pytest.mark.parametrize("config", [{}, {"bos_token": "<s>"}])
def test_auto_is_what_transformers_does(tmp_path, template, config):
    transformers = pytest.importorskip("transformers")
    path = folder(tmp_path / "model", template, **config)
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    found = tokenizers.from_folder(path)
    [ids] = tokenize(["né <s>x"], found)
    assert ids.tolist() == theirs("né <s>x").input_ids
    assert found.first_token() == (BOS if template else None)


@pytest.mark.parametrize("template", [True, False])
@pytest.mark.parametrize("adds", [True, False])
def test_add_bos_token_goes_before_the_template(tmp_path, template, adds):
    path = folder(tmp_path / "model", template, bos_token="<s>", add_bos_token=adds)
    found = tokenizers.from_folder(path)
    assert found.first_token() == (BOS if adds else None)
    (tmp_path / "tokenizer.json").write_text(found.to_json())  # and it goes with the tokenizer
    again = tokenizers.from_file(tmp_path / "tokenizer.json", EOS, bos=found.bos)
    assert again.first_token() == found.first_token()


@pytest.fixture
def tokenizer(tmp_path):
    return tokenizers.from_folder(folder(tmp_path / "model", True, bos_token="<s>"))


@pytest.mark.parametrize("bos", ["auto", "document"])
def test_every_document_begins_with_it(tokenizer, tmp_path, bos):
    wanted = [[BOS, 97, 98], [BOS, 99]]
    assert [d.tolist() for d in tokenize(["ab", "", "c"], tokenizer, bos=bos)] == wanted
    tokens = store(["ab", "", "c"], tokenizer, cache=tmp_path, bos=bos)
    assert [d.tolist() for d in tokens] == wanted
    plain = store(["ab", "", "c"], tokenizer, cache=tmp_path, bos="none")
    assert [d.tolist() for d in plain] == [[97, 98], [99]]
    assert plain.digest != tokens.digest
    [batch] = batches(["ab", "c"], tokenizer, length=5, batch=1, bos=bos)
    assert batch.inputs.tolist() == [[BOS, 97, 98, EOS, BOS]]
    assert batch.targets.tolist() == [[97, 98, EOS, BOS, 99]]


def test_every_window_begins_with_it(tokenizer):
    cut = batches(["abcde"], tokenizer, length=2, batch=2, bos="window")
    assert cut.tokens == 5  # the very first token is predicted, too
    assert np.concatenate([b.inputs for b in cut]).tolist() == [
        [BOS, 97],
        [BOS, 99],
        [BOS, 0],
        [0, 0],
    ]
    assert np.concatenate([b.targets for b in cut]).tolist()[:2] == [[97, 98], [99, 100]]
    assert np.concatenate([b.mask for b in cut]).tolist()[2:] == [[True, False], [False, False]]


def test_a_probe_may_then_ask_for_its_first_token(tokenizer):
    probe = Probe("Paris is big", 0, 5)
    with pytest.raises(InputError, match="begins with the first token"):
        encode_probes([probe], tokenizer, bos="none")
    batch = encode_probes([probe], tokenizer)
    assert batch.inputs[0, :2].tolist() == [BOS, ord("P")]
    assert batch.targets[0][batch.span[0]].tolist() == list(b"Paris")


def test_a_model_that_has_none_gets_none():
    plain = tokenizers.byte_tokenizer()
    assert tokenize(["a"], plain)[0].tolist() == [97]
    for bos in ("document", "window"):
        with pytest.raises(InputError, match="has no beginning-of-text token"):
            batches(["abc"], plain, length=2, bos=bos)
    with pytest.raises(InputError, match="unknown bos 'documents'"):
        tokenize(["a"], plain, bos="documents")


GGUF = {
    "said": (dict(add_bos_token=True), True),
    "said not": (dict(model="llama", add_bos_token=False), False),
    "sentencepiece": (dict(model="llama"), True),  # the rest: as llama.cpp does
    "llama 3": (dict(pre="llama-bpe"), True),
    "gpt-2": ({}, False),
}


@pytest.mark.parametrize("fields, adds", GGUF.values(), ids=GGUF)
def test_gguf(fields, adds):
    tokens = ["a", "b", "<s>", "</s>"]
    fields = {
        "model": "gpt2",
        "tokens": tokens,
        "merges": [],
        "token_type": [1, 1, 3, 3],
        "scores": [0.0] * 4,
        "eos_token_id": 3,
        "bos_token_id": 2,
        "add_space_prefix": False,
    } | fields
    found = tokenizers.from_gguf({f"tokenizer.ggml.{key}": v for key, v in fields.items()})
    assert found.bos == 2
    assert found.first_token() == (2 if adds else None)
    assert [d.tolist() for d in tokenize(["ab"], found)] == [[2, 0, 1] if adds else [0, 1]]


def test_the_command_line_puts_it_and_says_so(tmp_path):
    """The rows of a text with it are those of a text that has it written out."""
    from lmdyn import checkpoints, cli, models

    tokenizer = tokenizers.from_folder(folder(tmp_path / "tokenizer", True, bos_token="<s>"))
    config = models.ModelConfig(
        vocab=258, width=6, depth=1, heads=3, head_width=2, mlp_width=10, positions=16
    )
    model = models.LanguageModel(config)
    checkpoints.export(model, models.init(model), tokenizer, tmp_path / "model")
    again = checkpoints.load(f"dir:{tmp_path}/model").tokenizer
    assert (again.bos, again.first_token()) == (BOS, BOS)
    (tmp_path / "a.txt").write_text("to be or not")
    (tmp_path / "b.txt").write_text("<s>to be or not")
    found = []
    for name, bos in (("a", "auto"), ("b", "none"), ("a", "none")):
        out = tmp_path / f"{name}-{bos}.jsonl"
        words = ["--data", f"text:{tmp_path}/{name}.txt", "--length", "11", "--metrics", "nll"]
        assert cli.main(
            ["measure", f"dir:{tmp_path}/model", *words, "--bos", bos, "--out", str(out)]
        ) in (0, None)
        about = json.loads(out.with_name(out.name + ".meta.json").read_text())
        assert list(about["first_tokens"].values()) == [BOS if bos == "auto" else None]
        found.append(json.loads(out.read_text().splitlines()[0])["value"])
    assert found[0] == found[1] != found[2]
